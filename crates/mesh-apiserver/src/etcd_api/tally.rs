//! How many keys of a range a view shows, carried on from revision to revision.
//!
//! To count in a view is to judge every record of the range. What a later revision differs by are its events: a list
//! that begins while records change costs those, not the range.

use super::view::View;
use kvstore::{Event, EventKind, KeyRange, Store};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// The last count of each range that lists began with.
#[derive(Debug, Default)]
pub(super) struct Tallies {
    known: Mutex<HashMap<(KeyRange, View), Tally>>,
}

#[derive(Clone, Copy, Debug)]
struct Tally {
    revision: u64,
    count: usize,
}

impl Tallies {
    /// The number of keys at a revision; `None` if it is not near one that is known, or if nobody knows what an event
    /// between the two changed. O(events between).
    pub(super) fn at(&self, store: &Store, range: &KeyRange, view: &View, revision: u64) -> Option<usize> {
        let place = (range.clone(), view.clone());
        let Tally { revision: from, mut count } =
            *self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&place)?;
        if !(from..=from.saturating_add(MOST_REVISIONS)).contains(&revision) {
            return None;
        }
        let mut watcher = store.feed(range.clone(), from + 1);
        while watcher.next_revision() <= revision {
            let Some(changes) = watcher.take_until(revision).ok()? else { break };
            for event in &changes.events {
                let (before, after) = shown(view, event)?;
                count = (count + usize::from(after)).checked_sub(usize::from(before))?;
            }
        }
        Some(count)
    }

    /// Remembers a count, unless a later one is known. The memory is bounded: once it is full it begins anew.
    pub(super) fn remember(&self, range: &KeyRange, view: &View, revision: u64, count: usize) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (range.clone(), view.clone());
        if known.get(&place).is_some_and(|tally| tally.revision >= revision) {
            return;
        }
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(place, Tally { revision, count });
    }
}

/// Whether the key was shown before an event, and is after it; `None` if nobody knows the version before.
fn shown(view: &View, event: &Event) -> Option<(bool, bool)> {
    let is_put = event.kind == EventKind::Put;
    let before = match &event.previous {
        Some(previous) => view.shows(previous),
        None if is_put && event.entry.version == 1 => false,
        None => return None,
    };
    Some((before, is_put && view.shows(&event.entry)))
}

const MOST: usize = 256;
/// Beyond it, counting anew is as good.
const MOST_REVISIONS: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::super::view::Views;
    use super::*;
    use crate::peer_filters::{
        PeerFilters,
        in_force::{Peer, publish_now},
    };
    use kvstore::StoreOptions;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_count_carried_on_is_the_count(writes in prop::collection::vec((0u8..8, 0u8..3, 0u8..4), 1..60)) {
            let (store, views, tallies) =
                (Store::in_memory(StoreOptions::default()), Views::default(), Tallies::default());
            let file = PeerFilters::parse("default: {namespaces: {include: [shop]}}").expect("a file");
            publish_now(&store, &file);
            let range = KeyRange::prefix("cilium/state/ip/v1/default/");
            let view = views.policy(&store.snapshot(), Some(&Peer::unnamed()), &range).view.expect("a view");
            tallies.remember(&range, &view, store.revision(), 0);
            for (key, kind, remember) in writes {
                let key = format!("cilium/state/ip/v1/default/10.0.0.{key}");
                match kind {
                    0 => store.delete(&KeyRange::key(key)).map(drop).expect("deleted"),
                    1 => store.put(key, r#"{"K8sNamespace":"shop"}"#).map(drop).expect("put"),
                    _ => store.put(key, r#"{"K8sNamespace":"bank"}"#).map(drop).expect("put"),
                }
                let (revision, snapshot) = (store.revision(), store.snapshot());
                let counted = snapshot.range(&range).filter(|entry| view.shows(entry)).count();
                prop_assert_eq!(tallies.at(&store, &range, &view, revision), Some(counted));
                if remember == 0 {
                    tallies.remember(&range, &view, revision, counted);
                }
            }
        }
    }

    #[test]
    fn what_is_too_far_or_forgotten_is_not_told() {
        let (store, views, tallies) =
            (Store::in_memory(StoreOptions::default()), Views::default(), Tallies::default());
        let file = PeerFilters::parse("default: {namespaces: {include: [shop]}}").expect("a file");
        publish_now(&store, &file);
        let range = KeyRange::prefix("cilium/state/");
        let view = views.policy(&store.snapshot(), Some(&Peer::unnamed()), &range).view.expect("a view");
        assert_eq!(tallies.at(&store, &range, &view, 2), None);
        tallies.remember(&range, &view, 2, 0);
        assert_eq!(tallies.at(&store, &range, &view, 2), Some(0));
        assert_eq!(tallies.at(&store, &range, &view, 1), None);
        assert_eq!(tallies.at(&store, &range, &view, 2 + MOST_REVISIONS + 1), None);
        for _ in 0..3 {
            store.put("cilium/.heartbeat", "now").expect("put");
        }
        store.compact(4).expect("compacted");
        assert_eq!(tallies.at(&store, &range, &view, 5), None);
    }
}
