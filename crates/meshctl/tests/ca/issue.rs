//! From a root to leaves.

use std::fs;
use std::process::Command;

use crate::stage::{Stage, meshctl, mode, names};

#[test]
fn from_nothing_to_a_hub_and_its_clients() {
    let stage = Stage::new();
    assert_eq!(names(&stage.file("authority")), ["ledger.jsonl", "lock", "root.crt", "root.key"]);
    let enrolled = stage.enroll(
        "paris",
        "1",
        "10.1.0.0/16,fd00:10:1::/48",
        &["--node-cidr", "192.168.1.0/24", "--service-cidr", "10.96.0.0/12"],
    );
    enrolled.expect(0).says(&[
        "enrolled cluster paris (id 1) in mesh.example",
        "addresses 10.1.0.0/16, 192.168.1.0/24, fd00:10:1::/48",
        "made passport.key there, on this machine, mode 0600",
    ]);
    assert_eq!(names(&stage.file("paris")), ["ca.crt", "passport.crt", "passport.key"]);
    assert_eq!(mode(&stage.file("paris/passport.key")), 0o600);
    assert_eq!(mode(&stage.file("paris")), 0o700);
    for (role, common_name) in [
        ("hub", "isthmus hub"),
        ("remote", "remote-paris"),
        ("local", "local-paris"),
        ("admin", "admin-paris"),
    ] {
        let out = stage.path(role);
        meshctl(&[
            "ca",
            "leaf",
            "--cluster-dir",
            &stage.path("paris"),
            "--role",
            role,
            "--node",
            "n1",
            "--out",
            &out,
        ])
        .expect(0)
        .says(&[&format!("issued {common_name} for n1 of cluster paris, valid until ")]);
        assert_eq!(names(&stage.file(role)), ["ca.crt", "tls.crt", "tls.key"]);
        assert_eq!(mode(&stage.file(role).join("tls.key")), 0o600);
        let credentials = pki::Credentials::load(&stage.file(role)).expect("usable");
        assert!(
            credentials.subject().contains(&format!("CN={common_name} issued by CN=isthmus cluster paris")),
            "{}",
            credentials.subject()
        );
    }
    // No private key leaves by way of the output.
    let root = meshctl(&["ca", "export-bundle", "--dir", &stage.path("authority")]).expect(0);
    assert_eq!(root.out, fs::read_to_string(stage.file("authority/root.crt")).expect("read"));
}

#[test]
fn openssl_verifies_the_whole_chain() {
    let stage = Stage::new();
    stage.enroll("paris", "1", "10.1.0.0/16", &["--hub-address", "hub.paris.example,192.0.2.7"]).expect(0);
    let out = stage.path("hub");
    let service = "clustermesh-apiserver.kube-system.svc";
    meshctl(&[
        "ca",
        "leaf",
        "--cluster-dir",
        &stage.path("paris"),
        "--role",
        "hub",
        "--node",
        "n1",
        "--out",
        &out,
        "--name",
        service,
    ])
    .expect(0);
    for name in ["paris.mesh.cilium.io", "hub.paris.example", service] {
        let verified = Command::new("openssl")
            .args(["verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", name])
            .args([
                "-CAfile",
                &stage.path("hub/ca.crt"),
                "-untrusted",
                &stage.path("paris/passport.crt"),
                &stage.path("hub/tls.crt"),
            ])
            .output()
            .expect("openssl is installed");
        assert!(verified.status.success(), "{name}: {}", String::from_utf8_lossy(&verified.stderr));
    }
}

#[test]
fn a_name_that_the_passport_does_not_permit_is_not_issued() {
    let stage = Stage::new();
    stage.enroll("paris", "1", "10.1.0.0/16", &[]).expect(0);
    let leaf = |name: &str| {
        let out = stage.path("hub");
        meshctl(&[
            "ca",
            "leaf",
            "--cluster-dir",
            &stage.path("paris"),
            "--role",
            "hub",
            "--node",
            "n1",
            "--out",
            &out,
            "--name",
            name,
        ])
    };
    for name in ["tokyo.mesh.cilium.io", "hub.example.com", "203.0.113.9"] {
        leaf(name)
            .expect(1)
            .says(&["it has a name or address that its passport does not permit", "nothing was issued"]);
        assert!(!stage.file("hub").exists());
    }
}

#[test]
fn collisions_are_refused_with_both_parties() {
    let stage = Stage::new();
    stage.enroll("paris", "1", "10.1.0.0/17", &["--service-cidr", "10.96.0.0/12"]).expect(0);
    let refused = stage.enroll("tokyo", "2", "10.1.0.0/16", &[]).expect(3);
    assert_eq!(
        refused.err,
        "refused: cluster tokyo's pod block 10.1.0.0/16 overlaps cluster paris's pod block 10.1.0.0/17 \
         (shared part 10.1.0.0/17); give tokyo a pod block that does not contain 10.1.0.0/17, or renumber paris\n"
    );
    assert_eq!(refused.out, "");
    assert!(!stage.file("tokyo/passport.crt").exists() && !stage.file("tokyo/passport.key").exists());
    stage
        .enroll("tokyo", "1", "10.2.0.0/16", &[])
        .expect(3)
        .says(&["refused: id 1 wanted by cluster tokyo is cluster paris's"]);
    stage
        .enroll("paris", "2", "10.2.0.0/16", &[])
        .expect(3)
        .says(&["refused: cluster paris is already enrolled with id 1, not 2"]);
    // The own services would hide the other's pods, and the other way round.
    stage
        .enroll("tokyo", "2", "10.2.0.0/16", &["--service-cidr", "10.1.0.0/20"])
        .expect(3)
        .says(&["cluster tokyo's service block 10.1.0.0/20 overlaps cluster paris's pod block 10.1.0.0/17"]);
    stage.enroll("tokyo", "2", "::ffff:10.100.0.0/112", &[]).expect(3).says(&[
        "cluster tokyo's pod block 10.100.0.0/16 overlaps cluster paris's service block 10.96.0.0/12",
    ]);
    stage
        .enroll("tokyo", "2", "10.2.0.0/16", &["--service-cidr", "10.96.0.0/12"])
        .expect(0)
        .says(&["note: cluster tokyo's service block 10.96.0.0/12 overlaps cluster paris's service block 10.96.0.0/12", ": allowed"]);
}

#[test]
fn nodes_share_a_subnet_only_if_both_say_so() {
    let stage = Stage::new();
    stage.enroll("paris", "1", "10.1.0.0/16", &["--shared-node-cidr", "192.168.1.0/24"]).expect(0);
    stage
        .enroll("tokyo", "2", "10.2.0.0/16", &["--node-cidr", "192.168.1.128/25"])
        .expect(3)
        .says(&["enrol both with --shared-node-cidr for it"]);
    stage
        .enroll("tokyo", "2", "10.2.0.0/16", &["--shared-node-cidr", "192.168.1.128/25"])
        .expect(0)
        .says(&["note: "]);
}

#[test]
fn with_a_request_the_key_stays_where_it_was_made() {
    let stage = Stage::new();
    let home = stage.path("home");
    meshctl(&["ca", "request", "--out", &home])
        .expect(0)
        .says(&["passport.key (stays here)", "passport.csr (to be signed)"]);
    assert_eq!(mode(&stage.file("home/passport.key")), 0o600);
    meshctl(&["ca", "request", "--out", &home]).expect(1).says(&["is never replaced in place"]);
    let request = stage.path("home/passport.csr");
    stage.enroll("paris", "1", "10.1.0.0/16", &["--csr", &request]).expect(0);
    assert_eq!(names(&stage.file("paris")), ["ca.crt", "passport.crt"]);
    for name in ["ca.crt", "passport.crt"] {
        fs::copy(stage.file("paris").join(name), stage.file("home").join(name)).expect("carried back");
    }
    meshctl(&[
        "ca",
        "leaf",
        "--cluster-dir",
        &home,
        "--role",
        "local",
        "--node",
        "n1",
        "--out",
        &stage.path("agent"),
    ])
    .expect(0);
    // A second passport for the same key would leave its holder the choice.
    stage
        .enroll("paris", "1", "10.1.0.0/16", &["--csr", &request])
        .expect(3)
        .says(&["the key was already enrolled, for cluster paris"]);
    stage.enroll("paris", "1", "10.1.0.0/16", &[]).expect(0).says(&["renewed cluster paris"]);
    fs::write(stage.file("broken.csr"), "hello").expect("written");
    stage
        .enroll("osaka", "3", "10.3.0.0/16", &["--csr", &stage.path("broken.csr")])
        .expect(1)
        .says(&["broken.csr", "expected one PEM block CERTIFICATE REQUEST"]);
}

#[test]
fn the_list_is_for_people_and_for_scripts() {
    let stage = Stage::new();
    stage.enroll("tokyo", "2", "10.2.0.0/16", &[]).expect(0);
    stage.enroll("paris", "1", "10.1.0.0/16", &["--service-cidr", "10.96.0.0/12"]).expect(0);
    let table = meshctl(&["ca", "list", "--dir", &stage.path("authority")]).expect(0).out;
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0][..5], ["CLUSTER", "ID", "PODS", "NODES", "SERVICES"], "{table}");
    assert_eq!(rows[1][..5], ["paris", "1", "10.1.0.0/16", "-", "10.96.0.0/12"], "{table}");
    assert_eq!(rows[2][..3], ["tokyo", "2", "10.2.0.0/16"], "{table}");
    let json = meshctl(&["ca", "list", "--dir", &stage.path("authority"), "-o", "json"]).expect(0).out;
    let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(value["trust_domain"], "mesh.example");
    assert_eq!(value["clusters"][0]["cluster"], "paris");
    assert_eq!(value["clusters"][1]["pod_cidrs"][0], "10.2.0.0/16");
}

#[test]
fn mistakes_are_answered_in_one_line() {
    let stage = Stage::new();
    meshctl(&["ca", "init", "--dir", &stage.path("authority"), "--trust-domain", "mesh.example"])
        .expect(1)
        .says(&["error: ", "already holds an authority"]);
    meshctl(&["ca", "init", "--dir", &stage.path("x"), "--trust-domain", "Mesh"])
        .expect(2)
        .says(&["trust domain \"Mesh\": expected"]);
    stage.enroll("Paris", "1", "10.1.0.0/16", &[]).expect(2).says(&["cluster name \"Paris\": expected"]);
    stage.enroll("paris", "512", "10.1.0.0/16", &[]).expect(2).says(&["cluster id 512: expected 1 to 511"]);
    stage.enroll("paris", "1", "10.1.0.0/33", &[]).expect(2).says(&["address block \"10.1.0.0/33\""]);
    stage
        .enroll("paris", "1", "10.1.0.0/16", &["--hub-address", "hub:2379"])
        .expect(2)
        .says(&["hub address \"hub:2379\""]);
    meshctl(&["ca", "list", "--dir", &stage.path("nowhere")])
        .expect(1)
        .says(&["is this the directory of an authority (meshctl ca init)?", "No such file"]);
    meshctl(&[
        "ca",
        "leaf",
        "--cluster-dir",
        &stage.path("nowhere"),
        "--role",
        "hub",
        "--node",
        "n1",
        "--out",
        &stage.path("hub"),
    ])
    .expect(1)
    .says(&["passport.crt", "No such file"]);
    stage.enroll("paris", "1", "10.1.0.0/16", &[]).expect(0);
    let (authority, out) = (stage.path("authority"), stage.path("paris"));
    meshctl(&[
        "ca",
        "enroll",
        "--dir",
        &authority,
        "--cluster",
        "tokyo",
        "--id",
        "2",
        "--pod-cidr",
        "10.2.0.0/16",
        "--out",
        &out,
    ])
    .expect(1)
    .says(&["is the passport of cluster paris, not of tokyo; use another --out"]);
}

#[test]
fn help_has_examples() {
    for command in [
        "init",
        "request",
        "enroll",
        "renew",
        "attest",
        "leaf",
        "list",
        "show",
        "revoke",
        "audit",
        "export-bundle",
    ] {
        meshctl(&["ca", command, "--help"]).expect(0).says(&["Example:", "meshctl ca"]);
    }
    meshctl(&["--help"]).expect(0).says(&["3 refused by a rule"]);
}

#[test]
fn the_etcd_behind_a_store_gets_the_passport_and_is_told_why() {
    let stage = Stage::new();
    stage.enroll("paris", "1", "10.1.0.0/16", &[]).expect(0);
    let passport = fs::read(stage.file("paris/passport.crt")).expect("a passport");
    let leaf = |role: &str, more: &[&str]| {
        let (cluster, out) = (stage.path("paris"), stage.path(role));
        let args = ["ca", "leaf", "--cluster-dir", &cluster, "--role", role, "--node", "n1", "--out", &out];
        meshctl(&[&args[..], more].concat())
    };
    leaf("etcd", &["--name", "etcd-0.isthmus.svc"]).expect(0).says(&[
        "issued isthmus etcd for n1 of cluster paris",
        "ca.crt is this cluster's passport, not the mesh root",
        "lets every member of the mesh issue itself root or admin-<cluster>",
        "--client-cert-auth",
        "--client-cert-allowed-hostname=store.paris.mesh.cilium.io",
    ]);
    leaf("store", &[]).expect(0).says(&[
        "issued isthmus store for n1 of cluster paris",
        "ca.crt is this cluster's passport, not the mesh root",
        "--store-tls-dir",
    ]);
    for role in ["etcd", "store"] {
        assert_eq!(fs::read(stage.file(role).join("ca.crt")).expect("readable"), passport, "{role}");
        assert_eq!(mode(&stage.file(role).join("tls.key")), 0o600);
        pki::Credentials::load(&stage.file(role)).expect("usable");
    }
    // What the passport does not permit is not issued to an etcd either.
    leaf("etcd", &["--name", "etcd.example.org"]).expect(1).says(&["does not verify", "nothing was issued"]);
}
