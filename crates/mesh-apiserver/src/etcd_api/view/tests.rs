//! What a filtered peer is told of each change.

use super::{super::range, Views, *};
use crate::peer_filters::{PeerFilters, in_force::publish_now};
use kvstore::{Store, StoreOptions, proto::etcdserverpb::RangeRequest};
use proptest::prelude::*;

const KEY: &str = "cilium/state/ip/v1/default/10.0.0.1";

fn value(namespace: &str, host: &str) -> String {
    format!(r#"{{"IP":"10.0.0.1","HostIP":"{host}","K8sNamespace":"{namespace}"}}"#)
}

fn shop() -> View {
    let value = r#"{"rules":1,"filter":{"namespaces":{"include":["shop"]}}}"#;
    Views::default().view(&Bytes::from(value)).expect("a view")
}

/// What happens to the key in the view, and which version before it is shown.
fn seen(store: &Store, view: &View) -> Vec<(u64, EventKind, Option<u64>)> {
    let mut watcher = store.watch(KeyRange::prefix("cilium/"), 2);
    let events = watcher.take().expect("kept").map(|changes| changes.events).unwrap_or_default();
    let events = events.iter().filter_map(|event| view.event(event));
    events
        .map(|event| {
            (event.entry.mod_revision, event.kind, event.previous.map(|previous| previous.mod_revision))
        })
        .collect()
}

#[test]
fn what_leaves_is_deleted_and_what_enters_is_put() {
    let store = Store::in_memory(StoreOptions::default());
    for value in [
        value("bank", "1"),
        value("bank", "2"),
        value("shop", "3"),
        value("shop", "4"),
        value("bank", "5"),
        value("bank", "6"),
    ] {
        store.put(KEY, value).expect("put");
    }
    store.delete(&KeyRange::key(KEY)).expect("deleted");
    store.put(KEY, value("shop", "9")).expect("put");
    store.delete(&KeyRange::key(KEY)).expect("deleted");
    let expected = [
        (4, EventKind::Put, None),
        (5, EventKind::Put, Some(4)),
        (6, EventKind::Delete, Some(5)),
        (9, EventKind::Put, None),
        (10, EventKind::Delete, Some(9)),
    ];
    assert_eq!(seen(&store, &shop()), expected);
}

#[test]
fn a_version_before_that_nobody_knows_may_have_been_shown() {
    let directory = tempfile::tempdir().expect("a folder");
    {
        let store = Store::open(directory.path(), StoreOptions::default()).expect("a store");
        store.put(KEY, value("shop", "1")).expect("put");
        store.put(KEY, value("bank", "2")).expect("put");
        store.put("cilium/.heartbeat", "now").expect("put");
        store.compact(3).expect("compacted");
    }
    let store = Store::open(directory.path(), StoreOptions::default()).expect("the same store");
    let mut watcher = store.watch(KeyRange::key(KEY), 3);
    let changes = watcher.take().expect("kept").expect("an event");
    let [event] = &changes.events[..] else { panic!("{changes:?}") };
    assert_eq!((event.entry.version, &event.previous), (2, &None), "the case that is meant");
    let seen = shop().event(event).expect("told");
    assert_eq!((seen.kind, seen.previous), (EventKind::Delete, None));
}

#[test]
fn what_cannot_be_read_is_hidden_and_told_once() {
    let (store, views) = (Store::in_memory(StoreOptions::default()), Views::default());
    let view = views.view(&Bytes::from(r#"{"rules":1,"filter":{"namespaces":{"exclude":["x"]}}}"#));
    let view = view.expect("a view");
    store.put(KEY, "no JSON").expect("put");
    for _ in 0..3 {
        assert!(!store.snapshot().range(&KeyRange::all()).any(|entry| view.shows(entry)));
    }
    assert_eq!(views.unreadable.counter.get(), 1);
    store.put(KEY, "neither").expect("put");
    assert!(!store.snapshot().range(&KeyRange::all()).any(|entry| view.shows(entry)));
    assert_eq!(views.unreadable.counter.get(), 2);
}

#[test]
fn a_filter_that_cannot_be_read_shows_no_records() {
    let (store, views) = (Store::in_memory(StoreOptions::default()), Views::default());
    for key in [KEY, "cilium/.heartbeat", "cilium/state/nodes/v1/north/n1", "isthmus/v1/shared/x"] {
        store.put(key, value("shop", "1")).expect("put");
    }
    let view = views.view(&Bytes::from_static(b"{\"rules\":2}")).expect("a view");
    let shown: Vec<Bytes> = store
        .snapshot()
        .range(&KeyRange::all())
        .filter(|entry| view.shows(entry))
        .map(|entry| entry.key.clone())
        .collect();
    assert_eq!(shown, ["cilium/.heartbeat", "cilium/state/nodes/v1/north/n1"]);
}

#[test]
fn equal_filters_are_one_view_and_others_are_not() {
    let (store, views) = (Store::in_memory(StoreOptions::default()), Views::default());
    let file = "{peers: {tokyo: {namespaces: {include: [b, a]}}, lima: {namespaces: {include: [a, b]}}, \
                 oslo: {namespaces: {include: [a]}}, rome: {}}}";
    publish_now(&store, &PeerFilters::parse(file).expect("a file"));
    let snapshot = store.snapshot();
    let policy = |name: &str, prefix: &'static str| {
        let peer = Peer::named(&name.parse().expect("a name"));
        views.policy(&snapshot, Some(&peer), &KeyRange::prefix(prefix))
    };
    let state = |name: &str| policy(name, "cilium/state/");
    assert!(state("tokyo").view.is_some());
    assert_eq!(state("tokyo").view, state("lima").view);
    assert_ne!(state("tokyo").view, state("oslo").view);
    assert_eq!(state("rome").view, None);
    assert_eq!(state("rome").since, 2);
    // Nodes are the same to everybody, and no filter's change concerns who reads them.
    let nodes = policy("tokyo", "cilium/state/nodes/v1/north/");
    assert_eq!((nodes.view, nodes.since), (None, 0));
    let own = views.policy(&snapshot, None, &KeyRange::all());
    assert_eq!((own.view, own.since), (None, 0));
}

fn requests() -> impl Strategy<Value = RangeRequest> {
    let sort = prop_oneof![Just((0, 0)), (1i32..3, 0i32..5)];
    (-1i64..8, 0i64..12, 0i64..40, sort, any::<bool>(), 0u8..5).prop_map(
        |(limit, from, max_mod_revision, (sort_order, sort_target), keys_only, odd)| RangeRequest {
            key: format!("cilium/state/ip/v1/default/10.0.0.{from:02}").into(),
            range_end: "cilium/state0".into(),
            limit,
            sort_order,
            sort_target,
            keys_only,
            max_mod_revision: if odd == 0 { max_mod_revision } else { 0 },
            count_only: odd == 1,
            ..RangeRequest::default()
        },
    )
}

proptest! {
    /// A list in a view is the list of everything without what the view hides; limit, count and more are of that.
    #[test]
    fn a_list_is_as_if_what_is_hidden_were_not_there(
        writes in prop::collection::vec((0u8..12, any::<bool>()), 0..40),
        requests in prop::collection::vec(requests(), 1..6),
    ) {
        let store = Store::in_memory(StoreOptions::default());
        for (n, shop) in writes {
            let value = value(if shop { "shop" } else { "bank" }, "1");
            store.put(format!("cilium/state/ip/v1/default/10.0.0.{n:02}"), value).expect("put");
        }
        let (snapshot, view, counts) = (store.snapshot(), shop(), super::super::counts::Counts::default());
        for request in requests {
            let all = RangeRequest { limit: 0, keys_only: false, count_only: false, ..request.clone() };
            let everything = range::find(&snapshot, all, None).expect("a list").response().kvs;
            let is_shop = |kv: &kvstore::proto::mvccpb::KeyValue| kv.value.windows(4).any(|part| part == b"shop");
            let mut expected: Vec<_> = everything.into_iter().filter(is_shop).collect();
            let range = KeyRange::from_wire(request.key.clone(), request.range_end.clone());
            let count = snapshot.range(&range).filter(|entry| view.shows(entry)).count() as i64;
            let most = usize::try_from(request.limit).ok().filter(|most| *most > 0).unwrap_or(usize::MAX);
            let more = expected.len() > most && !request.count_only;
            expected.truncate(if request.count_only { 0 } else { most });
            if request.keys_only {
                expected.iter_mut().for_each(|kv| kv.value.clear());
            }
            let found = range::find_in(&snapshot, request.clone(), Some(&counts), Some(&view));
            let found = found.expect("a list").response();
            prop_assert_eq!((found.kvs, found.more, found.count), (expected, more, count), "{:?}", request);
        }
    }
}
