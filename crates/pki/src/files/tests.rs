//! Files as operators and volume mounts leave them.

mod documents;

use std::fs;
use std::time::Duration;

use super::*;
use crate::cluster_authority::{ClusterAuthority, PASSPORT_KEY};
use crate::key::{KeyKind, PrivateKey, SigningRequest};
use crate::profile::{LeafRole, LeafSpec};
use crate::{Authority, authority::EnrolRequest};
use tokio::time::timeout;

struct Stage {
    dir: tempfile::TempDir,
    cluster: ClusterAuthority,
}

fn stage() -> Stage {
    let dir = tempfile::tempdir().expect("a directory");
    let domain = "mesh.example".parse().expect("a trust domain");
    let authority = Authority::init(&dir.path().join("authority"), domain, KeyKind::P256).expect("made");
    let key = PrivateKey::generate(KeyKind::P256).expect("a key");
    let request = EnrolRequest {
        cluster: "paris".parse().expect("a name"),
        id: 1.try_into().expect("an id"),
        pod_cidrs: vec!["10.1.0.0/16".parse().expect("a block")],
        node_cidrs: Vec::new(),
        shared_node_cidrs: Vec::new(),
        service_cidrs: Vec::new(),
        hub_addresses: Vec::new(),
    };
    let signing = SigningRequest::from_pem(&key.request().expect("a request")).expect("sound");
    let enrolled = authority.enroll(&request, &signing).expect("granted");
    let cluster_dir = dir.path().join("paris");
    crate::durable::private_dir(&cluster_dir).expect("made");
    key.write(&cluster_dir.join(PASSPORT_KEY)).expect("written");
    ClusterAuthority::write_passport(&cluster_dir, &enrolled.passport, &[enrolled.root]).expect("written");
    let cluster = ClusterAuthority::open(&cluster_dir).expect("opened");
    Stage { dir, cluster }
}

impl Stage {
    fn issue(&self, role: LeafRole, kind: KeyKind) -> PathBuf {
        let out = self.dir.path().join("leaf");
        let key = PrivateKey::generate(kind).expect("a key");
        let signing = SigningRequest::from_pem(&key.request().expect("a request")).expect("sound");
        let spec = LeafSpec::new(role, "n1".parse().expect("a node"));
        let leaf = self.cluster.issue_leaf(&spec, &signing).expect("issued");
        leaf.write(&out, Some(&key)).expect("written");
        out
    }
}

/// The error with its causes, as a log shows it.
fn failure(dir: &Path) -> String {
    let error = Credentials::load(dir).expect_err("unusable");
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[test]
fn what_was_issued_loads() {
    let stage = stage();
    for role in LeafRole::ALL {
        for kind in [KeyKind::P256, KeyKind::Ed25519] {
            let credentials = Credentials::load(&stage.issue(role, kind)).expect("usable");
            assert_eq!(credentials.passport().expect("a passport").spki, stage.cluster.passport().spki);
            let name = format!(
                "certificate CN={} issued by CN=isthmus cluster paris",
                role.common_name(&"paris".parse().expect("a name"))
            );
            assert!(credentials.subject().starts_with(&name), "{}", credentials.subject());
        }
    }
}

#[test]
fn each_fault_says_path_found_expected_and_what_to_do() {
    let stage = stage();
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGb\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let legacy =
        "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMIGb\n-----END EC PRIVATE KEY-----\n";
    let other_key = "-----BEGIN PUBLIC KEY-----\nMIGb\n-----END PUBLIC KEY-----\n";
    for (file, content, parts) in [
        (CERTIFICATE, "", vec!["tls.crt", "the file is empty", "write it again"]),
        (CERTIFICATE, "hello", vec!["tls.crt", "no PEM block"]),
        (CERTIFICATE, other_key, vec!["tls.crt", "no certificate"]),
        (
            CERTIFICATE,
            "-----BEGIN CERTIFICATE-----\nMIIB\n",
            vec!["tls.crt", "the file is cut", "-----END CERTIFICATE-----"],
        ),
        (
            CERTIFICATE,
            "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
            vec!["tls.crt", "not base64"],
        ),
        (
            CERTIFICATE,
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
            vec!["tls.crt", "cannot be read"],
        ),
        (KEY, "", vec!["tls.key", "the file is empty"]),
        (KEY, encrypted, vec!["tls.key", "is encrypted", "openssl pkcs8"]),
        (KEY, legacy, vec!["tls.key", "is encrypted", "openssl pkcs8"]),
        (KEY, other_key, vec!["tls.key", "no private key"]),
        (KEY, "-----BEGIN PRIVATE KEY-----\nMIGb\n", vec!["tls.key", "the file is cut"]),
        (
            KEY,
            "-----BEGIN PRIVATE KEY-----\nMIGb\n-----END PRIVATE KEY-----\n",
            vec!["tls.key", "cannot be used"],
        ),
        (AUTHORITIES, " \n", vec!["ca.crt", "the file is empty"]),
    ] {
        let dir = stage.issue(LeafRole::Hub, KeyKind::P256);
        fs::write(dir.join(file), content).expect("written");
        let text = failure(&dir);
        for part in parts {
            assert!(text.contains(part), "{part:?} expected in: {text}");
        }
        assert!(!text.contains("MIGb"), "a key's bytes in: {text}");
    }
    let dir = stage.issue(LeafRole::Hub, KeyKind::P256);
    fs::remove_file(dir.join(KEY)).expect("removed");
    let text = failure(&dir);
    assert!(text.starts_with("read ") && text.contains("tls.key: No such file"), "{text}");
    let dir = stage.issue(LeafRole::Hub, KeyKind::P256);
    fs::write(dir.join(AUTHORITIES), vec![b'x'; (1 << 20) + 1]).expect("written");
    assert!(failure(&dir).contains("over 1 MiB"));
    let root = fs::read_to_string(stage.issue(LeafRole::Hub, KeyKind::P256).join(AUTHORITIES)).expect("read");
    fs::write(dir.join(AUTHORITIES), root.repeat(100)).expect("written");
    let text = failure(&dir);
    assert!(text.contains("ca.crt: 100 authorities, expected at most 64"), "{text}");
}

#[test]
fn a_pair_of_two_issues_and_a_wrong_order_are_told() {
    let stage = stage();
    let dir = stage.issue(LeafRole::Hub, KeyKind::P256);
    let old_key = fs::read(dir.join(KEY)).expect("read");
    let dir = stage.issue(LeafRole::Hub, KeyKind::P256);
    fs::write(dir.join(KEY), old_key).expect("written");
    let text = failure(&dir);
    assert!(
        text.contains("tls.key: the key does not fit the first certificate of ") && text.contains("tls.crt"),
        "{text}"
    );

    let dir = stage.issue(LeafRole::Hub, KeyKind::P256);
    let chain = read_certificates(&dir.join(CERTIFICATE)).expect("read");
    fs::write(dir.join(CERTIFICATE), certificates_pem(chain.iter().rev())).expect("written");
    assert!(failure(&dir).contains("expected the leaf first, then its passport"));

    let dir = stage.issue(LeafRole::Hub, KeyKind::P256);
    fs::write(dir.join(AUTHORITIES), certificates_pem(&chain[..1])).expect("written");
    assert!(failure(&dir).contains("CN=isthmus hub: it is no certificate authority"), "{}", failure(&dir));
}

#[tokio::test]
async fn files_are_followed_and_a_bad_one_changes_nothing() {
    let stage = stage();
    let dir = stage.issue(LeafRole::Hub, KeyKind::P256);
    let (mut live, reloader) = LiveCredentials::watch(Files::in_dir(&dir)).expect("watched");
    let task = tokio::spawn(reloader.run());
    let limit = Duration::from_secs(30);
    let first = live.current().subject().to_owned();

    fs::write(dir.join(KEY), "").expect("written");
    timeout(limit, live.changed()).await.expect("the fault is seen");
    let problem = live.problem().expect("a problem");
    assert!(problem.contains("tls.key: the file is empty"), "{problem}");
    assert_eq!(live.current().subject(), first);

    stage.issue(LeafRole::Hub, KeyKind::P256);
    // The three files are replaced one after the other, so a mismatch may be seen in between.
    let replaced = async {
        while live.current().subject() == first {
            live.changed().await;
        }
    };
    timeout(limit, replaced)
        .await
        .unwrap_or_else(|_| panic!("the new leaf is seen; problem: {:?}", live.problem()));
    assert_eq!(live.problem(), None);
    task.abort();
}

#[tokio::test]
async fn files_that_a_rule_refuses_do_not_count() {
    let stage = stage();
    let dir = stage.issue(LeafRole::Hub, KeyKind::P256);
    let (mut live, reloader) = LiveCredentials::watch(Files::in_dir(&dir)).expect("watched");
    let hub = |credentials: &Credentials| match credentials.subject().contains("CN=isthmus hub") {
        true => Ok(()),
        false => Err(format!("{} is no hub's", credentials.subject())),
    };
    let task = tokio::spawn(reloader.only_if(hub).run());
    let limit = Duration::from_secs(30);
    let first = live.current().subject().to_owned();
    stage.issue(LeafRole::Admin, KeyKind::P256);
    // Between two of the files another problem may be seen.
    let refused = async {
        while !live.problem().is_some_and(|problem| problem.contains("CN=admin-paris")) {
            live.changed().await;
        }
    };
    timeout(limit, refused).await.expect("the rule's sentence is the problem");
    assert_eq!(live.current().subject(), first);
    task.abort();
}
