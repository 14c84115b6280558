//! Bytes that OpenSSL wrote, kept in `golden.txt`, and the same written anew by the OpenSSL that is installed.

use std::path::Path;
use std::process::Command;

use super::{Blocks, Family, InvalidBlocks, Range, merge};
use crate::certificate;

struct Vector {
    name: &'static str,
    entries: Vec<(&'static str, &'static str)>,
    der: Vec<u8>,
    result: &'static str,
}

fn vectors() -> Vec<Vector> {
    let lines = include_str!("golden.txt").lines().filter(|line| !line.starts_with('#'));
    let vectors: Vec<Vector> = lines.map(vector).collect();
    assert!(vectors.len() > 20, "{} vectors", vectors.len());
    vectors
}

fn vector(line: &'static str) -> Vector {
    let fields: Vec<&str> = line.split(" | ").collect();
    let [name, entries, der, result] = fields[..] else { panic!("four fields expected: {line}") };
    let entry = |entry: &'static str| entry.split_once(':').expect("a family and its value");
    let byte = |pair: &[u8]| {
        u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hexadecimal digits")
    };
    Vector {
        name,
        entries: entries.split(", ").map(entry).collect(),
        der: der.as_bytes().chunks(2).map(byte).collect(),
        result,
    }
}

impl Vector {
    /// What the entries mean, read as text and not from the bytes.
    fn meaning(&self) -> Blocks {
        let mut blocks = Blocks::default();
        for (family, text) in &self.entries {
            let (low, high) = match text.split_once('-') {
                Some((low, high)) => (number(low), number(high)),
                None => {
                    let net: ipnet::IpNet = text.parse().expect("a prefix");
                    (number(&net.network().to_string()), number(&net.broadcast().to_string()))
                }
            };
            let family = if *family == "IPv4" { Family::V4 } else { Family::V6 };
            let ranges = if family == Family::V4 { &mut blocks.v4 } else { &mut blocks.v6 };
            ranges.push(Range { low, high });
            *ranges = merge(std::mem::take(ranges));
        }
        blocks
    }
}

fn number(address: &str) -> u128 {
    match address.parse().expect("an address") {
        std::net::IpAddr::V4(v4) => u128::from(u32::from(v4)),
        std::net::IpAddr::V6(v6) => u128::from(v6),
    }
}

#[test]
fn what_openssl_wrote_is_read_and_written_the_same() {
    for vector in vectors() {
        let read = Blocks::from_der(&vector.der);
        match vector.result {
            "[inherit]" => assert_eq!(read, Err(InvalidBlocks::Inherit), "{}", vector.name),
            "[SAFI]" => {
                assert!(matches!(read, Err(InvalidBlocks::Family { .. })), "{}: {read:?}", vector.name);
            }
            text => {
                let blocks = read.unwrap_or_else(|error| panic!("{}: {error}", vector.name));
                assert_eq!(blocks.to_string(), text, "{}", vector.name);
                assert_eq!(blocks, vector.meaning(), "{}", vector.name);
                assert_eq!(blocks.to_der(), vector.der, "{}", vector.name);
            }
        }
    }
}

/// The vectors are not a memory of ours: the OpenSSL of this machine puts the same bytes into an intermediate's
/// certificate, and reads ours back as the same addresses.
#[test]
fn the_installed_openssl_writes_the_same() {
    let dir = tempfile::tempdir().expect("a directory");
    let (key, configuration, out) =
        (dir.path().join("key"), dir.path().join("openssl.cnf"), dir.path().join("out"));
    openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", text(&key)]);
    for vector in vectors() {
        let entry = |(at, (family, value)): (usize, &(&str, &str))| format!("{family}.{at} = {value}\n");
        let entries: String = vector.entries.iter().enumerate().map(entry).collect();
        let written = format!(
            "[req]\ndistinguished_name = name\n[name]\n[passport]\nbasicConstraints = critical,CA:TRUE,pathlen:0\n\
             keyUsage = critical,keyCertSign,cRLSign\nsbgp-ipAddrBlock = @blocks\n[blocks]\n{entries}"
        );
        std::fs::write(&configuration, written).expect("written");
        let subject = ["req", "-new", "-x509", "-subj", "/CN=isthmus cluster golden"];
        let files = ["-key", text(&key), "-config", text(&configuration)];
        let more = ["-extensions", "passport", "-outform", "DER", "-out", text(&out)];
        openssl(&[&subject[..], &files, &more].concat());
        let der = std::fs::read(&out).expect("a certificate");
        let x509 = certificate::parse(&der).expect("a certificate");
        let extension =
            x509.extensions().iter().find(|extension| extension.oid == certificate::IP_ADDR_BLOCKS);
        let value = extension.map(|extension| extension.value.to_vec());
        assert_eq!(value.as_deref(), Some(&vector.der[..]), "{}", vector.name);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn openssl(arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).output().expect("openssl is installed");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
