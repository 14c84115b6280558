//! What a filtered peer sees of the store: entries, events, and since when.
//!
//! Each version of a record is shown or hidden by its own content. A change that hides what was shown is a deletion to
//! the peer, one that shows what was hidden is a put, and one between hidden versions does not happen.

use super::refusal;
use crate::peer_filters::in_force::{self, Peer};
use bytes::Bytes;
use kvstore::{Entry, Event, EventKind, KeyRange, Snapshot, store::ReadError};
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tonic::Status;
use topology::{
    ExportFilter,
    export_filter::{ALWAYS_SHOWN, Verdict},
};
use tracing::{error, warn};

/// The views of all peers. Those with equal filters have one, and so share encoded pages and events.
#[derive(Debug)]
pub struct Views {
    /// By the value that the store holds.
    known: Mutex<HashMap<Bytes, View>>,
    next_id: AtomicU64,
    unreadable: Arc<Unreadable>,
    always_shown: Vec<KeyRange>,
}

/// The store through a filter. Clones are the same view; views of different filters are never equal.
#[derive(Clone, Debug)]
pub(super) struct View {
    inner: Arc<Inner>,
}

/// What applies to a request or watch.
#[derive(Clone, Debug, Default)]
pub(super) struct Policy {
    /// What it sees; `None` is everything.
    pub(super) view: Option<View>,
    /// Since which revision: nothing that was read before it is continued.
    pub(super) since: u64,
}

#[derive(Debug)]
struct Inner {
    id: u64,
    /// `None` if nobody can say what the filter means: then all that it could hide is hidden.
    filter: Option<ExportFilter>,
    unreadable: Arc<Unreadable>,
}

/// Records that are hidden since they cannot be read, told of once.
#[derive(Debug, Default)]
struct Unreadable {
    counter: Counter,
    /// The versions that were counted, by key.
    counted: Mutex<HashMap<Bytes, u64>>,
}

impl Default for Views {
    fn default() -> Self {
        let always_shown = ALWAYS_SHOWN.map(KeyRange::prefix).into();
        let (known, unreadable) = (Mutex::default(), Arc::default());
        Self { known, next_id: AtomicU64::new(1), unreadable, always_shown }
    }
}

impl Views {
    /// Registers what is counted; the caller gives the prefix.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Versions of records that filtered peers are not shown because they cannot be read";
        registry.register("peer_filters_unreadable_records", help, self.unreadable.counter.clone());
    }

    /// What applies to a peer that reads or watches a range.
    ///
    /// For a request at a snapshot this must be asked of the same snapshot or a later one: the filter is then one that
    /// was in force at what is read, or the answer is not continued.
    pub(super) fn policy(&self, snapshot: &Snapshot, peer: Option<&Peer>, range: &KeyRange) -> Policy {
        let Some(peer) = peer else { return Policy::default() };
        let in_force = peer.in_force(snapshot);
        // No filter changes anything about such a range.
        if self.always_shown.iter().any(|shown| shown.covers(range)) {
            return Policy::default();
        }
        let view = in_force.value.and_then(|value| self.view(value));
        Policy { view, since: in_force.since }
    }

    /// Whether a peer sees less than all.
    pub(super) fn is_filtered(&self, snapshot: &Snapshot, peer: &Peer) -> bool {
        peer.in_force(snapshot).value.is_some_and(|value| self.view(value).is_some())
    }

    fn view(&self, value: &Bytes) -> Option<View> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(view) = known.get(value) {
            return Some(view.clone());
        }
        let filter = in_force::filter(value);
        if filter.as_ref().is_some_and(ExportFilter::is_empty) {
            return None;
        }
        if filter.is_none() {
            error!(value = ?value, "a peer filter in the store cannot be read, its peers are shown no records");
        }
        if known.len() >= MOST_VIEWS {
            known.clear();
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let view = View { inner: Arc::new(Inner { id, filter, unreadable: self.unreadable.clone() }) };
        known.insert(value.clone(), view.clone());
        Some(view)
    }
}

impl Policy {
    /// Fails as after a compaction if a list at `revision` (0: the latest) began before the filter counted.
    pub(super) fn may_continue(&self, revision: i64) -> Result<(), Status> {
        let asked = u64::try_from(revision).unwrap_or(0);
        if asked > 0 && asked < self.since {
            return Err(refusal::read(ReadError::Compacted { asked, compacted: self.since }));
        }
        Ok(())
    }

    /// The revision that a client is told was compacted, if a watch from `start` (0: from now on) would continue what
    /// was read before the filter counted. Watches can begin there, as etcd's can at theirs.
    pub(super) fn compacted(&self, start: u64) -> Option<u64> {
        (start > 0 && start <= self.since).then_some(self.since + 1)
    }
}

impl View {
    /// Whether the peer is shown a version of a record.
    pub(super) fn shows(&self, entry: &Entry) -> bool {
        let Some(filter) = &self.inner.filter else {
            return ALWAYS_SHOWN.iter().any(|prefix| entry.key.starts_with(prefix.as_bytes()));
        };
        match filter.judge(&entry.key, &entry.value) {
            Verdict::Shown => true,
            Verdict::Hidden => false,
            Verdict::Unreadable => {
                self.inner.unreadable.note(entry);
                false
            }
        }
    }

    /// An event as the peer sees it; `None` if nothing happens to what it is shown.
    ///
    /// If nobody knows what the version before was, the peer may have been shown it.
    pub(super) fn event(&self, event: &Event) -> Option<Event> {
        let previous = event.previous.as_ref().filter(|previous| self.shows(previous)).cloned();
        let kind = match event.kind {
            EventKind::Put if self.shows(&event.entry) => EventKind::Put,
            EventKind::Put | EventKind::Delete => {
                let is_unknown =
                    event.previous.is_none() && (event.kind == EventKind::Delete || event.entry.version > 1);
                if previous.is_none() && !is_unknown {
                    return None;
                }
                // Of a deletion only key and revision are ever written.
                EventKind::Delete
            }
        };
        Some(Event { kind, entry: event.entry.clone(), previous })
    }
}

impl PartialEq for View {
    fn eq(&self, other: &Self) -> bool {
        self.inner.id == other.inner.id
    }
}

impl Eq for View {}

impl Hash for View {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.id.hash(state);
    }
}

impl Unreadable {
    fn note(&self, entry: &Entry) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.get(&entry.key) == Some(&entry.mod_revision) {
            return;
        }
        if counted.len() >= MOST_UNREADABLE {
            counted.clear();
        }
        counted.insert(entry.key.clone(), entry.mod_revision);
        drop(counted);
        self.counter.inc();
        warn!(key = ?entry.key, revision = entry.mod_revision, "record cannot be read, filtered peers are not shown it");
    }
}

/// Different filters at a time; beyond them sharing begins anew.
const MOST_VIEWS: usize = 1024;
/// Records that are remembered as told of.
const MOST_UNREADABLE: usize = 1024;

#[cfg(test)]
mod tests;
