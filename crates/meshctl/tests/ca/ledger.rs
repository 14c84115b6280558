//! What is kept, shown, taken back and checked.

use std::fs;

use crate::stage::{Stage, meshctl, names};

#[test]
fn a_renewal_needs_no_flags_but_the_name() {
    let stage = Stage::new();
    let more = ["--node-cidr", "192.168.1.0/24", "--hub-address", "hub.paris.example"];
    stage.enroll("paris", "1", "10.1.0.0/16", &more).expect(0);
    let before = fs::read(stage.file("paris/passport.key")).expect("read");
    let paris = stage.path("paris");
    let renewed = stage.json(&["renew", "--cluster", "paris", "--out", &paris]);
    assert_eq!(renewed["renewed"], true, "{renewed}");
    assert_eq!(renewed["addresses"], "10.1.0.0/16, 192.168.1.0/24", "{renewed}");
    assert_ne!(fs::read(stage.file("paris/passport.key")).expect("read"), before);
    stage.leaf("paris", "hub", "hub").expect(0);
    stage
        .ca(&["renew", "--cluster", "tokyo", "--out", &stage.path("tokyo")])
        .expect(1)
        .says(&["cluster tokyo is not enrolled here; enrolled: paris"]);
    stage.enroll("tokyo", "2", "10.2.0.0/16", &[]).expect(0);
    stage
        .ca(&["renew", "--cluster", "tokyo", "--out", &paris])
        .expect(1)
        .says(&["is the passport of cluster paris"]);
    let shown = stage.json(&["show", "--cluster", "paris"]);
    let states: Vec<&str> = shown["passports"]
        .as_array()
        .expect("passports")
        .iter()
        .filter_map(|one| one["state"].as_str())
        .collect();
    assert_eq!(states, ["superseded", "current"], "{shown}");
    stage.ca(&["show", "--cluster", "paris"]).expect(0).says(&[
        "cluster paris",
        "hub          hub.paris.example",
        "passport     superseded, signed 2",
        "passport     current, signed 2",
    ]);
    stage.ca(&["show", "--cluster", "osaka"]).expect(1).says(&["cluster osaka was never enrolled here"]);
}

#[test]
fn what_is_revoked_goes_into_the_bundle_and_new_leaves() {
    let stage = Stage::new();
    stage.enroll("paris", "1", "10.1.0.0/16", &[]).expect(0);
    stage.enroll("tokyo", "2", "10.2.0.0/16", &[]).expect(0);
    let bundle = stage.path("bundle");
    stage.ca(&["export-bundle", "--out", &bundle]).expect(0).says(&["wrote the bundle of mesh.example to "]);
    assert_eq!(names(&stage.file("bundle")), ["ca.crt"]);
    let revoked = stage.json(&["revoke", "--cluster", "tokyo", "--reason", "passport key copied"]);
    assert_eq!(revoked["list"], 1, "{revoked}");
    assert_eq!(revoked["denied"][0]["cluster"], "tokyo", "{revoked}");
    assert_eq!(revoked["denied"][0]["reason"], "passport key copied", "{revoked}");
    stage.ca(&["export-bundle", "--out", &bundle]).expect(0);
    assert_eq!(names(&stage.file("bundle")), ["ca.crt", "deny-list.jsonl"]);
    let json = stage.json(&["export-bundle"]);
    assert_eq!(json["trust_domain"], "mesh.example");
    assert!(json["deny_lists"].as_str().is_some_and(|lines| lines.lines().count() == 1), "{json}");
    // A cluster that is enrolled or renewed now starts with the list, and so do its leaves.
    stage
        .ca(&["renew", "--cluster", "paris", "--out", &stage.path("paris")])
        .expect(0)
        .says(&["deny-list.jsonl"]);
    stage.leaf("paris", "hub", "hub").expect(0);
    assert_eq!(names(&stage.file("hub")), ["ca.crt", "deny-list.jsonl", "tls.crt", "tls.key"]);
    stage.leaf("paris", "etcd", "etcd").expect(0);
    assert_eq!(
        names(&stage.file("etcd")),
        ["ca.crt", "tls.crt", "tls.key"],
        "its ca.crt has no root to sign lists"
    );
    let listed = stage.json(&["list"]);
    assert_eq!(listed["clusters"][1]["state"], "revoked", "{listed}");
    stage.ca(&["revoke", "--cluster", "tokyo"]).expect(1).says(&["nothing to revoke"]);
    stage.ca(&["revoke", "--cluster", "tokyo", "--leave"]).expect(0).says(&["the cluster has left"]);
    stage.enroll("osaka", "2", "10.2.0.0/16", &[]).expect(0);
    stage.ca(&["show", "--cluster", "tokyo"]).expect(0).says(&[
        "cluster tokyo, which has left: its name, id and addresses are free",
        "passport     revoked",
        "(passport key copied)",
    ]);
}

#[test]
fn one_leaf_can_be_revoked() {
    let stage = Stage::new();
    stage.enroll("paris", "1", "10.1.0.0/16", &[]).expect(0);
    stage.leaf("paris", "local", "agent").expect(0);
    let leaf = stage.path("agent/tls.crt");
    let revoked = stage.json(&["revoke", "--certificate", &leaf, "--keep-key"]);
    assert!(revoked["denied"][0]["certificate_sha256"].is_string(), "{revoked}");
    stage.leaf("paris", "local", "agent").expect(0);
    let revoked = stage.json(&["revoke", "--certificate", &leaf]);
    assert!(revoked["denied"][0]["spki_sha256"].is_string(), "{revoked}");
    fs::copy(stage.file("authority/deny-list.jsonl"), stage.file("agent/deny-list.jsonl")).expect("copied");
    assert!(pki::Credentials::load(&stage.file("agent")).expect("usable").denial().is_some());
    stage
        .ca(&["revoke", "--certificate", &stage.path("authority/root.crt")])
        .expect(1)
        .says(&["not a passport or leaf of a cluster in this ledger"]);
    stage.ca(&["revoke"]).expect(2);
    stage.ca(&["revoke", "--cluster", "paris", "--certificate", &leaf]).expect(2);
    stage.ca(&["revoke", "--certificate", &leaf, "--leave"]).expect(2);
}

#[test]
fn an_audit_needs_no_key_and_tells_by_its_exit_code() {
    let stage = Stage::new();
    let enrolled = stage.enroll("paris", "1", "10.1.0.0/16", &["-o", "json"]).expect(0);
    let enrolled: serde_json::Value = serde_json::from_str(&enrolled.out).expect("JSON");
    let head = enrolled["ledger_head"].as_str().expect("a head").to_owned();
    stage.enroll("tokyo", "2", "10.2.0.0/16", &[]).expect(0).says(&["the ledger ends in "]);
    fs::rename(stage.file("authority/root.key"), stage.file("root.key")).expect("away");
    let passport = stage.path("paris/passport.crt");
    stage
        .ca(&["audit", "--since", &head, "--certificate", &passport])
        .expect(0)
        .says(&["3 lines, 2 clusters, sound", "the ledger ends in "]);
    stage.ca(&["list"]).expect(0);
    stage.ca(&["show", "--cluster", "paris"]).expect(0);
    let ledger = stage.file("authority/ledger.jsonl");
    let sound = fs::read_to_string(&ledger).expect("read");
    fs::write(&ledger, sound.replace("10.1.0.0/16", "10.9.0.0/16")).expect("written");
    stage.ca(&["audit", "--since", &head, "--certificate", &passport]).expect(3).says(&[
        "wrong: line 3: it names ",
        "wrong: no line has the fingerprint ",
        "its address blocks is not what the ledger says",
        "NOT sound",
    ]);
    let json = stage.json(&["audit"]);
    assert_eq!(json["sound"], false, "{json}");
    assert_eq!(json["findings"][0]["line"], 3, "{json}");
    stage.ca(&["audit", "--since", "abc"]).expect(2).says(&["expected 64 hexadecimal digits"]);
}

#[test]
fn every_command_gives_one_json_object() {
    let stage = Stage::new();
    let parse = |out: &str| {
        serde_json::from_str::<serde_json::Value>(out).unwrap_or_else(|error| panic!("{error}: {out}"))
    };
    let made = meshctl(&[
        "ca",
        "init",
        "--dir",
        &stage.path("other"),
        "--trust-domain",
        "other.example",
        "-o",
        "json",
    ]);
    let made = parse(&made.expect(0).out);
    assert_eq!(made["trust_domain"], "other.example");
    let request = meshctl(&["ca", "request", "--out", &stage.path("paris"), "-o", "json"]).expect(0);
    let request = parse(&request.out);
    let csr = request["request"].as_str().expect("a path").to_owned();
    let enrolled =
        parse(&stage.enroll("paris", "1", "10.1.0.0/16", &["--csr", &csr, "-o", "json"]).expect(0).out);
    assert_eq!(enrolled["spki_sha256"], request["spki_sha256"]);
    assert_eq!(enrolled["files"], serde_json::json!(["passport.crt", "ca.crt"]));
    let (home, out) = (stage.path("paris"), stage.path("leaf"));
    let leaf = [
        "ca",
        "leaf",
        "--cluster-dir",
        &home,
        "--role",
        "remote",
        "--node",
        "n1",
        "--out",
        &out,
        "-o",
        "json",
    ];
    let leaf = parse(&meshctl(&leaf).expect(0).out);
    assert_eq!(
        (leaf["common_name"].as_str(), leaf["key_made"].as_bool()),
        (Some("remote-paris"), Some(true))
    );
    // A refusal is a code and a sentence, whatever the form.
    let refused = stage.enroll("tokyo", "1", "10.2.0.0/16", &["-o", "json"]).expect(3);
    assert_eq!((refused.out.as_str(), refused.err.starts_with("refused: id 1")), ("", true));
}

/// A passport of an organisation's authority, made with OpenSSL as that would make it.
#[test]
fn addresses_are_stated_for_another_authoritys_passport() {
    let stage = Stage::new();
    stage.enroll("paris", "1", "10.1.0.0/16", &[]).expect(0);
    let home = stage.path("tokyo");
    meshctl(&["ca", "request", "--out", &home]).expect(0);
    let openssl = |arguments: &[&str]| {
        let output = std::process::Command::new("openssl")
            .current_dir(stage.dir.path())
            .args(arguments)
            .output()
            .expect("openssl is installed");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    fs::write(
        stage.file("extensions"),
        "basicConstraints = critical,CA:TRUE,pathlen:0\nkeyUsage = critical,keyCertSign,cRLSign\n\
         subjectKeyIdentifier = hash\nauthorityKeyIdentifier = keyid\n\
         subjectAltName = URI:spiffe://mesh.example/cluster/tokyo/id/2\n\
         nameConstraints = critical,permitted;DNS:tokyo.mesh.cilium.io,permitted;DNS:svc,permitted;DNS:cluster.local,\
         permitted;IP:127.0.0.1/255.255.255.255,permitted;IP:0:0:0:0:0:0:0:1/ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff\n",
    )
    .expect("written");
    let ca = ["req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "organisation.key"];
    let more =
        ["-subj", "/O=Example/CN=Example root", "-addext", "keyUsage=critical,keyCertSign", "-days", "900"];
    openssl(&[&ca[..], &more, &["-out", "organisation.crt"]].concat());
    let sign = [
        "x509",
        "-req",
        "-in",
        "tokyo/passport.csr",
        "-CA",
        "organisation.crt",
        "-CAkey",
        "organisation.key",
    ];
    let subject =
        ["-set_serial", "77", "-days", "300", "-extfile", "extensions", "-out", "organisation-passport.crt"];
    // A passport has a name of its own; the request carries none.
    fs::write(
        stage.file("subject.cnf"),
        "[req]\ndistinguished_name = name\nprompt = no\n[name]\nO = Example\nCN = mesh tokyo\n",
    )
    .expect("written");
    openssl(&[
        "req",
        "-new",
        "-key",
        "tokyo/passport.key",
        "-config",
        "subject.cnf",
        "-out",
        "tokyo/passport.csr",
    ]);
    openssl(&[&sign[..], &subject].concat());
    let (certificate, organisation) =
        (stage.path("organisation-passport.crt"), stage.path("organisation.crt"));
    let attest = |pods: &str| {
        stage.ca(&[
            "attest",
            "--certificate",
            &certificate,
            "--organisation-ca",
            &organisation,
            "--cluster",
            "tokyo",
            "--id",
            "2",
            "--pod-cidr",
            pods,
            "--out",
            &home,
        ])
    };
    attest("10.1.0.0/24").expect(3).says(&["cluster tokyo's pod block 10.1.0.0/24 overlaps cluster paris's"]);
    attest("10.2.0.0/16").expect(0).says(&[
        "enrolled cluster tokyo (id 2) in mesh.example: addresses 10.2.0.0/16, passport of another authority",
        "block-statements.jsonl",
    ]);
    stage.leaf("tokyo", "remote", "remote").expect(0).says(&["issued remote-tokyo for n1 of cluster tokyo"]);
    let credentials = pki::Credentials::load(&stage.file("remote")).expect("usable");
    assert_eq!(credentials.passport().expect("its own").blocks.to_string(), "10.2.0.0/16");
    let bundle = stage.path("bundle");
    stage.ca(&["export-bundle", "--out", &bundle]).expect(0);
    assert_eq!(names(&stage.file("bundle")), ["block-statements.jsonl", "ca.crt"]);
    stage.ca(&["show", "--cluster", "tokyo"]).expect(0).says(&["by another authority"]);
    stage.ca(&["audit", "--certificate", &certificate]).expect(0).says(&["3 lines, 2 clusters, sound"]);
}
