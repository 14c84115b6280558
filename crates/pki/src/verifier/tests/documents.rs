//! Deny lists and block statements, in the verifier.

use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;

use super::chains::{Made, Plan, Verdict};
use crate::certificate;
use crate::deny::{Denied, DenyList, Target};
use crate::fingerprint::Fingerprint;
use crate::key::{KeyKind, PrivateKey};
use crate::profile::{LeafRole, life, root_params};
use crate::signed::{self, DocumentKind};
use crate::statement::BlockStatement;
use crate::trust::Trust;
use crate::verifier::fixture::now;

/// Puts the passport's key, or the leaf's certificate, on the root's deny list.
pub(super) fn revoke(made: &mut Made, passport: bool) {
    let target = match passport {
        true => Target::Key(key_of(&made.passport)),
        false => Target::Certificate(Fingerprint::of(&made.leaf)),
    };
    made.deny_lists = list(&made.keys[0], 1, &[target]);
}

fn key_of(der: &CertificateDer<'_>) -> Fingerprint {
    certificate::spki(der).expect("a certificate")
}

fn list(key: &PrivateKey, number: u64, targets: &[Target]) -> String {
    let denied = targets.iter().map(|target| Denied {
        target: *target,
        cluster: "tokyo".parse().expect("a name"),
        at: now().into(),
        until: (now() + life::PASSPORT).into(),
        reason: "key stolen".to_owned(),
    });
    let list = DenyList {
        trust_domain: "mesh.example".parse().expect("a trust domain"),
        number,
        issued_at: now().into(),
        denied: denied.collect(),
    };
    signed::sign(key, DocumentKind::DenyList, &list).expect("signed") + "\n"
}

fn statement(made: &Made, signer: &PrivateKey, change: impl FnOnce(&mut BlockStatement)) -> String {
    let mut statement = BlockStatement {
        trust_domain: "mesh.example".parse().expect("a trust domain"),
        cluster: "tokyo".parse().expect("a name"),
        id: 2.try_into().expect("an id"),
        spki: key_of(&made.passport),
        blocks: vec!["10.2.0.0/16".parse().expect("a block")],
        not_before: (now() - Duration::from_secs(60)).into(),
        not_after: (now() + life::CLIENT).into(),
    };
    change(&mut statement);
    signed::sign(signer, DocumentKind::BlockStatement, &statement).expect("signed") + "\n"
}

fn refused(made: &Made, part: &str) {
    match made.our_verdict() {
        Verdict::Refused(text) => assert!(text.contains(part), "{part:?} expected in: {text}"),
        other => panic!("refused with {part:?}, not {other:?}"),
    }
}

fn another_root() -> (PrivateKey, CertificateDer<'static>) {
    let key = PrivateKey::generate(KeyKind::Ed25519).expect("a key");
    let params = root_params(&key, now(), life::ROOT).expect("parameters");
    let root = params.self_signed(key.pair()).expect("signed").der().clone();
    (key, root)
}

#[test]
fn what_is_on_the_list_is_refused_in_words() {
    for of_passport in [true, false] {
        let mut made = Plan::of(LeafRole::Remote).make();
        assert_eq!(made.our_verdict(), Verdict::Accepted);
        revoke(&mut made, of_passport);
        refused(
            &made,
            if of_passport { "its passport, that of tokyo, was revoked at" } else { "it was revoked at" },
        );
        refused(&made, "(key stolen), deny list 1 of CN=isthmus root");
    }
    let mut hub = Plan::of(LeafRole::Hub).make();
    revoke(&mut hub, true);
    let said = hub.our_verdict();
    assert!(matches!(&said, Verdict::Failed(text) if text.contains("was revoked at")), "{said:?}");
}

#[test]
fn a_leaf_is_denied_by_its_key_whatever_certificate_it_has() {
    let mut made = Plan::of(LeafRole::Remote).make();
    made.deny_lists = list(&made.keys[0], 1, &[Target::Key(key_of(&made.leaf))]);
    refused(&made, "it was revoked at");
    // A certificate alone says nothing about another of the same key.
    made.deny_lists = list(&made.keys[0], 1, &[Target::Certificate(Fingerprint::of(b"another"))]);
    assert_eq!(made.our_verdict(), Verdict::Accepted);
}

#[test]
fn of_two_lists_the_higher_number_counts_in_any_order() {
    let mut made = Plan::of(LeafRole::Remote).make();
    let target = Target::Key(key_of(&made.passport));
    let (older, newer) = (list(&made.keys[0], 1, &[target]), list(&made.keys[0], 2, &[]));
    for lines in [format!("{older}{newer}"), format!("{newer}\n\n{older}")] {
        made.deny_lists = lines;
        assert_eq!(made.our_verdict(), Verdict::Accepted);
    }
    made.deny_lists = format!("{newer}{}", list(&made.keys[0], 3, &[target]));
    refused(&made, "deny list 3");
}

/// One owner cannot shut out another's clusters, and nobody else anyone.
#[test]
fn a_list_counts_for_what_its_own_authority_vouches_for() {
    let mut made = Plan::of(LeafRole::Remote).make();
    let target = Target::Key(key_of(&made.passport));
    let (key, root) = another_root();
    made.deny_lists = list(&key, 9, &[target]);
    assert_eq!(made.our_verdict(), Verdict::Accepted, "of an authority that is not accepted");
    let trust = Trust::new(&made.trusted, &[], None).expect("sound");
    let trust = trust.with_deny_lists(made.deny_lists.as_bytes()).expect("left aside");
    assert!(
        matches!(trust.notes(), [note] if note.contains("no accepted root has this key")),
        "{:?}",
        trust.notes()
    );
    made.trusted.push(root);
    assert_eq!(made.our_verdict(), Verdict::Accepted, "of an authority that is accepted for others");
    // A passport's key signs no lists.
    made.deny_lists = list(&made.keys[1], 1, &[target]);
    assert_eq!(made.our_verdict(), Verdict::Accepted);
    // Nor does one root for another.
    made.deny_lists =
        list(&key, 1, &[target]).replace(&key.spki().to_string(), &made.keys[0].spki().to_string());
    let said = made.our_verdict();
    assert!(
        matches!(&said, Verdict::Failed(text) if text.contains("the signature is not of that key")),
        "{said:?}"
    );
}

/// A passport of an organisation's authority: everything but the blocks.
fn organisations() -> (Made, PrivateKey) {
    let mut plan = Plan::of(LeafRole::Remote);
    plan.root.push(|params| params.custom_extensions.clear());
    plan.passport.push(|params| params.custom_extensions.clear());
    let mut made = plan.make();
    let (key, root) = another_root();
    made.trusted.push(root);
    (made, key)
}

#[test]
fn a_statement_of_the_mesh_root_stands_for_blocks() {
    let (mut made, authority) = organisations();
    refused(&made, "no accepted root has signed a statement about those of this passport");
    made.statements = statement(&made, &authority, |_| {});
    assert_eq!(made.our_verdict(), Verdict::Accepted);
    // Its authority is the one that signed the statement: its list counts.
    made.deny_lists = list(&authority, 1, &[Target::Key(key_of(&made.passport))]);
    refused(&made, "its passport, that of tokyo, was revoked at");
}

#[test]
fn a_statement_counts_for_its_key_cluster_and_time_only() {
    let (mut made, authority) = organisations();
    let nothing = "no accepted root has signed a statement";
    for (part, line) in [
        (nothing, statement(&made, &authority, |it| it.spki = Fingerprint::of(b"another"))),
        (
            "is for spiffe://mesh.example/cluster/osaka/id/2",
            statement(&made, &authority, |it| {
                it.cluster = "osaka".parse().expect("a name");
            }),
        ),
        (
            "is for spiffe://mesh.example/cluster/tokyo/id/3",
            statement(&made, &authority, |it| {
                it.id = 3.try_into().expect("an id");
            }),
        ),
        ("counts from ", statement(&made, &authority, |it| it.not_after = (now() - HOUR).into())),
        ("counts from ", statement(&made, &authority, |it| it.not_before = (now() + HOUR).into())),
        // Signed by the organisation itself, or by nobody known.
        (nothing, statement(&made, &made.keys[0], |_| {})),
        (nothing, statement(&made, &made.keys[1], |_| {})),
    ] {
        made.statements = line;
        refused(&made, part);
    }
}

#[test]
fn a_statement_stays_within_its_signers_blocks() {
    let (mut made, _) = organisations();
    let narrow = Plan { root: vec![|params| set_only_v4(params)], ..Plan::of(LeafRole::Remote) }.make();
    made.trusted.push(narrow.trusted[0].clone());
    made.statements = statement(&made, &narrow.keys[0], |_| {});
    assert_eq!(made.our_verdict(), Verdict::Accepted);
    for (block, part) in [
        ("11.0.0.0/8", "it states 11.0.0.0/8, its signer has 10.0.0.0/8"),
        ("fd00::/8", "its signer has 10.0.0.0/8"),
        ("::/0", "expected some, and IPv4 blocks written as IPv4"),
    ] {
        made.statements =
            statement(&made, &narrow.keys[0], |it| it.blocks = vec![block.parse().expect("a block")]);
        let said = made.our_verdict();
        assert!(matches!(&said, Verdict::Failed(text) if text.contains(part)), "{part}: {said:?}");
    }
}

fn set_only_v4(params: &mut rcgen::CertificateParams) {
    let blocks = crate::verifier::fixture::space(&["10.0.0.0/8"]);
    params.custom_extensions =
        vec![rcgen::CustomExtension::from_oid_content(crate::blocks::OID, blocks.to_der())];
}

/// What an accepted peer is told later, when the lists have changed.
#[test]
fn a_peer_that_was_accepted_is_no_longer_when_its_list_arrives() {
    let (mut made, authority) = organisations();
    made.statements = statement(&made, &authority, |_| {});
    let trust = |made: &Made| {
        let trust = Trust::new(&made.trusted, &[], None).expect("sound");
        let trust = trust.with_statements(made.statements.as_bytes()).expect("sound");
        trust.with_deny_lists(made.deny_lists.as_bytes()).expect("sound")
    };
    let accepted = made.accepted();
    assert!(accepted.expires <= SystemTime::now() + life::CLIENT);
    assert!(trust(&made).still_accepts(&accepted));
    made.deny_lists = list(&authority, 1, &[Target::Key(key_of(&made.leaf))]);
    assert!(!trust(&made).still_accepts(&accepted));
    let denial = trust(&made).denial(&accepted).expect("denied").to_string();
    assert!(denial.contains("(key stolen), deny list 1 of CN=isthmus root"), "{denial}");
    made.deny_lists.clear();
    made.statements.clear();
    assert!(!trust(&made).still_accepts(&accepted), "nobody vouches for its addresses any more");
}

const HOUR: Duration = Duration::from_secs(3600);
