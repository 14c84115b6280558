//! Immutable views of the store at its latest and at older revisions.

use super::entry::{Entry, Event, EventKind};
use crate::range::KeyRange;
use bytes::Bytes;
use imbl::{OrdMap, OrdSet};
use std::{iter::Peekable, ops::Bound, sync::Arc};

/// The store at one revision. Cloning is O(1); writers never change a snapshot that was taken.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Latest version of each key that exists.
    current: OrdMap<Bytes, Arc<Entry>>,
    /// Versions that are no longer current but not yet compacted, by key and `mod_revision`.
    superseded: OrdMap<(Bytes, u64), Superseded>,
    /// Leases with the seconds that they were granted for.
    leases: OrdMap<i64, i64>,
    /// Current keys that hang on a lease, by lease and key.
    leased: OrdSet<(i64, Bytes)>,
    revision: u64,
    compacted: u64,
}

/// A version that was current in `[entry.mod_revision, until)`.
#[derive(Clone, Debug)]
struct Superseded {
    entry: Arc<Entry>,
    until: u64,
}

/// Why an older revision cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The revision is older than the last compaction.
    #[error("revision {asked} has been compacted, the oldest one is {compacted}")]
    Compacted {
        /// What was asked for.
        asked: u64,
        /// The oldest revision that can be read.
        compacted: u64,
    },
    /// The revision does not exist yet.
    #[error("revision {asked} is in the future, the latest one is {revision}")]
    Future {
        /// What was asked for.
        asked: u64,
        /// The latest revision.
        revision: u64,
    },
}

/// A [`Snapshot`] read at one of its revisions.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    snapshot: &'a Snapshot,
    revision: u64,
}

impl Snapshot {
    /// An empty store. The first change makes revision 2, as in etcd.
    pub(crate) fn empty() -> Self {
        Self { revision: 1, ..Self::default() }
    }

    /// The latest revision.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The oldest revision that can be read; 0 before the first compaction.
    pub fn compacted(&self) -> u64 {
        self.compacted
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.current.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.current.is_empty()
    }

    /// The latest version of a key. O(log n).
    pub fn get(&self, key: &[u8]) -> Option<&Arc<Entry>> {
        self.current.get(key)
    }

    /// The latest versions of the keys of a range, in byte order of the keys.
    pub fn range<'a>(&'a self, range: &KeyRange) -> impl Iterator<Item = &'a Arc<Entry>> + use<'a> {
        let bounds = range.bounds();
        bounds
            .map(|bounds| self.current.range::<_, [u8]>(bounds))
            .into_iter()
            .flatten()
            .map(|(_, entry)| entry)
    }

    /// Every version that can be read: the current ones, and those superseded since the last compaction.
    pub(crate) fn versions(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.current.values().chain(self.superseded.values().map(|old| &old.entry))
    }

    /// Whether there is a lease with this number.
    pub fn has_lease(&self, id: i64) -> bool {
        self.leases.contains_key(&id)
    }

    /// The keys that hang on a lease, in byte order.
    pub fn lease_keys(&self, id: i64) -> impl Iterator<Item = &Bytes> {
        let from = self.leased.range((id, Bytes::new())..);
        from.take_while(move |(lease, _)| *lease == id).map(|(_, key)| key)
    }

    /// Number of leases.
    pub fn lease_count(&self) -> usize {
        self.leases.len()
    }

    /// The seconds that a lease was granted for.
    pub(crate) fn lease(&self, id: i64) -> Option<i64> {
        self.leases.get(&id).copied()
    }

    /// All leases and the seconds that they were granted for.
    pub(crate) fn leases(&self) -> impl Iterator<Item = (i64, i64)> {
        self.leases.iter().map(|(id, ttl_secs)| (*id, *ttl_secs))
    }

    /// Adds a lease, or removes it.
    pub(crate) fn set_lease(&mut self, id: i64, ttl_secs: Option<i64>) {
        match ttl_secs {
            Some(ttl_secs) => drop(self.leases.insert(id, ttl_secs)),
            None => drop(self.leases.remove(&id)),
        }
    }

    /// The store as it was at `revision`; 0 is the latest.
    ///
    /// Fails if the revision is compacted or in the future.
    pub fn at(&self, revision: u64) -> Result<View<'_>, ReadError> {
        match revision {
            0 => Ok(View { snapshot: self, revision: self.revision }),
            asked if asked > self.revision => Err(ReadError::Future { asked, revision: self.revision }),
            // The latest state can always be read: that of a new mirror has no history, not even its own events.
            asked if asked < self.compacted && asked < self.revision => {
                Err(ReadError::Compacted { asked, compacted: self.compacted })
            }
            revision => Ok(View { snapshot: self, revision }),
        }
    }

    /// Makes an event part of the snapshot, without moving the revision.
    pub(crate) fn apply(&mut self, event: &Event) {
        let entry = &event.entry;
        let previous = self.replace(event);
        // A version that its own transaction replaced was never current at any revision.
        if let Some(previous) = previous.filter(|previous| previous.mod_revision < entry.mod_revision) {
            let place = (previous.key.clone(), previous.mod_revision);
            self.superseded.insert(place, Superseded { entry: previous, until: entry.mod_revision });
        }
    }

    /// Makes an event part of the snapshot that is older than the last compaction: the version before is gone.
    pub(crate) fn apply_compacted(&mut self, event: &Event) -> Option<Arc<Entry>> {
        self.replace(event)
    }

    /// Makes the event's version the current one and returns the one before.
    fn replace(&mut self, event: &Event) -> Option<Arc<Entry>> {
        let entry = &event.entry;
        let previous = match event.kind {
            EventKind::Put => self.current.insert(entry.key.clone(), entry.clone()),
            EventKind::Delete => self.current.remove(&entry.key),
        };
        let before = previous.as_ref().map_or(0, |previous| previous.lease);
        if before != entry.lease {
            if before != 0 {
                self.leased.remove(&(before, entry.key.clone()));
            }
            if entry.lease != 0 {
                self.leased.insert((entry.lease, entry.key.clone()));
            }
        }
        previous
    }

    /// Forgets a superseded version.
    pub(crate) fn forget(&mut self, entry: &Entry) {
        self.superseded.remove(&(entry.key.clone(), entry.mod_revision));
    }

    pub(crate) fn set_revision(&mut self, revision: u64) {
        self.revision = revision;
    }

    pub(crate) fn set_compacted(&mut self, compacted: u64) {
        self.compacted = compacted;
    }

    /// Forgets every superseded version.
    pub(crate) fn forget_history(&mut self) {
        self.superseded.clear();
    }
}

impl<'a> View<'a> {
    /// The revision that is read.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The keys of a range as they were, in byte order of the keys.
    ///
    /// At the latest revision the cost is that of the keys read; at an older one the versions superseded since
    /// the last compaction in that range come on top.
    pub fn range(&self, range: &KeyRange) -> impl Iterator<Item = &'a Arc<Entry>> + use<'a> {
        let revision = self.revision;
        let current = self.snapshot.range(range).filter(move |entry| entry.mod_revision <= revision);
        let old = (revision < self.snapshot.revision).then(|| self.snapshot.superseded_at(range, revision));
        Merged { current: current.peekable(), old: old.into_iter().flatten().peekable() }
    }
}

impl Snapshot {
    /// Versions in the range that were current at `revision` and no longer are.
    fn superseded_at<'a>(
        &'a self,
        range: &KeyRange,
        revision: u64,
    ) -> impl Iterator<Item = &'a Arc<Entry>> + use<'a> {
        let bounds = range.bounds().map(|(start, end)| {
            let start = match start {
                Bound::Included(key) => Bound::Included((Bytes::copy_from_slice(key), 0)),
                _ => Bound::Unbounded,
            };
            let end = match end {
                Bound::Included(key) => Bound::Included((Bytes::copy_from_slice(key), u64::MAX)),
                Bound::Excluded(key) => Bound::Excluded((Bytes::copy_from_slice(key), 0)),
                Bound::Unbounded => Bound::Unbounded,
            };
            (start, end)
        });
        bounds
            .map(|bounds| self.superseded.range(bounds))
            .into_iter()
            .flatten()
            .filter(move |(_, old)| old.entry.mod_revision <= revision && revision < old.until)
            .map(|(_, old)| &old.entry)
    }
}

/// Two sequences of entries in key order as one.
struct Merged<A: Iterator, B: Iterator> {
    current: Peekable<A>,
    old: Peekable<B>,
}

impl<'a, A, B> Iterator for Merged<A, B>
where
    A: Iterator<Item = &'a Arc<Entry>>,
    B: Iterator<Item = &'a Arc<Entry>>,
{
    type Item = &'a Arc<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        match (self.current.peek(), self.old.peek()) {
            (Some(current), Some(old)) if old.key < current.key => self.old.next(),
            (Some(_), _) => self.current.next(),
            (None, _) => self.old.next(),
        }
    }
}
