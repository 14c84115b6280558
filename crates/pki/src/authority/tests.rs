//! An authority on disk: what it refuses, what it keeps, what a crash leaves.

mod attest;
mod audit;
mod revocation;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;
use crate::key::SigningRequest;
use topology::block::parse_block;

fn init() -> (tempfile::TempDir, Authority) {
    let dir = tempfile::tempdir().expect("a directory");
    let domain = "mesh.example".parse().expect("a trust domain");
    let authority = Authority::init(&dir.path().join("authority"), domain, KeyKind::P256).expect("made");
    (dir, authority)
}

fn request(cluster: &str, id: u32, pods: &[&str]) -> EnrolRequest {
    EnrolRequest {
        cluster: cluster.parse().expect("a name"),
        id: id.try_into().expect("an id"),
        pod_cidrs: pods.iter().map(|text| parse_block(text).expect("a block")).collect(),
        node_cidrs: Vec::new(),
        shared_node_cidrs: Vec::new(),
        service_cidrs: vec![parse_block("10.96.0.0/12").expect("a block")],
        hub_addresses: vec![format!("hub.{cluster}.example").parse().expect("a hub address")],
    }
}

fn signing() -> SigningRequest {
    let key = PrivateKey::generate(KeyKind::P256).expect("a key");
    SigningRequest::from_pem(&key.request().expect("a request")).expect("sound")
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("metadata").permissions().mode() & 0o777
}

#[test]
fn secrets_have_their_modes_from_the_start() {
    let (dir, _) = init();
    let dir = dir.path().join("authority");
    assert_eq!(mode(&dir), 0o700);
    for (name, expected) in [(ROOT_KEY, 0o600), (LEDGER, 0o600), ("lock", 0o600)] {
        assert_eq!(mode(&dir.join(name)), expected, "{name}");
    }
}

#[test]
fn a_second_root_is_never_made_over_the_first() {
    let (dir, authority) = init();
    let again =
        Authority::init(&dir.path().join("authority"), authority.trust_domain().clone(), KeyKind::P256);
    let error = again.expect_err("exists").to_string();
    assert!(error.contains("already holds an authority (ledger.jsonl)"), "{error}");
    assert_eq!(Authority::open(&dir.path().join("authority")).expect("opened").root(), authority.root());
}

#[test]
fn enrolment_binds_name_id_and_addresses() {
    let (_dir, authority) = init();
    let wanted = EnrolRequest {
        node_cidrs: vec!["::ffff:192.168.1.7/120".parse().expect("a block")],
        ..request("paris", 1, &["10.1.0.0/16", "fd00:10:1::/48"])
    };
    let enrolled = authority.enroll(&wanted, &signing()).expect("granted");
    let passport = &enrolled.passport;
    assert_eq!(passport.uri.to_string(), "spiffe://mesh.example/cluster/paris/id/1");
    assert_eq!(passport.blocks.to_string(), "10.1.0.0/16, 192.168.1.0/24, fd00:10:1::/48");
    let names: Vec<&str> = passport.dns_names.iter().map(String::as_str).collect();
    let expected =
        ["paris.mesh.cilium.io", "paris.hubble-grpc.cilium.io", "hub.paris.example", "svc", "cluster.local"];
    assert_eq!(names, expected);
    assert_eq!(passport.addresses, ["127.0.0.1/32", "::1/128"].map(|text| text.parse().expect("a block")));
    assert!(!enrolled.renewed && enrolled.notes.is_empty());
    let ledger = authority.ledger().expect("read");
    let [entry] = ledger.enrolments() else { panic!("one entry, not {:?}", ledger.enrolments()) };
    assert_eq!((entry.spki, entry.certificate), (passport.spki, passport.fingerprint));
    assert_eq!(entry.serial.len(), 32, "16 bytes: {}", entry.serial);
    assert_eq!(entry.request.node_cidrs, [parse_block("192.168.1.0/24").expect("a block")]);
}

#[test]
fn a_collision_signs_and_records_nothing() {
    let (_dir, authority) = init();
    authority.enroll(&request("paris", 1, &["10.1.0.0/17"]), &signing()).expect("granted");
    let refused = authority.enroll(&request("tokyo", 2, &["10.1.0.0/16"]), &signing()).expect_err("refused");
    assert_eq!(
        refused.to_string(),
        "cluster tokyo's pod block 10.1.0.0/16 overlaps cluster paris's pod block 10.1.0.0/17 (shared part 10.1.0.0/17); \
         give tokyo a pod block that does not contain 10.1.0.0/17, or renumber paris"
    );
    assert_eq!(authority.ledger().expect("read").enrolments().len(), 1);
    let tokyo = authority.enroll(&request("tokyo", 2, &["10.2.0.0/16"]), &signing()).expect("granted");
    let notes: Vec<String> = tokyo.notes.iter().map(ToString::to_string).collect();
    assert!(
        matches!(&notes[..], [note] if note.contains("tokyo's service block") && note.contains("paris's")),
        "{notes:?}"
    );
}

#[test]
fn a_renewal_takes_a_new_key_and_is_checked_again() {
    let (_dir, authority) = init();
    let key = signing();
    authority.enroll(&request("paris", 1, &["10.1.0.0/16"]), &key).expect("granted");
    authority.enroll(&request("tokyo", 2, &["10.2.0.0/16"]), &signing()).expect("granted");
    let same_key =
        authority.enroll(&request("paris", 1, &["10.1.0.0/16"]), &key).expect_err("refused").to_string();
    assert!(same_key.contains("the key was already enrolled, for cluster paris at 2"), "{same_key}");
    let wider =
        authority.enroll(&request("paris", 1, &["10.0.0.0/8"]), &signing()).expect_err("refused").to_string();
    assert!(wider.contains("cluster tokyo's pod block 10.2.0.0/16"), "{wider}");
    let moved = authority.enroll(&request("paris", 1, &["10.3.0.0/16"]), &signing()).expect("granted");
    assert!(moved.renewed);
    // What paris gave up is free; what it has now is not.
    authority.enroll(&request("osaka", 3, &["10.1.0.0/16"]), &signing()).expect("granted");
    authority.enroll(&request("berlin", 4, &["10.3.0.0/24"]), &signing()).expect_err("refused");
    assert_eq!(authority.ledger().expect("read").current().count(), 3);
}

#[test]
fn names_of_the_mesh_are_no_ones_hub_name() {
    let (_dir, authority) = init();
    for name in ["tokyo.mesh.cilium.io", "mesh.cilium.io", "cilium.io", "hub.isthmus.svc", "a.cluster.local"]
    {
        let wanted = EnrolRequest {
            hub_addresses: vec![name.parse().expect("a hub address")],
            ..request("paris", 1, &["10.1.0.0/16"])
        };
        let error = authority.enroll(&wanted, &signing()).expect_err(name).to_string();
        assert!(error.contains("where every cluster has its names by itself"), "{error}");
    }
    for bad in ["com", "*.example.com", "hub.example.com:2379", "1.2.3", "hub.example.com.", "-a.example", ""]
    {
        assert!(bad.parse::<HubAddress>().is_err(), "{bad}");
    }
    let none = authority.enroll(&request("paris", 1, &[]), &signing()).expect_err("no pods").to_string();
    assert!(none.contains("no pod block given"), "{none}");
    let all_v6 =
        authority.enroll(&request("paris", 1, &["::/0"]), &signing()).expect_err("mapped").to_string();
    assert!(all_v6.contains("::ffff:0:0/96"), "{all_v6}");
}

#[test]
fn a_line_cut_by_a_crash_is_overwritten() {
    let (dir, authority) = init();
    authority.enroll(&request("paris", 1, &["10.1.0.0/16"]), &signing()).expect("granted");
    let path = dir.path().join("authority").join(LEDGER);
    let mut bytes = std::fs::read(&path).expect("read");
    bytes.extend_from_slice(br#"{"event":"enrol","at":"2026-11-21T14:2"#);
    std::fs::write(&path, &bytes).expect("written");
    assert_eq!(authority.ledger().expect("read").enrolments().len(), 1);
    authority.enroll(&request("tokyo", 2, &["10.2.0.0/16"]), &signing()).expect("granted");
    let text = std::fs::read_to_string(&path).expect("read");
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.ends_with("}\n"));
    assert_eq!(authority.ledger().expect("read").enrolments().len(), 2);
}

#[test]
fn a_ledger_that_we_do_not_know_is_not_guessed_at() {
    let (dir, authority) = init();
    let path = dir.path().join("authority").join(LEDGER);
    let sound = std::fs::read_to_string(&path).expect("read");
    for (text, part) in [
        (format!("{sound}{{\"event\":\"later\"}}\n"), "line 2: not an event that this version knows"),
        (sound.replace("\"format\":1", "\"format\":2"), "format 2, expected 1"),
        (format!("{sound}{sound}"), "a second init event"),
        (String::new(), "its first line is not an init event"),
    ] {
        std::fs::write(&path, text).expect("written");
        let error = authority.ledger().expect_err(part).to_string();
        assert!(error.contains(part), "{error}");
    }
    std::fs::remove_file(&path).expect("removed");
    let error = Authority::open(&dir.path().join("authority")).expect_err("no ledger").to_string();
    assert!(error.contains("is this the directory of an authority"), "{error}");
}

/// The format is read by other versions: this line was written by the first one.
#[test]
fn the_first_format_is_read_for_ever() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join(LEDGER);
    let spki = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let text = format!(
        "{{\"event\":\"init\",\"format\":1,\"at\":\"2026-11-21T14:22:03Z\",\"trust_domain\":\"mesh.example\",\"root_spki_sha256\":\"{spki}\"}}\n\
         {{\"event\":\"enrol\",\"at\":\"2026-11-21T14:23:00Z\",\"cluster\":\"paris\",\"id\":1,\"pod_cidrs\":[\"10.1.0.0/16\"],\
         \"node_cidrs\":[\"192.168.1.0/24\"],\"service_cidrs\":[\"10.96.0.0/12\"],\"hub_addresses\":[\"hub.paris.example\",\"192.0.2.1\"],\
         \"serial\":\"4a\",\"spki_sha256\":\"{spki}\",\"certificate_sha256\":\"{spki}\",\"not_after\":\"2027-11-22T14:23:00Z\",\"later\":true}}\n"
    );
    std::fs::write(&path, &text).expect("written");
    let ledger = Ledger::read(&path).expect("read");
    let [entry] = ledger.enrolments() else { panic!("one entry, not {:?}", ledger.enrolments()) };
    assert_eq!(entry.request.addresses(), ["192.0.2.1".parse::<std::net::IpAddr>().expect("an address")]);
    let written = serde_json::to_string(entry).expect("JSON");
    let line = text.lines().nth(1).expect("a line");
    assert_eq!(written, line.replace("\"event\":\"enrol\",", "").replace(",\"later\":true", ""));
}

#[test]
fn two_at_once_cannot_both_win() {
    let (dir, _) = init();
    let dir = dir.path().join("authority");
    let outcomes: Vec<bool> = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=8)
            .map(|id| {
                let dir = &dir;
                scope.spawn(move || {
                    let authority = Authority::open(dir).expect("opened");
                    authority.enroll(&request(&format!("c{id}"), id, &["10.1.0.0/16"]), &signing()).is_ok()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert_eq!(outcomes.iter().filter(|won| **won).count(), 1, "{outcomes:?}");
}

/// OpenSSL enforces RFC 3779 on intermediates: an independent reader of our bytes.
#[test]
fn openssl_verifies_our_passports_and_prints_our_blocks() {
    for kind in [KeyKind::P256, KeyKind::Ed25519] {
        let dir = tempfile::tempdir().expect("a directory");
        let domain = "mesh.example".parse().expect("a trust domain");
        let authority = Authority::init(&dir.path().join("authority"), domain, kind).expect("made");
        let pods = [
            "10.1.0.0/16",
            "10.9.0.0/24",
            "10.9.1.0/24",
            "10.9.2.0/24",
            "fd00:1::/48",
            "172.16.16.0/20",
            "192.0.2.7/32",
        ];
        let enrolled = authority.enroll(&request("paris", 1, &pods), &signing()).expect("granted");
        let passport = dir.path().join("passport.crt");
        std::fs::write(&passport, certificates_pem([&enrolled.passport.der])).expect("written");
        let root = dir.path().join("authority").join(ROOT);
        let openssl = |args: &[&str]| {
            let out =
                std::process::Command::new("openssl").args(args).output().expect("openssl is installed");
            let text =
                format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
            (out.status.success(), text)
        };
        let path = |path: &Path| path.display().to_string();
        let (sound, text) = openssl(&["verify", "-x509_strict", "-CAfile", &path(&root), &path(&passport)]);
        assert!(sound, "{text}");
        let (_, text) = openssl(&["x509", "-noout", "-text", "-in", &path(&passport)]);
        for part in [
            "sbgp-ipAddrBlock",
            "10.1.0.0/16",
            "10.9.0.0-10.9.2.255",
            "172.16.16.0/20",
            "192.0.2.7/32",
            "fd00:1::/48",
            "URI:spiffe://mesh.example/cluster/paris/id/1",
            "DNS:paris.mesh.cilium.io",
            "CA:TRUE, pathlen:0",
            "Certificate Sign, CRL Sign",
        ] {
            assert!(text.contains(part), "{part} expected in:\n{text}");
        }
        assert!(!text.contains("sbgp-ipAddrBlock: critical"), "{text}");
    }
}

#[test]
fn addresses_that_every_machine_has_are_nobodys() {
    let (_dir, authority) = init();
    for (block, special) in [
        ("127.0.0.0/8", "127.0.0.0/8"),
        ("0.0.0.0/0", "0.0.0.0/8"),
        ("169.254.3.0/24", "169.254.0.0/16"),
        ("232.0.0.0/8", "224.0.0.0/4"),
        ("fe80:1::/64", "fe80::/10"),
        ("ff02::/16", "ff00::/8"),
    ] {
        let outcome = authority.enroll(&request("paris", 1, &["10.1.0.0/16", block]), &signing());
        let error = outcome.expect_err(block).to_string();
        assert!(
            error.contains("cluster paris") && error.contains(block) && error.contains(special),
            "{error}"
        );
    }
    assert!(authority.ledger().expect("read").enrolments().is_empty());
    // In use for pods on some clouds.
    authority.enroll(&request("paris", 1, &["240.0.0.0/8"]), &signing()).expect("granted");
}
