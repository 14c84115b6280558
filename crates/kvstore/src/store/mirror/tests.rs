use super::*;
use crate::{
    range::KeyRange,
    store::{Changes, Compacted, Retention, Transaction},
};
use bytes::Bytes;
use proptest::prelude::*;

const ORIGIN: Origin = Origin { cluster_id: 7, member_id: 8 };

/// What is compared of an entry: all but its place on disk.
type Seen = (Bytes, Bytes, u64, u64, u64, i64);

fn seen(entry: &Entry) -> Seen {
    let Entry { key, value, create_revision, mod_revision, version, lease, sub: _ } = entry.clone();
    (key, value, create_revision, mod_revision, version, lease)
}

fn state(store: &Store) -> Vec<Seen> {
    store.snapshot().range(&KeyRange::all()).map(|entry| seen(entry)).collect()
}

fn state_at(store: &Store, revision: u64) -> Vec<Seen> {
    let snapshot = store.snapshot();
    let view = snapshot.at(revision).expect("not compacted");
    view.range(&KeyRange::all()).map(|entry| seen(entry)).collect()
}

/// All changes from a revision on, as a follower gets them.
fn changes(store: &Store, from: u64) -> Vec<Followed> {
    let mut watcher = store.watch(KeyRange::all(), from);
    let mut all = Vec::new();
    while let Some(Changes { events, .. }) = watcher.take().expect("not compacted") {
        all.extend(
            events.into_iter().map(|event| Followed { kind: event.kind, entry: (*event.entry).clone() }),
        );
    }
    all
}

fn entries(store: &Store) -> Vec<Entry> {
    store.snapshot().range(&KeyRange::all()).map(|entry| (**entry).clone()).collect()
}

fn mirror_of(store: &Store) -> Store {
    Store::mirror(StoreOptions::default(), ORIGIN, entries(store), store.revision())
}

/// One step of the followed store: puts (key, value, whether on the lease), then deletions.
type Step = (Vec<(u8, u8, bool)>, Vec<u8>);

fn run(store: &Store, step: &Step) {
    let work = |transaction: &mut Transaction| {
        for (key, value, leased) in &step.0 {
            transaction.put(vec![*key].into(), vec![*value].into(), if *leased { 5 } else { 0 });
        }
        for key in step.1.iter().filter(|key| step.0.iter().all(|put| put.0 != **key)) {
            transaction.delete(&KeyRange::key(vec![*key]));
        }
        Ok(())
    };
    store.transact::<_, WriteError>(work).expect("in memory");
}

proptest! {
    /// Whatever happens to a store, and wherever the mirror begins, both show the same: now, at each revision since,
    /// and to a watcher, whose events carry the same versions before.
    #[test]
    fn a_mirror_is_its_store(
        steps in prop::collection::vec(
            (prop::collection::vec((0u8..6, 0u8..4, any::<bool>()), 0..4), prop::collection::vec(0u8..6, 0..3)),
            0..40,
        ),
        begin in 0usize..40,
        piece in 1usize..9,
    ) {
        let store = Store::in_memory(StoreOptions::default());
        store.grant(5, 60).expect("granted");
        let begin = begin.min(steps.len());
        steps[..begin].iter().for_each(|step| run(&store, step));
        let mirror = mirror_of(&store);
        let first = store.revision();
        prop_assert_eq!(state(&mirror), state(&store));
        for some in steps[begin..].chunks(piece) {
            some.iter().for_each(|step| run(&store, step));
            let reached = mirror.replay(changes(&store, mirror.revision() + 1)).expect("in order");
            prop_assert_eq!(reached, store.revision());
        }
        prop_assert_eq!(state(&mirror), state(&store));
        for revision in first..=store.revision() {
            if revision > first || revision == store.revision() {
                prop_assert_eq!(state_at(&mirror, revision), state_at(&store, revision), "at {}", revision);
            }
        }
        let told = |store: &Store| {
            let mut watcher = store.watch(KeyRange::all(), first + 1);
            let mut all = Vec::new();
            while let Some(changes) = watcher.take().expect("not compacted") {
                all.extend(changes.events.into_iter().map(|event| {
                    (event.kind, seen(&event.entry), event.previous.map(|previous| seen(&previous)))
                }));
            }
            all
        };
        prop_assert_eq!(told(&mirror), told(&store));
        let keys = |store: &Store| store.snapshot().lease_keys(5).cloned().collect::<Vec<_>>();
        prop_assert_eq!(keys(&mirror), keys(&store));
    }
}

fn put(key: &str, revision: u64) -> Followed {
    let entry = Entry {
        key: key.to_owned().into(),
        value: "v".into(),
        create_revision: revision,
        mod_revision: revision,
        version: 1,
        lease: 0,
        sub: 0,
    };
    Followed { kind: EventKind::Put, entry }
}

#[test]
fn a_mirror_has_the_ids_of_its_store_and_takes_no_writes() {
    let mirror = Store::mirror(StoreOptions::default(), ORIGIN, [put("a", 9).entry], 9);
    assert_eq!((mirror.cluster_id(), mirror.member_id(), mirror.revision()), (7, 8, 9));
    assert!(mirror.is_mirror());
    assert!(matches!(mirror.put("a", "2"), Err(WriteError::Mirror)));
    assert!(matches!(mirror.delete(&KeyRange::all()), Err(WriteError::Mirror)));
    assert!(mirror.grant(0, 60).is_err());
    assert_eq!(state(&mirror).len(), 1);
    let written = Store::in_memory(StoreOptions::default());
    assert!(matches!(written.replay([put("a", 2)]), Err(MirrorError::NotAMirror)));
    assert!(matches!(written.install([], 20), Err(MirrorError::NotAMirror)));
}

#[test]
fn revisions_come_whole_and_in_order_or_not_at_all() {
    let mirror = Store::mirror(StoreOptions::default(), ORIGIN, [], 9);
    assert_eq!(mirror.replay([]).expect("nothing"), 9);
    let gap = mirror.replay([put("a", 10), put("b", 12)]);
    assert!(matches!(gap, Err(MirrorError::Gap { found: 12, expected: 11 })), "{gap:?}");
    assert_eq!((mirror.revision(), mirror.snapshot().len()), (9, 0), "nothing of it is shown");
    assert_eq!(mirror.replay([put("a", 10), put("b", 10), put("c", 11)]).expect("in order"), 11);
    for wrong in [vec![put("d", 11)], vec![put("d", 12), put("e", 11)]] {
        let back = mirror.replay(wrong);
        assert!(matches!(back, Err(MirrorError::Backwards { found: 11, .. })), "{back:?}");
    }
    assert_eq!((mirror.revision(), mirror.snapshot().len()), (11, 3));
}

#[test]
fn whoever_watched_before_a_new_list_is_told_to_read_anew() {
    let mirror = Store::mirror(StoreOptions::default(), ORIGIN, [put("a", 9).entry], 9);
    let mut watcher = mirror.watch(KeyRange::all(), 10);
    let mut at_list = mirror.watch(KeyRange::all(), 20);
    let mut after = mirror.watch(KeyRange::all(), 21);
    for early in [5, 9, 10] {
        assert!(
            matches!(mirror.install([], early), Err(MirrorError::Backwards { revision: 9, .. })),
            "{early}"
        );
    }
    mirror.install([put("b", 15).entry], 20).expect("newer");
    assert_eq!(watcher.take(), Err(Compacted { next: 10, compact_revision: 21 }));
    assert_eq!(
        at_list.take(),
        Err(Compacted { next: 20, compact_revision: 21 }),
        "its own events are not known"
    );
    assert_eq!(after.take(), Ok(None));
    assert_eq!(state_at(&mirror, 20).len(), 1, "the latest revision can be read");
    mirror.replay([put("c", 21)]).expect("in order");
    assert_eq!(after.take().expect("not compacted").map(|changes| changes.revision), Some(21));
    assert!(mirror.snapshot().at(20).is_err(), "what it was before is not known");
    assert_eq!(state_at(&mirror, 21).len(), 2);
}

#[test]
fn a_new_store_is_followed_from_its_first_change() {
    let mirror = Store::mirror(StoreOptions::default(), ORIGIN, [], 1);
    let mut watcher = mirror.watch(KeyRange::all(), 1);
    assert_eq!(watcher.take(), Ok(None));
    mirror.replay([put("a", 2)]).expect("in order");
    assert_eq!(watcher.take().expect("not compacted").map(|changes| changes.events.len()), Some(1));
}

#[test]
fn history_is_bounded_as_that_of_any_store() {
    let retention = Retention { revisions: 10, ..Retention::default() };
    let mirror = Store::mirror(StoreOptions { retention }, ORIGIN, [], 1);
    for revision in 2..200 {
        mirror.replay([put("a", revision)]).expect("in order");
    }
    assert!(mirror.history_size().0 <= 20, "{:?}", mirror.history_size());
    assert!(mirror.snapshot().compacted() > 170);
}
