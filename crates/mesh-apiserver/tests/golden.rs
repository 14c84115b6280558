//! The objects that a stock 1.20 apiserver was given, and the keys and values that it published: ours are the same.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mesh_apiserver::export::exporter::identity_range;
use mesh_apiserver::export::{Cluster, Exporter};
use mesh_apiserver::identity::Allocator;
use mesh_apiserver::source::manifests::document;
use topology::cluster::{ClusterId, MaxClusters};
use topology::record::slice;

fn recorded() -> BTreeMap<String, Vec<u8>> {
    let line = |line: &str| {
        let entry: serde_json::Value = serde_json::from_str(line).expect("the fixture is JSON lines");
        let text = |member: &str| entry.get(member).and_then(|v| v.as_str()).map(str::to_owned);
        let value = match (text("value"), text("value_base64")) {
            (Some(value), _) => value.into_bytes(),
            (_, Some(base64)) => STANDARD.decode(base64).expect("the fixture is base64"),
            _ => panic!("a recorded line has a value: {line}"),
        };
        (text("key").expect("a recorded line has a key"), value)
    };
    include_str!("golden/apiserver-north.jsonl").lines().map(line).collect()
}

fn published() -> BTreeMap<String, Vec<u8>> {
    let cluster = Cluster {
        name: "north".parse().expect("a name"),
        id: ClusterId::try_from(9).expect("an id"),
        max: MaxClusters::N255,
        global_namespaces: true,
    };
    let contents = document::read("north.yaml", include_str!("golden/north.yaml"));
    assert!(contents.findings.is_empty(), "{:#?}", contents.findings);
    let mut exporter = Exporter::new(cluster.clone(), Allocator::new(identity_range(&cluster)));
    exporter.reset(contents.objects);
    assert_eq!(exporter.findings().collect::<Vec<_>>(), Vec::<&mesh_apiserver::finding::Finding>::new());
    exporter.desired().into_iter().map(|(key, value)| (key, value.to_vec())).collect()
}

/// What can be compared: slices without their compression, for any valid frame is accepted.
fn comparable(key: &str, value: &[u8]) -> String {
    match key.starts_with("cilium/state/endpointslices/") {
        true => format!("{:?}", slice::decompress(value).expect("a zstd frame")),
        false => String::from_utf8(value.to_vec()).expect("text"),
    }
}

#[test]
fn every_record_is_the_stock_one() {
    let (recorded, ours) = (recorded(), published());
    let mut compared = 0;
    for (key, theirs) in &recorded {
        let written_elsewhere =
            // The heartbeat and the canaries hold times; the publisher writes them.
            key == "cilium/.heartbeat" || key.starts_with("cilium/synced/")
            // MCS-API was on in the recording; here it is off (and says so).
            || key.starts_with("cilium/state/serviceexports/");
        if written_elsewhere || key.starts_with("cilium/state/nodes/") {
            continue;
        }
        let mut theirs = comparable(key, theirs);
        if key.starts_with("cilium/cluster-config/") {
            theirs =
                theirs.replacen(r#""serviceExportsEnabled":true"#, r#""serviceExportsEnabled":false"#, 1);
        }
        let value =
            ours.get(key).unwrap_or_else(|| panic!("{key} is not published; we have {:?}", ours.keys()));
        assert_eq!(comparable(key, value), theirs, "{key}");
        compared += 1;
    }
    // Configuration, two slices, identity, address, service.
    assert_eq!(compared, 6);
    for key in ours.keys().filter(|key| key.starts_with("cilium/")) {
        assert!(recorded.contains_key(key), "stock does not publish {key}");
    }
}

/// A core/v1 Node cannot carry the address of Cilium's router nor its health address, which were in the CiliumNode
/// of the recording; every other member is compared, in the recorded order.
#[test]
fn the_node_is_the_stock_one_but_for_what_only_cilium_has() {
    let key = "cilium/state/nodes/v1/north/n9";
    let theirs = String::from_utf8(recorded()[key].clone()).expect("text");
    let theirs = theirs.replacen(r#",{"Type":"CiliumInternalIP","IP":"10.9.0.1"}]"#, "]", 1).replacen(
        r#""IPv4HealthIP":"10.9.0.2""#,
        r#""IPv4HealthIP":"""#,
        1,
    );
    assert_eq!(String::from_utf8(published()[key].clone()).expect("text"), theirs);
}

#[test]
fn every_canary_of_stock_is_one_of_ours() {
    let north = "north".parse().expect("a name");
    let ours: Vec<String> = topology::record::Kind::ALL.iter().map(|kind| kind.canary(&north)).collect();
    let recorded = recorded();
    let theirs: Vec<&String> = recorded.keys().filter(|key| key.starts_with("cilium/synced/")).collect();
    assert_eq!((theirs.len(), ours.len()), (6, 6));
    assert!(theirs.iter().all(|key| ours.contains(key)), "{theirs:?} {ours:?}");
}
