//! Filters, records and clients that all change at the same time, over real connections on several threads.

use super::{super::Server, FILES, PREFIX, record, set, shown, tokyo};
use crate::etcd_api::{Grants, Limits};
use bytes::Bytes;
use kvstore::{
    Client, KeyRange, Resume, Snapshot, Store, StoreOptions, Update,
    client::{self, Change},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// What the filter that was in force at a revision showed of the store at it.
fn view(snapshot: &Snapshot, revision: u64) -> BTreeMap<Bytes, Bytes> {
    let then = |key: &[u8]| {
        let found =
            snapshot.at(revision).expect("nothing is compacted").range(&KeyRange::key(key.to_vec())).next();
        found.map(|entry| entry.value.clone())
    };
    // The filter of that revision, in a store of its own.
    let filters = Store::in_memory(StoreOptions::default());
    for key in ["isthmus/v1/hub/filters/tokyo", "isthmus/v1/hub/filters/*"] {
        then(key.as_bytes()).map(|value| filters.put(key, value)).transpose().map(drop).expect("put");
    }
    let filters = filters.snapshot();
    let entries = snapshot.at(revision).expect("nothing is compacted").range(&KeyRange::prefix(PREFIX));
    let entries = entries.filter(|entry| shown(&filters, &entry.key, &entry.value));
    entries.map(|entry| (entry.key.clone(), entry.value.clone())).collect()
}

/// Follows until the last record is known, with a new watch now and then before `ending`; returns what it knows.
async fn follow(
    server: Arc<Server>,
    ending: Arc<AtomicBool>,
    number: u64,
) -> (BTreeMap<Bytes, Bytes>, u64, usize) {
    let limits = client::Limits { page: 2, ..client::Limits::default() };
    let client = Client::with_limits(server.channel().await, limits);
    let (mut known, mut revision, mut lists) = (BTreeMap::new(), 0, 0);
    let mut resume = None;
    loop {
        let mut list = client.list_watch(KeyRange::prefix(PREFIX), resume);
        for n in 0.. {
            match list.next().await {
                Ok(Update::Reset { entries, revision: at }) => {
                    known = entries.into_iter().map(|entry| (entry.key, entry.value)).collect();
                    assert_eq!(known, view(&server.store.snapshot(), at), "a list at {at}");
                    (revision, lists) = (at, lists + 1);
                }
                Ok(Update::Changes { changes, revision: at }) => {
                    for change in changes {
                        match change {
                            Change::Put(entry) => drop(known.insert(entry.key, entry.value)),
                            Change::Delete { key, .. } => drop(known.remove(&key)),
                        }
                    }
                    revision = at;
                    assert_eq!(known, view(&server.store.snapshot(), at), "changes up to {at}");
                }
                Ok(Update::Resumed { .. }) => {}
                // A list that was cut short again and again.
                Err(error) => {
                    assert!(matches!(&error, client::Error::Rpc { .. }), "{error:?}");
                    break;
                }
            }
            if known.get(LAST.as_bytes()).is_some_and(|value| value == "last") {
                return (known, revision, lists);
            }
            // At another point each time.
            if !ending.load(Ordering::Acquire) && n % 7 == number {
                break;
            }
        }
        resume =
            client.cluster_id().filter(|_| revision > 0).map(|cluster_id| Resume { cluster_id, revision });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn at_each_revision_a_peer_knows_what_its_filter_showed() {
    let store = Store::in_memory(StoreOptions::default());
    let grants = Grants::remote("north").seen_by(tokyo());
    let server = Arc::new(Server::with(store.clone(), grants, Limits::default()).await);
    let ending = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> =
        (0..6).map(|number| tokio::spawn(follow(server.clone(), ending.clone(), number))).collect();
    let mut state = 7_u64;
    for n in 0..3000_u32 {
        // A small generator: the same writes each time, at other moments.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let random = usize::try_from(state >> 40).expect("24 bits");
        if n.is_multiple_of(40) {
            set(&store, random % FILES.len());
        } else if random.is_multiple_of(7) {
            store.delete(&KeyRange::key(record((random % 6) as u8, 0).0)).map(drop).expect("deleted");
        } else {
            let (key, value) = record((random % 6) as u8, (random / 8 % 5) as u8);
            store.put(key, value).map(drop).expect("put");
        }
        if n.is_multiple_of(4) {
            tokio::task::yield_now().await;
        }
        if n.is_multiple_of(100) {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }
    ending.store(true, Ordering::Release);
    // Shown by every filter.
    store.put(LAST, "last").map(drop).expect("put");
    let expected = view(&store.snapshot(), store.revision());
    let mut lists = 0;
    for client in clients {
        let ended = tokio::time::timeout(Duration::from_secs(60), client).await;
        let (known, revision, listed) = ended.expect("the last record within a minute").expect("no panic");
        assert_eq!(known, expected, "known up to {revision} of {}", store.revision());
        lists += listed;
    }
    assert!(lists > 6, "filters changed under the clients: {lists} lists");
}

const LAST: &str = "cilium/state/nodes/v1/north/last";
