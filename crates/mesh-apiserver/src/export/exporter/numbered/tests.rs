//! Objects say which number labels have, whatever the exporter thought.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::export::Cluster;
use crate::export::exporter::identity_range;
use crate::identity::Allocator;
use crate::identity::allocator::ALLOCATIONS;
use crate::index::Change;
use crate::object::{Body, Object, Pod};

fn exporter() -> Exporter {
    let mut exporter = Exporter::new(Cluster::north(), Allocator::new(identity_range(&Cluster::north())));
    exporter.number_by(Numbering::Objects);
    exporter
}

fn pod(name: u32, app: u32) -> Change {
    let pod = Pod {
        namespace: Some("shop".into()),
        name: Some(format!("p{name}").into()),
        labels: BTreeMap::from([("app".to_owned(), format!("a{app}"))]),
        addresses: Box::new([format!("10.9.0.{name}").into()]),
        ..Pod::default()
    };
    Change::Apply(Object::try_from(Body::Pod(Arc::new(pod))).expect("a sound name"))
}

fn labels(app: u32) -> Labels {
    let place = "k8s:io.cilium.k8s.policy.cluster=north;k8s:io.kubernetes.pod.namespace=shop;";
    format!("k8s:app=a{app};{place}").parse().expect("labels")
}

fn object(number: u32, app: u32, second: i64, unused: bool) -> Change {
    let object = MeshIdentity {
        name: number.to_string().into(),
        labels: Arc::new(labels(app)),
        unused,
        uid: "u".into(),
        version: format!("{second}{unused}").into(),
        created: Timestamp::from_second(second).ok(),
    };
    Change::Apply(Object::try_from(Body::MeshIdentity(Arc::new(object))).expect("a sound name"))
}

fn gone(change: &Change) -> Change {
    Change::Delete(change.reference().clone())
}

/// Which number the record of a pod's address names.
fn number(exporter: &Exporter, pod: u32) -> u32 {
    let record =
        exporter.desired().remove(&format!("cilium/state/ip/v1/default/10.9.0.{pod}")).expect("a record");
    serde_json::from_slice::<serde_json::Value>(&record).expect("JSON")["ID"].as_u64().expect("a number")
        as u32
}

fn open(exporter: &Exporter) -> Vec<u32> {
    exporter.open().map(|(identity, _)| identity.0).collect()
}

const FIRST: u32 = 589_825;

#[test]
fn a_number_waits_for_its_object() {
    let mut exporter = exporter();
    exporter.apply([pod(1, 1)]);
    assert_eq!(open(&exporter), [FIRST]);
    assert!(matches!(exporter.open().next(), Some((_, Want::Exists(found))) if *found == labels(1)));
    exporter.apply([object(FIRST, 1, 10, false)]);
    assert_eq!((open(&exporter), exporter.idle().count()), (vec![], 0));
    let records: Vec<String> = exporter.records_of(Identity(FIRST)).into_iter().map(|(key, _)| key).collect();
    assert_eq!(records, ["cilium/state/identities/v1/id/589825", "cilium/state/ip/v1/default/10.9.0.1"]);
    // Marked, it waits for the mark to go.
    exporter.apply([object(FIRST, 1, 10, true)]);
    assert!(matches!(exporter.open().next(), Some((_, Want::Unmarked(found))) if found.unused));
    // Deleted by hand, it is made again, with the same number.
    exporter.apply([gone(&object(FIRST, 1, 10, true))]);
    assert!(matches!(exporter.open().next(), Some((_, Want::Exists(_)))));
    assert_eq!(number(&exporter, 1), FIRST);
    // Nobody uses it: it is nobody's to wait for, and goes with its allocation when its object goes.
    exporter.apply([object(FIRST, 1, 10, false), gone(&pod(1, 1))]);
    assert_eq!((open(&exporter), exporter.idle().count()), (vec![], 1));
    let delta = exporter.apply([gone(&object(FIRST, 1, 10, false))]);
    assert!(delta.deletes.contains(&format!("{ALLOCATIONS}{FIRST}")), "{delta:?}");
}

#[test]
fn whoever_creates_a_number_first_has_it() {
    let mut exporter = exporter();
    exporter.apply([pod(1, 1), pod(2, 2)]);
    assert_eq!((number(&exporter, 1), number(&exporter, 2)), (FIRST, FIRST + 1));
    // Another hub gave the first number to other labels.
    let delta = exporter.apply([object(FIRST, 7, 10, false)]);
    assert_eq!(number(&exporter, 1), FIRST + 2, "the next one");
    assert_eq!(open(&exporter), [FIRST + 1, FIRST + 2]);
    let allocation =
        |number: u32| delta.puts.get(&format!("{ALLOCATIONS}{number}")).map(|value| value.to_vec());
    assert_eq!(allocation(FIRST), Some(labels(7).to_string().into_bytes()));
    assert_eq!(allocation(FIRST + 2), Some(labels(1).to_string().into_bytes()));
    // And it gave the labels of the second pod a number of its own.
    let delta = exporter.apply([object(FIRST + 50, 2, 10, false)]);
    assert_eq!(number(&exporter, 2), FIRST + 50);
    assert!(delta.deletes.contains(&format!("{ALLOCATIONS}{}", FIRST + 1)), "{delta:?}");
    assert!(delta.deletes.contains(&format!("cilium/state/identities/v1/id/{}", FIRST + 1)), "{delta:?}");
    // A later one for the same labels changes nothing; an older one does.
    exporter.apply([object(FIRST + 40, 2, 11, false)]);
    assert_eq!(number(&exporter, 2), FIRST + 50);
    exporter.apply([object(FIRST + 60, 2, 9, false)]);
    assert_eq!(number(&exporter, 2), FIRST + 60);
    // What an object has is not given, in use or not.
    exporter.apply([pod(3, 3)]);
    assert!(![FIRST, FIRST + 40, FIRST + 50, FIRST + 60].contains(&number(&exporter, 3)));
}

/// The store is lost, the objects are not; and the other way round.
#[test]
fn nothing_is_renumbered_by_what_is_lost() {
    let pods = || (1..=5).map(|n| pod(n, n));
    let objects = || (1..=5).map(|n| object(FIRST + 10 * n, n, 10, false));
    let numbers = |exporter: &Exporter| (1..=5).map(|n| number(exporter, n)).collect::<Vec<_>>();
    let all = |changes: Vec<Change>| {
        let applied = |change| match change {
            Change::Apply(object) => Some(object),
            Change::Delete(_) => None,
        };
        changes.into_iter().filter_map(applied).collect::<Vec<_>>()
    };
    let mut first = exporter();
    first.reset(all(pods().chain(objects()).collect()));
    assert_eq!(numbers(&first), (1..=5).map(|n| FIRST + 10 * n).collect::<Vec<_>>());
    assert!(open(&first).is_empty());
    // Objects are lost: what the store remembers is kept, and written again.
    let mut allocator = Allocator::new(identity_range(&Cluster::north()));
    for (identity, labels) in first.identities().allocations() {
        assert!(allocator.restore(identity, labels.clone()));
    }
    let mut second = Exporter::new(Cluster::north(), allocator);
    second.number_by(Numbering::Objects);
    second.reset(all(pods().collect()));
    assert_eq!((numbers(&second), open(&second).len()), (numbers(&first), 5));
    // The API server has no such kind any more, or never had: the same.
    second.number_by(Numbering::Store);
    second.apply([]);
    assert_eq!((numbers(&second), open(&second).len()), (numbers(&first), 0));
    second.number_by(Numbering::Objects);
    second.apply(objects());
    assert_eq!((numbers(&second), open(&second).len()), (numbers(&first), 0));
}

#[test]
fn objects_of_other_clusters_numbers_do_not_count() {
    let mut exporter = exporter();
    exporter.apply([pod(1, 1), object(70_000, 1, 1, false), object(FIRST - 1, 1, 1, false)]);
    assert_eq!((number(&exporter, 1), open(&exporter)), (FIRST, vec![FIRST]));
    assert_eq!(exporter.findings().count(), 1);
    exporter.apply([gone(&object(70_000, 1, 1, false)), gone(&object(FIRST - 1, 1, 1, false))]);
    assert_eq!(exporter.findings().count(), 0);
}

proptest! {
    /// Two hubs that see the same objects and the same pods, in whatever order, agree on every number that has an object,
    /// and no two pods of different labels ever have the same number.
    #[test]
    fn hubs_that_see_the_same_objects_agree(
        steps in proptest::collection::vec((0u8..4, 0u32..6, 0u32..5, 0i64..3), 0..60),
        cut in 0usize..60,
    ) {
        let mut stepwise = exporter();
        let mut objects: BTreeMap<u32, Change> = BTreeMap::new();
        let mut pods: BTreeMap<u32, Change> = BTreeMap::new();
        for (at, (what, one, two, second)) in steps.into_iter().enumerate() {
            let change = match what {
                0 => {
                    let object = object(FIRST + one, two, second, second == 2);
                    objects.insert(one, object.clone());
                    object
                }
                1 => match objects.remove(&one) {
                    Some(object) => gone(&object),
                    None => continue,
                },
                2 => {
                    let pod = pod(one + 1, two);
                    pods.insert(one, pod.clone());
                    pod
                }
                _ => match pods.remove(&one) {
                    Some(pod) => gone(&pod),
                    None => continue,
                },
            };
            if at == cut {
                stepwise.number_by(Numbering::Store);
                stepwise.apply([]);
                stepwise.number_by(Numbering::Objects);
            }
            stepwise.apply([change]);
            let mut owner: BTreeMap<u32, String> = BTreeMap::new();
            for pod in pods.values() {
                let Change::Apply(object) = pod else { continue };
                let Body::Pod(body) = object.body() else { continue };
                let name: u32 = object.reference().name()[1..].parse().expect("a number");
                let app = body.labels["app"].clone();
                let number = number(&stepwise, name);
                let other = owner.insert(number, app.clone());
                prop_assert!(other.is_none_or(|other| other == app), "{number} has two sets of labels");
            }
        }
        let mut fresh = exporter();
        let object = |change: &Change| match change {
            Change::Apply(object) => object.clone(),
            Change::Delete(_) => unreachable!("only what is there"),
        };
        fresh.reset(pods.values().chain(objects.values()).map(object).collect::<Vec<_>>());
        for (identity, found) in fresh.registry.objects() {
            if fresh.registry.number(&found.labels) == Some(identity) {
                prop_assert_eq!(stepwise.identities().number(&found.labels), Some(identity));
                prop_assert_eq!(fresh.identities().number(&found.labels), Some(identity));
            }
        }
        let waits = |exporter: &Exporter| exporter.open().map(|(_, want)| format!("{want:?}")).collect::<BTreeSet<_>>();
        prop_assert_eq!(waits(&stepwise), waits(&fresh));
        let idle = |exporter: &Exporter| exporter.idle().map(|(identity, _)| identity).collect::<BTreeSet<_>>();
        prop_assert_eq!(idle(&stepwise), idle(&fresh));
    }
}
