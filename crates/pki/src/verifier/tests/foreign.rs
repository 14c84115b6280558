//! Secrets as cert-manager makes them: an issuer of kind CA with the passport in its Secret signs the leaf; the key comes as
//! PKCS #1, SEC 1 or PKCS #8, and the usages are cert-manager's defaults. Made here with OpenSSL.

use std::path::Path;
use std::process::Command;

use crate::files::{Credentials, LiveCredentials, certificates_pem};
use crate::key::KeyKind;
use crate::profile::LeafRole;
use crate::verifier::fixture::{Member, Root, connect};
use crate::verifier::{Expected, Role};

fn openssl(dir: &Path, arguments: &[&str]) {
    let output =
        Command::new("openssl").current_dir(dir).args(arguments).output().expect("openssl is installed");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The directory of such a Secret: `tls.crt`, `tls.key`, `ca.crt`.
fn secret(
    member: &Member,
    key: &[&[&str]],
    label: &str,
    usages: &str,
    name: &str,
    uri: &str,
) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("passport.crt"), certificates_pem([&member.der])).expect("written");
    std::fs::write(path("ca.crt"), certificates_pem([member.root()])).expect("written");
    member.key.write(&path("passport.key")).expect("written");
    for arguments in key {
        openssl(dir.path(), arguments);
    }
    let pem = std::fs::read_to_string(path("tls.key")).expect("a key");
    assert!(pem.contains(&format!("-----BEGIN {label}-----")), "{label} expected in {pem}");
    let extensions = format!(
        "basicConstraints = critical,CA:FALSE\nkeyUsage = critical,digitalSignature,keyEncipherment\n\
         extendedKeyUsage = {usages}\nsubjectAltName = URI:{uri}{}\nauthorityKeyIdentifier = keyid\n",
        if usages.contains("server") { ",DNS:paris.mesh.cilium.io" } else { "" },
    );
    std::fs::write(path("extensions"), extensions).expect("written");
    openssl(dir.path(), &["req", "-new", "-key", "tls.key", "-subj", &format!("/CN={name}"), "-out", "csr"]);
    openssl(
        dir.path(),
        &[
            "x509",
            "-req",
            "-in",
            "csr",
            "-CA",
            "passport.crt",
            "-CAkey",
            "passport.key",
            "-CAcreateserial",
            "-days",
            "90",
            "-sha256",
            "-extfile",
            "extensions",
            "-out",
            "leaf.crt",
        ],
    );
    let leaf = std::fs::read_to_string(path("leaf.crt")).expect("a leaf");
    std::fs::write(path("tls.crt"), leaf + &certificates_pem([&member.der])).expect("written");
    dir
}

#[tokio::test]
async fn secrets_of_cert_manager_serve_and_call() {
    let root = Root::new(KeyKind::P256);
    let (paris, tokyo) = (root.member("paris", 1), root.member("tokyo", 2));
    let keys: [(&str, &[&[&str]]); 3] = [
        ("RSA PRIVATE KEY", &[&["genrsa", "-traditional", "-out", "tls.key", "2048"]]),
        ("EC PRIVATE KEY", &[&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "tls.key"]]),
        ("PRIVATE KEY", &[&["genpkey", "-algorithm", "ED25519", "-out", "tls.key"]]),
    ];
    for (label, key) in keys {
        let uri = "spiffe://mesh.example/cluster/paris/node/n1/hub";
        let hub = secret(&paris, key, label, "serverAuth,clientAuth", "isthmus hub", uri);
        let uri = "spiffe://mesh.example/cluster/tokyo/node/n7/remote";
        let client = secret(&tokyo, key, label, "clientAuth", "remote-tokyo", uri);
        let load = |dir: &tempfile::TempDir| {
            LiveCredentials::fixed(
                Credentials::load(dir.path()).unwrap_or_else(|error| panic!("{label}: {error}")),
            )
        };
        let (hub, client) = (load(&hub), load(&client));
        let expected = Expected::Peer("paris".parse().expect("a name"));
        let (accepting, connecting) = connect(&hub, &client, expected, "paris.mesh.cilium.io").await;
        connecting.unwrap_or_else(|error| panic!("{label}: {error}"));
        let (_, identity) = accepting.unwrap_or_else(|error| panic!("{label}: {error}"));
        let role = &identity.accepted().unwrap_or_else(|| panic!("{label}: {identity}")).role;
        assert!(
            matches!(role, Role::Remote { peer, node, .. } if peer.as_str() == "tokyo" && node.as_str() == "n7")
        );
    }
}

/// An issuer whose Secret holds nothing but the passport has `ca.crt` = the passport: then only the own cluster counts, and a peer
/// is told by what it misses.
#[tokio::test]
async fn an_issuers_secret_without_the_root_accepts_the_own_cluster_alone() {
    let root = Root::new(KeyKind::P256);
    let (paris, tokyo) = (root.member("paris", 1), root.member("tokyo", 2));
    let hub = paris.holder(LeafRole::Hub).credentials_accepting(std::slice::from_ref(&paris.der), &[]);
    let (accepting, _) =
        connect(&hub, &paris.holder(LeafRole::Local).credentials(), Expected::OwnHub, "paris.mesh.cilium.io")
            .await;
    let (_, identity) = accepting.expect("the own agent");
    assert!(identity.accepted().is_some(), "{identity}");
    let expected = Expected::Peer("paris".parse().expect("a name"));
    let (accepting, _) =
        connect(&hub, &tokyo.holder(LeafRole::Remote).credentials(), expected, "paris.mesh.cilium.io").await;
    let error = accepting.map(|(_, identity)| identity).expect_err("no root").to_string();
    assert!(error.contains("no path to an accepted root; accepted: CN=isthmus cluster paris"), "{error}");
}
