//! Our verdict and that of `openssl verify`, side by side: for each kind of broken chain, and for chains made at random.

use std::collections::{BTreeSet, HashSet};

use proptest::prelude::*;
use proptest::sample::subsequence;

use super::chains::{Plan, Verdict};
use super::kinds::{Kind, Ours, Part, kinds};
use crate::key::KeyKind;
use crate::profile::LeafRole;
use crate::verifier::fixture::space;

#[test]
fn each_kind_of_broken_is_told_and_openssl_says_what_the_table_says() {
    let mut wrong = Vec::new();
    for kind in kinds() {
        let mut plan = Plan::of(LeafRole::Remote);
        (kind.make)(&mut plan);
        let made = plan.make();
        let said = made.our_verdict();
        let as_expected = match (&said, kind.ours) {
            (Verdict::Refused(text), Ours::Refused(part)) | (Verdict::Failed(text), Ours::Failed(part)) => {
                text.contains(part)
            }
            _ => false,
        };
        if !as_expected {
            wrong.push(format!("{}: we say {said:?}, expected {:?}", kind.name, kind.ours));
        }
        let errors = made.openssl_errors();
        let known = match kind.openssl {
            [] => errors.is_empty(),
            some => errors.iter().any(|error| some.contains(error)),
        };
        if !known {
            wrong.push(format!("{}: OpenSSL says {errors:?}, the table {:?}", kind.name, kind.openssl));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_is_long_and_explains_every_difference() {
    let kinds = kinds();
    assert!(kinds.len() >= 40, "{} kinds", kinds.len());
    let names: BTreeSet<&str> = kinds.iter().map(|kind| kind.name).collect();
    assert_eq!(names.len(), kinds.len(), "each name once");
    for Kind { name, openssl, why, .. } in kinds {
        assert_eq!(openssl.is_empty(), !why.is_empty(), "{name}: explained exactly if OpenSSL accepts");
    }
}

fn keys() -> impl Strategy<Value = [KeyKind; 3]> {
    let key = || prop_oneof![Just(KeyKind::P256), Just(KeyKind::Ed25519)];
    [key(), key(), key()]
}

fn plan() -> impl Strategy<Value = Plan> {
    let roles = prop_oneof![Just(LeafRole::Remote), Just(LeafRole::Hub)];
    let blocks = subsequence(
        vec![
            "10.2.0.0/16",
            "10.3.0.0/24",
            "10.3.1.0/24",
            "10.3.2.0/24",
            "192.0.2.7/32",
            "100.64.0.0/10",
            "fd00:10:2::/48",
            "fd00:10:3::/48",
            "2001:db8::/33",
        ],
        1..9,
    );
    (keys(), 2_u32..512, blocks, roles).prop_map(|(keys, id, blocks, role)| Plan {
        keys,
        id,
        blocks: space(&blocks),
        ..Plan::of(role)
    })
}

/// Up to three kinds of different parts.
fn broken() -> impl Strategy<Value = Vec<usize>> {
    let combinable: Vec<usize> =
        kinds().iter().enumerate().filter(|(_, kind)| kind.part != Part::Alone).map(|(at, _)| at).collect();
    proptest::collection::vec(proptest::sample::select(combinable), 0..4).prop_map(|chosen| {
        let (kinds, mut parts) = (kinds(), HashSet::new());
        chosen.into_iter().filter(|at| parts.insert(kinds[*at].part)).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Good chains of any shape are accepted by both. However they are broken, we never accept, and OpenSSL accepts exactly
    /// those in which everything that is broken is what the table says it does not look at.
    #[test]
    fn chains_made_at_random(plan in plan(), broken in broken()) {
        let kinds = kinds();
        let mut plan = plan;
        // The kinds are written for clients, and for passports with blocks of both families.
        if !broken.is_empty() {
            plan = Plan { keys: plan.keys, ..Plan::of(LeafRole::Remote) };
        }
        for at in &broken {
            (kinds[*at].make)(&mut plan);
        }
        let names: Vec<&str> = broken.iter().map(|at| kinds[*at].name).collect();
        let made = plan.make();
        let said = made.our_verdict();
        prop_assert_eq!(said == Verdict::Accepted, broken.is_empty(), "{:?}: {:?}", names, said);
        let errors = made.openssl_errors();
        let accepts = broken.iter().all(|at| kinds[*at].openssl.is_empty());
        prop_assert_eq!(errors.is_empty(), accepts, "{:?}: {:?}", names, errors);
    }
}
