//! The store against a model that keeps every state and every event.

use super::{Event, EventKind, Retention, Store, StoreOptions, Transaction, WriteError};
use crate::range::KeyRange;
use bytes::Bytes;
use proptest::prelude::*;
use std::{collections::BTreeMap, path::Path, time::Duration};

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    DeleteFrom(u8, u8),
    /// Several changes at one revision.
    Batch(Vec<(u8, Option<u8>)>),
    /// To this share (of 255) of the revisions that can be compacted.
    Compact(u8),
    /// Close and open again; `true` leaves out the closing, as a kill does.
    Reopen(bool),
    /// The disk fails, or is back.
    Fault,
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0u8..6;
    prop_oneof![
        6 => (key.clone(), any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
        2 => key.clone().prop_map(Step::Delete),
        1 => (key.clone(), key.clone()).prop_map(|(from, to)| Step::DeleteFrom(from, to)),
        2 => prop::collection::vec((key, prop::option::of(any::<u8>())), 1..5).prop_map(Step::Batch),
        1 => any::<u8>().prop_map(Step::Compact),
        1 => any::<bool>().prop_map(Step::Reopen),
        1 => Just(Step::Fault),
    ]
}

/// A key's value, create revision, mod revision and version.
type Version = (Bytes, u64, u64, u64);
/// Kind, key and value of a change.
type Change = (EventKind, Bytes, Bytes);

#[derive(Default)]
struct Model {
    states: BTreeMap<u64, BTreeMap<Bytes, Version>>,
    events: BTreeMap<u64, Vec<Change>>,
    revision: u64,
    compacted: u64,
}

impl Model {
    fn new() -> Self {
        let mut model = Self { revision: 1, ..Self::default() };
        model.states.insert(1, BTreeMap::new());
        model
    }

    /// Makes the changes at the next revision, if there are any.
    fn change(&mut self, changes: &[(KeyRange, Option<Bytes>)]) {
        let next = self.revision + 1;
        let mut state = self.states[&self.revision].clone();
        let mut events = Vec::new();
        for (range, value) in changes {
            match value {
                Some(value) => {
                    let key = range.start().clone();
                    let (create, version) = state.get(&key).map_or((next, 1), |old| (old.1, old.3 + 1));
                    state.insert(key.clone(), (value.clone(), create, next, version));
                    events.push((EventKind::Put, key, value.clone()));
                }
                None => {
                    let keys: Vec<Bytes> = state.keys().filter(|key| range.contains(key)).cloned().collect();
                    for key in keys {
                        state.remove(&key);
                        events.push((EventKind::Delete, key, Bytes::new()));
                    }
                }
            }
        }
        if !events.is_empty() {
            self.revision = next;
            self.states.insert(next, state);
            self.events.insert(next, events);
        }
    }
}

fn key(n: u8) -> Bytes {
    format!("k/{n}").into()
}

fn value(n: u8) -> Bytes {
    format!("value {n}").into()
}

fn changes_of(step: &Step) -> Vec<(KeyRange, Option<Bytes>)> {
    match step {
        Step::Put(k, v) => vec![(KeyRange::key(key(*k)), Some(value(*v)))],
        Step::Delete(k) => vec![(KeyRange::key(key(*k)), None)],
        Step::DeleteFrom(from, to) => vec![(KeyRange::from_wire(key(*from), key(*to)), None)],
        Step::Batch(changes) => changes.iter().map(|(k, v)| (KeyRange::key(key(*k)), v.map(value))).collect(),
        Step::Compact(_) | Step::Reopen(_) | Step::Fault => Vec::new(),
    }
}

fn apply(store: &Store, changes: &[(KeyRange, Option<Bytes>)]) -> u64 {
    if store.disk_failure().is_some() {
        let refused = store.transact::<_, WriteError>(|_| Ok(()));
        assert!(matches!(refused, Err(WriteError::Disk(_))), "{refused:?}");
    }
    let work = |transaction: &mut Transaction| {
        for (range, value) in changes {
            match value {
                Some(value) => drop(transaction.put(range.start().clone(), value.clone(), 0)),
                None => drop(transaction.delete(range)),
            }
        }
        Ok(())
    };
    store.derive::<_, WriteError>(work).expect("transaction").revision
}

fn fail(store: &Store) {
    if let Some(disk) = &store.inner.disk {
        disk.fail_for_a_test();
    }
}

fn restore(store: &Store) {
    if let Some(disk) = store.inner.disk.as_ref().filter(|disk| disk.failure().is_some()) {
        disk.restore(&store.inner).expect("write the files anew");
    }
}

fn check(store: &Store, model: &Model, range: &KeyRange) -> Result<(), TestCaseError> {
    let snapshot = store.snapshot();
    prop_assert_eq!(snapshot.revision(), model.revision);
    prop_assert_eq!(snapshot.compacted(), model.compacted);
    for revision in model.compacted.max(1)..=model.revision {
        let view = snapshot.at(revision).expect("revision is readable");
        let found: Vec<(Bytes, Version)> = view
            .range(range)
            .map(|e| (e.key.clone(), (e.value.clone(), e.create_revision, e.mod_revision, e.version)))
            .collect();
        let expected: Vec<(Bytes, Version)> = model.states[&revision]
            .iter()
            .filter(|(key, _)| range.contains(key))
            .map(|(key, version)| (key.clone(), version.clone()))
            .collect();
        prop_assert_eq!(found, expected, "range at revision {}", revision);

        let mut watcher = store.watch(range.clone(), revision);
        let mut seen: Vec<Event> = Vec::new();
        while let Some(changes) = watcher.take().expect("not compacted") {
            let follows = changes.events.iter().all(|event| event.entry.mod_revision <= changes.revision);
            prop_assert!(follows, "an event after the revision of its piece: {:?}", changes);
            seen.extend(changes.events);
        }
        let seen: Vec<(u64, Change)> = seen
            .into_iter()
            .map(|e| (e.entry.mod_revision, (e.kind, e.entry.key.clone(), e.entry.value.clone())))
            .collect();
        let expected: Vec<(u64, Change)> = model
            .events
            .range(revision..)
            .flat_map(|(at, events)| events.iter().map(|event| (*at, event.clone())))
            .filter(|(_, (_, key, _))| range.contains(key))
            .collect();
        prop_assert_eq!(seen, expected, "watch from revision {}", revision);
    }
    if model.compacted > 1 {
        let behind = model.compacted - 1;
        prop_assert!(snapshot.at(behind).is_err(), "revision {} is readable", behind);
        prop_assert!(store.watch(range.clone(), behind).take().is_err(), "revision {} is watchable", behind);
    }
    prop_assert!(snapshot.at(model.revision + 1).is_err());
    Ok(())
}

fn run(directory: Option<&Path>, steps: &[Step], range: &KeyRange) -> Result<(), TestCaseError> {
    let open = |directory: &Path| Store::open(directory, StoreOptions::default()).expect("open");
    let mut store = match directory {
        Some(directory) => open(directory),
        None => Store::in_memory(StoreOptions::default()),
    };
    let cluster_id = store.cluster_id();
    let mut model = Model::new();
    for step in steps {
        match (step, directory) {
            (Step::Compact(share), _) => {
                let span = model.revision - model.compacted;
                let revision = model.compacted + span * u64::from(*share) / 255;
                let compacted = store.compact(revision);
                prop_assert_eq!(compacted.is_ok(), revision > model.compacted, "{:?}", compacted);
                model.compacted = model.compacted.max(revision);
            }
            (Step::Fault, Some(_)) if store.disk_failure().is_none() => fail(&store),
            (Step::Fault, _) => restore(&store),
            (Step::Reopen(kill), Some(directory)) => {
                restore(&store);
                if !kill {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
                    runtime.block_on(store.close()).expect("close");
                }
                drop(store);
                store = open(directory);
            }
            (Step::Reopen(_), None) => {}
            (change, _) => {
                let changes = changes_of(change);
                model.change(&changes);
                prop_assert_eq!(apply(&store, &changes), model.revision);
            }
        }
    }
    prop_assert_eq!(store.cluster_id(), cluster_id, "cluster id changed without need");
    check(&store, &model, range)
}

fn watched() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        Just(KeyRange::all()),
        Just(KeyRange::prefix("k/")),
        (0u8..6).prop_map(|k| KeyRange::key(key(k))),
        (0u8..6, 0u8..6).prop_map(|(from, to)| KeyRange::from_wire(key(from), key(to))),
    ]
}

proptest! {
    #[test]
    fn memory_store_equals_the_model(steps in prop::collection::vec(step(), 0..60), range in watched()) {
        run(None, &steps, &range)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn durable_store_equals_the_model(steps in prop::collection::vec(step(), 0..40), range in watched()) {
        let directory = tempfile::tempdir().expect("temporary directory");
        run(Some(directory.path()), &steps, &range)?;
    }
}

#[test]
fn a_transaction_that_fails_changes_nothing() {
    let store = Store::in_memory(StoreOptions::default());
    store.put("a", "1").expect("put");
    let failed = store.transact::<(), WriteError>(|transaction| {
        transaction.put("a".into(), "2".into(), 0);
        transaction.delete(&KeyRange::all());
        Err(WriteError::Closed)
    });
    assert!(failed.is_err());
    assert_eq!(store.revision(), 2);
    assert_eq!(store.snapshot().get(b"a").map(|entry| entry.value.clone()), Some("1".into()));
}

#[test]
fn a_snapshot_stays_as_it_was() {
    let store = Store::in_memory(StoreOptions::default());
    store.put("a", "1").expect("put");
    let before = store.snapshot();
    store.put("a", "2").expect("put");
    store.compact(3).expect("compact");
    assert_eq!(before.get(b"a").map(|entry| entry.value.clone()), Some("1".into()));
    assert_eq!(before.revision(), 2);
}

#[tokio::test]
async fn a_waiting_watcher_wakes_for_its_range_only() {
    let store = Store::in_memory(StoreOptions::default());
    let mut watcher = store.watch(KeyRange::prefix("a/"), 0);
    let waiting = tokio::spawn(async move { watcher.next().await });
    for n in 0..2000 {
        store.put(format!("b/{n}"), "x").expect("put");
    }
    store.put("a/1", "x").expect("put");
    let changes = tokio::time::timeout(Duration::from_secs(10), waiting).await;
    let changes = changes.expect("woken within 10 s").expect("no panic").expect("not compacted");
    assert_eq!(changes.events.len(), 1);
    assert_eq!(changes.revision, 2002);
}

#[tokio::test]
async fn a_watcher_that_falls_behind_is_told() {
    let store = Store::in_memory(StoreOptions::default());
    let mut watcher = store.watch(KeyRange::all(), 2);
    for n in 0..10 {
        store.put("a", format!("{n}")).expect("put");
    }
    store.compact(8).expect("compact");
    let behind = watcher.next().await.expect_err("behind");
    assert_eq!((behind.next, behind.compact_revision), (2, 8));
}

#[tokio::test]
async fn a_watcher_goes_on_after_revisions_without_history() {
    let mut snapshot = super::Snapshot::empty();
    snapshot.set_revision(6);
    snapshot.set_compacted(6);
    let published = super::Published { snapshot, history: super::History::default() };
    let store = Store::new(StoreOptions::default(), published, None, (1, 1));
    let mut watcher = store.watch(KeyRange::all(), 6);
    assert_eq!(watcher.take(), Ok(None));
    store.put("a", "1").expect("put");
    let changes = tokio::time::timeout(Duration::from_secs(10), watcher.next()).await;
    assert_eq!(changes.expect("within 10 s").expect("not compacted").revision, 7);
}

#[test]
fn history_is_bounded_without_maintenance() {
    let retention = Retention { revisions: 100, ..Retention::default() };
    let store = Store::in_memory(StoreOptions { retention });
    for n in 0..1000 {
        store.put("a", format!("{n}")).expect("put");
        let (held, _) = store.history_size();
        assert!(held <= 201, "{held} revisions held after {n} puts");
    }
    assert!(store.snapshot().compacted() > 800);
}

#[tokio::test(start_paused = true)]
async fn maintenance_forgets_what_is_old() {
    let store = Store::in_memory(StoreOptions::default());
    store.put("a", "1").expect("put");
    store.put("a", "2").expect("put");
    let maintained = tokio::spawn({
        let store = store.clone();
        async move { store.maintain().await }
    });
    tokio::time::sleep(Duration::from_secs(3500)).await;
    assert_eq!(store.snapshot().compacted(), 0);
    store.put("a", "3").expect("put");
    tokio::time::sleep(Duration::from_secs(110)).await;
    assert_eq!(store.snapshot().compacted(), 4, "the two old revisions are gone, the new one is not");
    assert_eq!(store.history_size().0, 1);
    maintained.abort();
}

#[test]
fn a_second_process_is_refused() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let _first = Store::open(directory.path(), StoreOptions::default()).expect("open");
    let second = Store::open(directory.path(), StoreOptions::default());
    assert!(matches!(second, Err(super::OpenError::InUse { .. })), "{second:?}");
}

#[test]
fn a_copied_directory_is_another_store() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (here, copy) = (directory.path().join("here"), directory.path().join("copy"));
    let store = Store::open(&here, StoreOptions::default()).expect("open");
    store.put("a", "1").expect("put");
    let cluster_id = store.cluster_id();
    drop(store);
    let copied = std::process::Command::new("cp").arg("-r").args([&here, &copy]).status().expect("cp");
    assert!(copied.success());
    let restored = Store::open(&copy, StoreOptions::default()).expect("open the copy");
    assert_ne!(restored.cluster_id(), cluster_id);
    assert_eq!(restored.snapshot().get(b"a").map(|entry| entry.value.clone()), Some("1".into()));
}

#[test]
fn files_of_an_earlier_opening_that_are_put_back_are_another_store() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (here, backup) = (directory.path().join("here"), directory.path().join("backup"));
    let copy = |from: &Path, to: &Path| {
        std::fs::create_dir_all(to).expect("folder");
        let copied =
            std::process::Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().expect("cp");
        assert!(copied.success());
    };
    let store = Store::open(&here, StoreOptions::default()).expect("open");
    store.put("a", "1").expect("put");
    let cluster_id = store.cluster_id();
    drop(store);
    copy(&here, &backup);
    let store = Store::open(&here, StoreOptions::default()).expect("open");
    assert_eq!(store.cluster_id(), cluster_id);
    store.put("a", "2").expect("put");
    drop(store);
    // In place: the files keep their inodes.
    std::fs::remove_dir_all(here.join(super::journal::RECORDS)).expect("remove");
    copy(&backup, &here);
    let store = Store::open(&here, StoreOptions::default()).expect("open");
    assert_eq!(store.revision(), 2);
    assert_ne!(store.cluster_id(), cluster_id, "revision 3 was shown");
}

#[test]
fn a_lost_tail_is_noticed() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = Store::open(directory.path(), StoreOptions::default()).expect("open");
    store.put("a", "1").expect("put");
    let cluster_id = store.cluster_id();
    drop(store);
    let high_water = directory.path().join(super::journal::HIGH_WATER);
    // As if revisions up to 9 had been written and the journal's tail were gone. The file stays.
    let file = std::fs::OpenOptions::new().write(true).open(high_water).expect("open");
    std::os::unix::fs::FileExt::write_all_at(&file, &9u64.to_be_bytes(), 0).expect("write");
    let store = Store::open(directory.path(), StoreOptions::default()).expect("open");
    assert_ne!(store.cluster_id(), cluster_id);
    assert_eq!(store.revision(), 2);
}

#[test]
fn files_in_doubt_belong_to_another_store() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = Store::open(directory.path(), StoreOptions::default()).expect("open");
    store.put("a", "1").expect("put");
    let cluster_id = store.cluster_id();
    fail(&store);
    assert!(store.put("a", "2").is_err());
    assert_eq!(apply(&store, &[(KeyRange::key("a"), Some("3".into()))]), 3);
    drop(store);
    let store = Store::open(directory.path(), StoreOptions::default()).expect("open");
    assert_ne!(store.cluster_id(), cluster_id, "readers have seen a revision 3 that is gone");
    assert_eq!(store.revision(), 2);
}

#[tokio::test]
async fn a_disk_that_is_back_holds_everything_and_who_waits_hears_of_it() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = Store::open(directory.path(), StoreOptions::default()).expect("open");
    let cluster_id = store.cluster_id();
    store.put("a", "1").expect("put");
    fail(&store);
    assert!(store.synced(2).await.is_err());
    apply(&store, &[(KeyRange::key("b"), Some("2".into()))]);
    let maintained = tokio::spawn({
        let store = store.clone();
        async move { store.maintain().await }
    });
    tokio::time::timeout(Duration::from_secs(20), store.writable()).await.expect("back within 20 s");
    maintained.abort();
    let revision = store.put("c", "3").expect("put");
    tokio::time::timeout(Duration::from_secs(20), store.synced(revision))
        .await
        .expect("20 s")
        .expect("synced");
    drop((store, maintained.await));
    let store = Store::open(directory.path(), StoreOptions::default()).expect("open");
    assert_eq!((store.cluster_id(), store.revision(), store.snapshot().len()), (cluster_id, 4, 3));
}

#[test]
fn damaged_files_are_moved_aside() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = Store::open(directory.path(), StoreOptions::default()).expect("open");
    store.put("a", "1").expect("put");
    let cluster_id = store.cluster_id();
    drop(store);
    let records = directory.path().join(super::journal::RECORDS);
    std::fs::write(records.join("version"), b"rubbish").expect("overwrite");
    let store = Store::open(directory.path(), StoreOptions::default()).expect("open in spite of damage");
    assert_ne!(store.cluster_id(), cluster_id);
    assert!(store.snapshot().is_empty());
    assert!(directory.path().join("records.damaged").is_dir(), "the old files are kept");
}
