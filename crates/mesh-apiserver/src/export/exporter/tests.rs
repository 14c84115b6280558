//! Whatever the order in which objects came and went, the records are those of the objects that are there.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::export::namespace;
use crate::object::Pod;

fn exporter() -> Exporter {
    Exporter::new(Cluster::north(), Allocator::new(identity_range(&Cluster::north())))
}

fn from_json<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).expect("an object"))
}

fn pod_from_json(value: serde_json::Value) -> Arc<Pod> {
    let pod: Arc<k8s_openapi::api::core::v1::Pod> = from_json(value);
    Arc::new(Arc::unwrap_or_clone(pod).into())
}

/// A change of one of few objects to one of few states, so that they meet.
fn change() -> impl Strategy<Value = Change> {
    let flag = prop_oneof![Just("true"), Just("false")];
    let space = prop_oneof![Just("shop"), Just("bank")];
    (0u8..5, space, 0u8..3, 0u8..3, flag, any::<bool>()).prop_map(|(kind, namespace, name, state, flag, delete)| {
        let meta = |extra: serde_json::Value| {
            let mut meta = json!({ "name": format!("o{name}"), "namespace": namespace });
            meta.as_object_mut().expect("an object").extend(extra.as_object().cloned().unwrap_or_default());
            meta
        };
        let body = match kind {
            0 => Body::Namespace(from_json::<Namespace>(json!({ "metadata": {
                "name": namespace,
                "annotations": if state == 0 { json!({}) } else { json!({ namespace::GLOBAL: flag }) },
                "labels": if state == 2 { json!({ "team": "a" }) } else { json!({}) },
            } }))),
            1 => Body::Node(from_json::<Node>(json!({
                "metadata": { "name": format!("o{name}") },
                "spec": { "podCIDRs": [format!("10.{state}.0.0/24")] },
                "status": { "addresses": [{ "type": "InternalIP", "address": format!("172.30.{state}.1") }] },
            }))),
            2 => Body::Service(from_json::<Service>(json!({
                "metadata": meta(json!({ "annotations": { "service.cilium.io/global": flag } })),
                "spec": {
                    "type": if state == 2 { "ExternalName" } else { "ClusterIP" },
                    "clusterIPs": [format!("10.96.0.{state}")],
                    "ports": [{ "port": 80 }],
                    "selector": { "app": format!("a{state}") },
                },
            }))),
            3 => Body::EndpointSlice(from_json::<EndpointSlice>(json!({
                "metadata": meta(json!({ "labels": { "kubernetes.io/service-name": format!("o{state}") } })),
                "addressType": "IPv4",
                "endpoints": if flag == "true" { json!([{ "addresses": [format!("10.9.0.{name}")] }]) } else { json!([]) },
                "ports": [{ "port": 8080 }],
            }))),
            _ => Body::Pod(pod_from_json(json!({
                "metadata": meta(json!({ "labels": { "app": format!("a{state}") } })),
                "spec": { "nodeName": format!("o{state}"), "hostNetwork": flag == "false" && state == 2, "containers": [] },
                // Few addresses, so that pods claim the same ones.
                "status": { "podIPs": [{ "ip": format!("10.9.0.{}", (name + state) % 3) }] },
            }))),
        };
        let object = Object::try_from(body).expect("sound names");
        match delete {
            true => Change::Delete(object.reference().clone()),
            false => Change::Apply(object),
        }
    })
}

/// Records in which identities stand by their labels, since numbers depend on which came first. Without allocations.
fn by_labels(exporter: &Exporter) -> BTreeMap<String, String> {
    let labels = |number: &str| {
        let number = number.parse().expect("a number");
        exporter.identities().labels(Identity(number)).expect("an allocated number").to_string()
    };
    let records = exporter.desired().into_iter().filter(|(key, _)| !key.starts_with(ALLOCATIONS));
    let records = records.map(|(key, value)| {
        let text = String::from_utf8_lossy(&value).into_owned();
        if let Some(number) = key.strip_prefix("cilium/state/identities/v1/id/") {
            return (labels(number), text);
        }
        let Some((before, rest)) = text.split_once(r#""ID":"#).filter(|_| key.contains("/ip/v1/")) else {
            return (key, text);
        };
        let (number, after) = rest.split_once(',').expect("ID is not the last member");
        (key, format!("{before}{}{after}", labels(number)))
    });
    records.collect()
}

/// A pod of its own labels and address.
fn pod(n: u8) -> Object {
    let body = Body::Pod(pod_from_json(json!({
        "metadata": { "name": format!("p{n}"), "namespace": "shop", "labels": { "app": format!("a{n}") } },
        "spec": { "containers": [] },
        "status": { "podIPs": [{ "ip": format!("10.9.0.{n}") }] },
    })));
    Object::try_from(body).expect("sound names")
}

/// After a restart no pod has a number yet, and those that come first must not take those of the others.
#[test]
fn a_full_range_is_not_renumbered_by_a_restart() {
    let range = 589_824..=589_826;
    let mut before = Exporter::new(Cluster::north(), Allocator::new(range.clone()));
    before.apply([Change::Apply(pod(8)), Change::Apply(pod(9))]);
    let mut restored = Allocator::new(range);
    for (identity, labels) in before.identities().allocations() {
        assert!(restored.restore(identity, labels.clone()));
    }
    let mut after = Exporter::new(Cluster::north(), restored);
    after.reset([pod(1), pod(8), pod(9)]);
    let address = |exporter: &Exporter, n: u8| {
        let record = exporter.desired().get(&format!("cilium/state/ip/v1/default/10.9.0.{n}")).cloned();
        String::from_utf8(record.expect("a record").to_vec()).expect("JSON")
    };
    for n in [8, 9] {
        assert_eq!(address(&after, n), address(&before, n));
    }
    assert!(address(&after, 1).contains(r#""ID":0,"#), "{}", address(&after, 1));
    // Nor is a number given twice in one step, when one becomes free.
    after.apply([Change::Delete(pod(8).reference().clone()), Change::Apply(pod(2))]);
    assert!(address(&after, 1).contains(r#""ID":589825,"#), "{}", address(&after, 1));
    assert!(address(&after, 2).contains(r#""ID":0,"#), "{}", address(&after, 2));
    assert_eq!(after.findings().count(), 1, "{:?}", findings(&after));
}

fn findings(exporter: &Exporter) -> BTreeSet<&Finding> {
    exporter.findings().collect()
}

proptest! {
    /// Events one by one, with the deltas written to a map as the store would be, end where a reset with the final
    /// objects ends. This holds for the findings that appeared and were cleared, too.
    #[test]
    fn one_by_one_is_as_all_at_once(batches in proptest::collection::vec(proptest::collection::vec(change(), 1..4), 0..25)) {
        let mut stepwise = exporter();
        let mut store: BTreeMap<String, Bytes> = stepwise.desired();
        let mut shown: Vec<Finding> = Vec::new();
        let mut index = Index::default();
        for batch in batches {
            for change in &batch {
                index.apply(change.clone());
            }
            let delta = stepwise.apply(batch);
            for key in delta.puts.keys() {
                prop_assert!(!delta.deletes.contains(key), "{key} is put and deleted");
            }
            for key in &delta.deletes {
                prop_assert!(store.remove(key).is_some(), "{key} was not there");
            }
            for (key, value) in delta.puts {
                prop_assert!(store.get(&key) != Some(&value), "{key} has not changed");
                store.insert(key, value);
            }
            for finding in delta.cleared {
                let at = shown.iter().position(|shown| *shown == finding);
                prop_assert!(at.is_some(), "{finding} was not shown");
                shown.swap_remove(at.unwrap_or_default());
            }
            shown.extend(delta.appeared);
            prop_assert_eq!(&store, &stepwise.desired());
        }
        let mut fresh = exporter();
        let objects = index.references().filter_map(|reference| {
            let (namespace, name) = (reference.namespace(), reference.name());
            let body = match reference.kind() {
                ObjectKind::Namespace => Body::Namespace(Arc::new(index.space(name)?.object()?.clone())),
                ObjectKind::Node => Body::Node(index.node(name)?.clone()),
                ObjectKind::Service => Body::Service(index.service(namespace, name)?.clone()),
                ObjectKind::EndpointSlice => Body::EndpointSlice(index.slice(namespace, name)?.clone()),
                ObjectKind::Pod => Body::Pod(index.pod(namespace, name)?.clone()),
                custom => panic!("{custom:?} is not made here"),
            };
            Object::try_from(body).ok()
        });
        fresh.reset(objects.collect::<Vec<_>>());
        prop_assert_eq!(by_labels(&stepwise), by_labels(&fresh));
        prop_assert_eq!(findings(&stepwise), findings(&fresh));
        prop_assert_eq!(shown.iter().collect::<BTreeSet<_>>(), findings(&stepwise));
        // A reset to what is there changes nothing.
        let objects: Vec<Object> = Vec::new();
        prop_assert!(fresh.reset(objects).puts.is_empty());
        prop_assert_eq!(fresh.desired().keys().filter(|key| !key.starts_with(ALLOCATIONS)).count(), 1, "only the configuration");
    }
}
