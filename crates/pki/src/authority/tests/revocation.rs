//! Taking back: what is denied, what becomes free, what a renewal gives.

use super::*;
use crate::cluster_authority::{ClusterAuthority, PASSPORT_KEY};
use crate::deny::{DenyLists, Target};
use crate::files::{self, DENY_LISTS};
use crate::profile::{LeafRole, LeafSpec};
use crate::signed;

fn cluster(name: &str, leave: bool) -> Subject<'static> {
    Subject::Cluster { name: name.parse().expect("a name"), leave }
}

/// What the list in the authority's directory denies, as somebody reads it who accepts the root.
fn listed(authority: &Authority) -> (u64, Vec<Target>) {
    let bytes = std::fs::read(authority.dir.join(DENY_LISTS)).expect("a list");
    let document = signed::read(&bytes, DocumentKind::DenyList).expect("a document").remove(0);
    let x509 = crate::certificate::parse(&authority.root).expect("a root");
    let list: crate::DenyList = document.open(x509.public_key().raw, "root").expect("signed by the root");
    DenyLists::default().add(&document, x509.public_key().raw, "root").expect("sound");
    (list.number, list.denied.iter().map(|denied| denied.target).collect())
}

#[test]
fn a_cluster_is_denied_with_all_its_passports_and_comes_back_with_a_new_key() {
    let (_dir, authority) = init();
    let paris = || request("paris", 1, &["10.1.0.0/16"]);
    let first = authority.enroll(&paris(), &signing()).expect("granted").passport;
    let second = authority.renew(&first.uri.cluster, &signing()).expect("renewed");
    assert!(second.renewed);
    assert_eq!(second.passport.blocks, first.blocks);
    assert_eq!(second.passport.dns_names, first.dns_names);
    assert_ne!(second.passport.spki, first.spki);
    authority.enroll(&request("tokyo", 2, &["10.2.0.0/16"]), &signing()).expect("granted");

    let revoked = authority.revoke(&cluster("paris", false), "key copied\n").expect("revoked");
    assert!(!revoked.left && revoked.list == 2);
    let keys = [Target::Key(first.spki), Target::Key(second.passport.spki)];
    assert_eq!(revoked.denied.iter().map(|denied| denied.target).collect::<Vec<_>>(), keys);
    assert_eq!(revoked.denied[0].reason, "key copied\\n", "nothing breaks a line");
    assert_eq!(listed(&authority), (2, keys.to_vec()));
    let again = authority.revoke(&cluster("paris", false), "").expect_err("nothing left").to_string();
    assert!(again.contains("nothing to revoke"), "{again}");

    // Its name, id and addresses are still its own.
    authority.enroll(&request("osaka", 3, &["10.1.0.0/24"]), &signing()).expect_err("refused");
    let third = authority.renew(&first.uri.cluster, &signing()).expect("renewed").passport;
    let ledger = authority.ledger().expect("read");
    let states: Vec<&str> = ledger
        .enrolments()
        .iter()
        .map(|enrolment| ledger.state(enrolment, SystemTime::now()).as_str())
        .collect();
    assert_eq!(states, ["revoked", "revoked", "current", "current"]);
    assert_eq!(ledger.of(&third.uri.cluster).map(|last| last.spki), Some(third.spki));
}

#[test]
fn a_cluster_that_leaves_frees_what_it_had() {
    let (_dir, authority) = init();
    authority.enroll(&request("paris", 1, &["10.1.0.0/16"]), &signing()).expect("granted");
    let revoked = authority.revoke(&cluster("paris", true), "").expect("revoked");
    assert!(revoked.left);
    let ledger = authority.ledger().expect("read");
    assert_eq!(ledger.current().count(), 0);
    let unknown =
        authority.renew(&"paris".parse().expect("a name"), &signing()).expect_err("gone").to_string();
    assert!(unknown.contains("cluster paris is not enrolled here; enrolled: none"), "{unknown}");
    // The name with another id, the id and the addresses.
    authority.enroll(&request("paris", 7, &["10.7.0.0/16"]), &signing()).expect("granted");
    authority.enroll(&request("osaka", 1, &["10.1.0.0/16"]), &signing()).expect("granted");
    let nobody = authority.revoke(&cluster("berlin", false), "").expect_err("unknown").to_string();
    assert!(nobody.contains("cluster berlin is not enrolled here; enrolled: osaka, paris"), "{nobody}");
}

#[test]
fn a_leaf_is_denied_by_key_or_alone() {
    let (dir, authority) = init();
    let key = PrivateKey::generate(KeyKind::P256).expect("a key");
    let signing = SigningRequest::from_pem(&key.request().expect("a request")).expect("sound");
    let enrolled = authority.enroll(&request("paris", 1, &["10.1.0.0/16"]), &signing).expect("granted");
    let home = dir.path().join("paris");
    durable::private_dir(&home).expect("made");
    key.write(&home.join(PASSPORT_KEY)).expect("written");
    ClusterAuthority::write_passport(&home, &enrolled.passport, &[enrolled.root]).expect("written");
    let cluster = ClusterAuthority::open(&home).expect("opened");
    let leaf_key = PrivateKey::generate(KeyKind::Ed25519).expect("a key");
    let leaf_request = SigningRequest::from_pem(&leaf_key.request().expect("a request")).expect("sound");
    let spec = LeafSpec::new(LeafRole::Remote, "n1".parse().expect("a node"));
    let out = dir.path().join("leaf");
    cluster.issue_leaf(&spec, &leaf_request).expect("issued").write(&out, Some(&leaf_key)).expect("written");
    let leaf = files::read_certificates(&out.join(files::CERTIFICATE)).expect("read").remove(0);

    let alone = authority.revoke(&Subject::Certificate { der: &leaf, keep_key: true }, "").expect("revoked");
    assert_eq!(alone.denied[0].target, Target::Certificate(Fingerprint::of(&leaf)));
    assert_eq!(alone.denied[0].cluster.as_str(), "paris");
    let again = authority.revoke(&Subject::Certificate { der: &leaf, keep_key: false }, "");
    assert!(matches!(again, Err(AuthorityError::NothingToRevoke)), "{again:?}");
    cluster.issue_leaf(&spec, &leaf_request).expect("issued").write(&out, Some(&leaf_key)).expect("written");
    let renewed = files::read_certificates(&out.join(files::CERTIFICATE)).expect("read").remove(0);
    let by_key =
        authority.revoke(&Subject::Certificate { der: &renewed, keep_key: false }, "").expect("revoked");
    assert_eq!(by_key.denied[0].target, Target::Key(leaf_key.spki()));
    assert_eq!(listed(&authority).0, 2);

    let root = authority.root().clone();
    let foreign = authority.revoke(&Subject::Certificate { der: &root, keep_key: false }, "");
    let foreign = foreign.expect_err("no cluster's").to_string();
    assert!(
        foreign.contains("not a passport or leaf of a cluster in this ledger: certificate CN=isthmus root"),
        "{foreign}"
    );
}

#[test]
fn a_passport_never_outlives_its_root() {
    let (_dir, authority) = init();
    let authority = authority.with_passport_life(life::ROOT * 2);
    let passport =
        authority.enroll(&request("paris", 1, &["10.1.0.0/16"]), &signing()).expect("granted").passport;
    let root = crate::certificate::parse(authority.root()).expect("a root").validity().not_after;
    assert!(passport.not_after <= crate::certificate::time(root));
    assert!(passport.not_after > SystemTime::now() + life::PASSPORT);
}

#[test]
fn the_bundle_has_the_list_for_whoever_comes_later() {
    let (dir, authority) = init();
    let bundle = authority.bundle().expect("made");
    assert!(bundle.deny_lists.is_empty() && bundle.statements.is_empty());
    authority.enroll(&request("paris", 1, &["10.1.0.0/16"]), &signing()).expect("granted");
    authority.revoke(&cluster("paris", false), "").expect("revoked");
    let out = dir.path().join("bundle");
    durable::private_dir(&out).expect("made");
    authority.bundle().expect("made").write(&out).expect("written");
    let (trust, roots) = files::trust(&out.join(files::AUTHORITIES), &[], read_bounded).expect("usable");
    assert_eq!(roots, [authority.root().clone()]);
    assert!(trust.notes().is_empty());
    assert_eq!(trust.list_number(authority.ledger().expect("read").root()), Some(1));
}
