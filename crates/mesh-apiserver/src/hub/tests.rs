use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kvstore::StoreOptions;
use mesh_runtime::Readiness;
use prometheus_client::registry::Registry;

use super::*;
use crate::object;
use crate::source::ManifestSource;

/// Runs a hub over the folder until `until` holds for the store.
async fn run_until(store: &Store, folder: &Path, until: impl Fn(&Store) -> bool) {
    let hub = Hub::new(Cluster::north(), store.clone(), Metrics::register(&mut Registry::default()));
    let source = ManifestSource::open(folder.to_owned()).await.expect("a folder");
    let shutdown = Shutdown::new();
    let readiness = Readiness::new();
    let running = tokio::spawn(hub.run(source, readiness.block("first set"), shutdown.clone()));
    let mut progress = store.progress();
    let reached = tokio::time::timeout(Duration::from_secs(10), async {
        while !(readiness.is_ready() && until(store)) {
            // Readiness has no signal of its own, so a short wait that times out is no fault.
            let waited = tokio::time::timeout(Duration::from_millis(5), progress.changed()).await;
            assert!(!matches!(waited, Ok(Err(_))), "the store is gone");
        }
    });
    assert!(reached.await.is_ok(), "store: {:#?}", keys(store));
    shutdown.request();
    running.await.expect("no panic").expect("no error");
}

fn keys(store: &Store) -> BTreeMap<String, String> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let snapshot = store.snapshot();
    snapshot.range(&KeyRange::all()).map(|entry| (text(&entry.key), text(&entry.value))).collect()
}

fn pod(name: &str, app: &str, ip: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: {app}}}}}\n\
         spec: {{containers: []}}\nstatus: {{podIP: {ip}}}\n---\n"
    )
}

fn write(folder: &Path, file: &str, text: &str) {
    std::fs::write(folder.join(".tmp"), text).expect("write");
    std::fs::rename(folder.join(".tmp"), folder.join(file)).expect("rename");
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_and_revisions_survive_a_restart() {
    let (folder, data) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    write(folder.path(), "b.yaml", &pod("b", "b", "10.9.0.2"));
    let open = || Store::open(data.path(), StoreOptions::default()).expect("a store");
    let store = open();
    run_until(&store, folder.path(), |_| true).await;
    write(folder.path(), "a.yaml", &pod("a", "a", "10.9.0.1"));
    run_until(&store, folder.path(), |store| keys(store).contains_key("cilium/state/ip/v1/default/10.9.0.1"))
        .await;
    let before = keys(&store);
    assert!(before["cilium/state/ip/v1/default/10.9.0.1"].contains("\"ID\":589826"), "{before:#?}");
    let cluster_id = store.cluster_id();
    let heartbeats =
        |store: &Store| store.snapshot().get(b"cilium/.heartbeat").map_or(0, |entry| entry.version);
    let quiet = |store: &Store| store.revision() - heartbeats(store);
    let revision = quiet(&store);
    store.close().await.expect("close");
    drop(store);

    // The folder is read in another order now, and b is gone: a keeps its number, and b's is not given again.
    write(folder.path(), "b.yaml", &pod("c", "c", "10.9.0.3"));
    let store = open();
    assert_eq!(store.cluster_id(), cluster_id);
    assert_eq!(
        keys(&store).get("cilium/synced/north/cilium/state/ip/v1"),
        before.get("cilium/synced/north/cilium/state/ip/v1")
    );
    run_until(&store, folder.path(), |store| keys(store).contains_key("cilium/state/ip/v1/default/10.9.0.3"))
        .await;
    let after = keys(&store);
    assert_eq!(after["cilium/state/ip/v1/default/10.9.0.1"], before["cilium/state/ip/v1/default/10.9.0.1"]);
    assert!(after["cilium/state/ip/v1/default/10.9.0.3"].contains("\"ID\":589827"), "{after:#?}");
    assert!(!after.contains_key("cilium/state/ip/v1/default/10.9.0.2"));
    // The allocation, then records: two revisions beside the heartbeats, however much was unchanged.
    assert_eq!(quiet(&store), revision + 2, "{after:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_file_is_one_revision_and_canaries_come_last() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::in_memory(StoreOptions::default());
    let mut watcher = store.watch(KeyRange::prefix("cilium/"), 2);
    write(folder.path(), "a.yaml", &pod("a", "a", "10.9.0.1"));
    run_until(&store, folder.path(), |_| true).await;
    let mut seen = Vec::new();
    while !seen.iter().any(|key: &String| key.starts_with("cilium/synced/")) {
        let changes = watcher.next().await.expect("nothing is compacted");
        seen.extend(
            changes.events.iter().map(|event| String::from_utf8_lossy(&event.entry.key).into_owned()),
        );
    }
    let seen: Vec<&str> = seen.iter().map(String::as_str).filter(|key| *key != "cilium/.heartbeat").collect();
    let expected = [
        "cilium/cluster-config/north",
        "cilium/state/identities/v1/id/589825",
        "cilium/state/ip/v1/default/10.9.0.1",
    ];
    assert_eq!(seen[..3], expected);
    assert_eq!(seen[3..].len(), 6, "{seen:?}");
    assert!(seen[3..].iter().all(|key| key.starts_with("cilium/synced/north/cilium/state/")), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_published_within_moments() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "a.yaml", &pod("a", "a", "10.9.0.1"));
    let store = Store::in_memory(StoreOptions::default());
    let hub = Hub::new(Cluster::north(), store.clone(), Metrics::register(&mut Registry::default()));
    let report = hub.report();
    let source = ManifestSource::open(folder.path().to_owned()).await.expect("a folder");
    let (shutdown, readiness) = (Shutdown::new(), Readiness::new());
    let running = tokio::spawn(hub.run(source, readiness.block("first set"), shutdown.clone()));
    let appear = async |address: &str| {
        let key = format!("cilium/state/ip/v1/default/{address}");
        let mut watcher = store.watch(KeyRange::key(key.clone()), 2);
        // Well below the time of the safety net, which reads everything again.
        tokio::time::timeout(Duration::from_secs(5), watcher.next())
            .await
            .is_ok_and(|changes| changes.is_ok())
    };
    assert!(appear("10.9.0.1").await, "{:#?}", keys(&store));
    // By rename, and in place.
    write(folder.path(), "b.yaml", &pod("b", "b", "10.9.0.2"));
    assert!(appear("10.9.0.2").await, "{:#?}", keys(&store));
    std::fs::write(folder.path().join("b.yaml"), pod("b", "b", "10.9.0.3")).expect("write");
    assert!(appear("10.9.0.3").await, "{:#?}", keys(&store));
    // What is broken is reported, and what works stays.
    write(folder.path(), "b.yaml", "kind: [");
    let mut report = report;
    let found =
        tokio::time::timeout(Duration::from_secs(5), report.wait_for(|report| !report.findings.is_empty()));
    assert!(found.await.is_ok(), "no finding");
    assert!(keys(&store).contains_key("cilium/state/ip/v1/default/10.9.0.3"));
    shutdown.request();
    running.await.expect("no panic").expect("no error");
}

#[tokio::test]
async fn what_the_store_refused_comes_in_order_allocations_records_canaries() {
    let store = Store::in_memory(StoreOptions::default());
    let mut hub = Hub::new(Cluster::north(), store.clone(), Metrics::register(&mut Registry::default()));
    let pod = object::Pod {
        namespace: Some("shop".into()),
        name: Some("a".into()),
        addresses: Box::new(["10.9.0.1".into()]),
        ..object::Pod::default()
    };
    let pod = object::Object::try_from(object::Body::Pod(Arc::new(pod))).expect("sound names");
    // As if the store had refused all of it.
    drop(hub.exporter.reset([pod]));
    hub.behind = true;
    hub.announce(&mut None).await.expect("nothing to say yet");
    assert_eq!(keys(&store), BTreeMap::new());
    hub.release().await.expect("the store takes it now");
    hub.announce(&mut None).await.expect("complete");
    let snapshot = store.snapshot();
    let revision = |prefix: &str| {
        let mut entries = snapshot.range(&KeyRange::prefix(prefix.to_owned()));
        entries.next().map(|entry| entry.mod_revision)
    };
    let revisions = [ALLOCATIONS, "cilium/state/ip/v1/", "cilium/synced/"].map(revision);
    assert_eq!(revisions, [Some(2), Some(3), Some(4)]);
    assert!(!hub.behind);
}

#[test]
fn there_is_an_alarm_before_the_numbers_run_out() {
    let store = Store::in_memory(StoreOptions::default());
    let mut hub = Hub::new(Cluster::north(), store, Metrics::register(&mut Registry::default()));
    let pod = |n: u8| {
        let pod = object::Pod {
            namespace: Some("shop".into()),
            name: Some(format!("p{n}").into()),
            labels: BTreeMap::from([("app".to_owned(), format!("a{n}"))]),
            ..object::Pod::default()
        };
        object::Object::try_from(object::Body::Pod(Arc::new(pod))).expect("sound names")
    };
    // Five numbers; what nobody uses any more does not count.
    hub.exporter = Exporter::new(Cluster::north(), Allocator::new(589_824..=589_829));
    for (pods, alarmed) in [(0..3, false), (0..4, true), (2..5, false), (0..5, true)] {
        drop(hub.exporter.reset(pods.map(pod)));
        assert_eq!(hub.alarm().is_some(), alarmed, "{:?}", hub.exporter.numbers_in_use());
    }
    let text = hub.alarm().expect("an alarm").to_string();
    assert!(text.contains("80 % or more of the cluster's 5 numbers"), "{text}");
}
