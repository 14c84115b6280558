//! Whatever happens in whatever order, a watch sees each event of its range once and in order.

use super::{Fanout, Filters, Kind, Next, Subscription, pause};
use kvstore::{KeyRange, Store, StoreOptions, Watcher, proto::Message, proto::etcdserverpb::WatchResponse};
use proptest::prelude::*;
use std::sync::Arc;
use tokio::sync::Notify;

#[derive(Clone, Debug)]
enum Step {
    Put(u8),
    Wave,
    /// A new watch from this many revisions ago (0: from now on).
    Watch(u8),
    /// Lets the watch of this number read until it has nothing to read.
    Read(u8),
    /// The watch of this number ends.
    Leave(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0u8..4).prop_map(Step::Put),
        3 => Just(Step::Wave),
        1 => (0u8..6).prop_map(Step::Watch),
        3 => any::<u8>().prop_map(Step::Read),
        1 => any::<u8>().prop_map(Step::Leave),
    ]
}

struct Client {
    watcher: Watcher,
    subscription: Subscription,
    seen: Vec<i64>,
    expected: Vec<i64>,
    shared: usize,
}

impl Client {
    fn read(&mut self, fanout: &Fanout) {
        let reached = fanout.reached();
        while self.watcher.next_revision() <= reached {
            match self.subscription.next(self.watcher.next_revision(), reached) {
                Next::Nothing => self.watcher.skip_to(reached + 1),
                Next::Chunk(chunk) => {
                    let response = WatchResponse::decode(chunk.body.clone()).expect("a response");
                    assert_eq!(response.events.len(), chunk.events);
                    self.shared += chunk.events;
                    let revisions = response.events.into_iter().filter_map(|event| event.kv);
                    self.seen.extend(revisions.map(|kv| kv.mod_revision));
                    self.watcher.skip_to(chunk.last + 1);
                }
                Next::History => {
                    let changes = self.watcher.take_until(reached).expect("nothing is compacted");
                    for event in changes.into_iter().flat_map(|changes| changes.events) {
                        self.seen.push(event.entry.mod_revision as i64);
                    }
                }
            }
        }
    }
}

fn kind() -> Kind {
    // Of the keys 0 to 3 it sees two.
    let range = KeyRange::from_wire("k/1".into(), "k/3".into());
    Kind { range, filters: Filters { puts: true, deletes: true, previous: false }, view: None }
}

proptest! {
    #[test]
    fn each_event_is_seen_once_and_in_order(steps in prop::collection::vec(step(), 1..120)) {
        let store = Store::in_memory(StoreOptions::default());
        let (fanout, wake) = (Arc::new(Fanout::new(&store)), Arc::new(Notify::new()));
        let mut clients: Vec<Client> = Vec::new();
        let mut written: Vec<i64> = Vec::new();
        for step in steps {
            let count = clients.len();
            match step {
                Step::Put(key) => {
                    let revision = store.put(format!("k/{key}"), "v").expect("put") as i64;
                    if (1..3).contains(&key) {
                        written.push(revision);
                        clients.iter_mut().for_each(|client| client.expected.push(revision));
                    }
                }
                Step::Wave => drop(fanout.wave()),
                Step::Watch(ago) => {
                    let start = if ago == 0 { 0 } else { (store.revision() + 1).saturating_sub(ago.into()).max(2) };
                    let first = if ago == 0 { store.revision() + 1 } else { start } as i64;
                    let expected = written.iter().copied().filter(|revision| *revision >= first).collect();
                    clients.push(Client {
                        watcher: store.watch(kind().range, start),
                        subscription: fanout.subscribe(kind(), &wake),
                        seen: Vec::new(),
                        expected,
                        shared: 0,
                    });
                }
                Step::Read(n) if count > 0 => clients[usize::from(n) % count].read(&fanout),
                Step::Leave(n) if count > 0 => drop(clients.remove(usize::from(n) % count)),
                Step::Read(_) | Step::Leave(_) => {}
            }
        }
        fanout.wave();
        for client in &mut clients {
            client.read(&fanout);
            prop_assert_eq!(&client.seen, &client.expected);
        }
        drop(clients);
        prop_assert!(fanout.state().groups.is_empty(), "groups end with their last watch");
    }
}

#[test]
fn watches_that_keep_up_share_and_wake_only_for_their_range() {
    let store = Store::in_memory(StoreOptions::default());
    let (fanout, wake) = (Arc::new(Fanout::new(&store)), Arc::new(Notify::new()));
    let watch = || Client {
        watcher: store.watch(kind().range, 0),
        subscription: fanout.subscribe(kind(), &wake),
        seen: Vec::new(),
        expected: Vec::new(),
        shared: 0,
    };
    let mut clients = [watch(), watch()];
    store.put("k/0", "not theirs").expect("put");
    assert_eq!(fanout.wave(), 0, "nobody is woken");
    for _ in 0..10 {
        store.put("k/1", "v").expect("put");
        store.put("k/2", "v").expect("put");
        assert_eq!(fanout.wave(), 2);
        clients.iter_mut().for_each(|client| client.read(&fanout));
    }
    for client in &clients {
        assert_eq!((client.seen.len(), client.shared), (20, 20), "all of it from shared chunks");
    }
}

/// Peers with equal filters share what is encoded; others have their own.
#[test]
fn watches_of_one_view_share() {
    use super::super::view::Views;
    use crate::peer_filters::{
        PeerFilters,
        in_force::{Peer, publish_now},
    };
    let (store, views) = (Store::in_memory(StoreOptions::default()), Views::default());
    let file = "peers: {tokyo: {namespaces: {include: [shop]}}, oslo: {namespaces: {include: [shop]}}, \
                lima: {namespaces: {exclude: [shop]}}}";
    publish_now(&store, &PeerFilters::parse(file).expect("a file"));
    let (fanout, wake) = (Arc::new(Fanout::new(&store)), Arc::new(Notify::new()));
    let range = KeyRange::prefix("cilium/state/");
    let mut clients = ["tokyo", "oslo", "lima"].map(|name| {
        let peer = Peer::named(&name.parse().expect("a name"));
        let view = views.policy(&store.snapshot(), Some(&peer), &range).view;
        let kind = Kind { range: range.clone(), view, ..kind() };
        Client {
            watcher: store.watch(range.clone(), 0),
            subscription: fanout.subscribe(kind, &wake),
            seen: Vec::new(),
            expected: Vec::new(),
            shared: 0,
        }
    });
    assert_eq!(fanout.state().groups.len(), 2);
    let put = |namespace: &str| {
        let value = format!(r#"{{"K8sNamespace":"{namespace}"}}"#);
        store.put("cilium/state/ip/v1/default/10.0.0.1", value).expect("put") as i64
    };
    let (one, two) = (put("shop"), put("bank"));
    assert_eq!(fanout.wave(), 3);
    clients.iter_mut().for_each(|client| client.read(&fanout));
    let seen: Vec<_> = clients.iter().map(|client| (client.seen.clone(), client.shared)).collect();
    assert_eq!(seen, [(vec![one, two], 2), (vec![one, two], 2), (vec![two], 1)]);
}

/// In the midst of a wave one group has its chunk and another, such as that of the filters, has not.
#[test]
fn what_is_not_reached_is_not_handed_out() {
    let store = Store::in_memory(StoreOptions::default());
    let (fanout, wake) = (Arc::new(Fanout::new(&store)), Arc::new(Notify::new()));
    let subscription = fanout.subscribe(kind(), &wake);
    store.put("k/0", "not its").expect("put");
    fanout.wave();
    let group = fanout.state().groups.get(&kind()).cloned().expect("its group");
    group.push(3, 3, 1, bytes::Bytes::from_static(b"x"));
    let (next, reached) = (2, fanout.reached());
    assert!(matches!(subscription.next(next, reached), Next::Nothing));
    assert!(matches!(subscription.next(next, reached + 1), Next::Chunk(_)));
}

#[test]
fn waves_to_many_that_carry_little_are_rare_and_others_are_not() {
    let millis = |woken, revisions| pause(woken, revisions).unwrap_or_default().as_millis();
    assert_eq!((millis(0, 1), millis(4, 1)), (0, 0), "few are never made to wait");
    assert_eq!((millis(100, 1), millis(100, 3)), (3, 3));
    assert_eq!((millis(500, 1), millis(500, 2)), (32, 32));
    assert_eq!(
        (millis(500, 3), millis(1000, 20)),
        (16, 20),
        "a wave for 1000 puts a second waits 20 ms at most"
    );
    assert_eq!(millis(100_000, 1), 40);
}
