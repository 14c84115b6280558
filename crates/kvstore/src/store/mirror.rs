//! A store that follows another one: the same `cluster_id`, revisions and versions, byte for byte.
//!
//! Who follows ([`etcd`](crate::etcd)) hands over a complete list once ([`Store::mirror`]) and then every revision in
//! order ([`Store::replay`]). Nobody else writes: [`Store::transact`] and all that stands on it fail with
//! [`WriteError::Mirror`]. Readers and watchers notice no difference to a store that is written to.

use super::{
    Published, Snapshot, Store, StoreOptions, WriteError,
    entry::{Batch, Entry, Event, EventKind},
    history::History,
};
use std::sync::Arc;
use tokio::time::Instant;

/// Names the store that a mirror follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its `cluster_id`; not 0.
    pub cluster_id: u64,
    /// The member that answered first; not 0.
    pub member_id: u64,
}

/// One change of the followed store: the new version, or the tombstone (key and `mod_revision`, all else empty).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    /// Put or delete.
    pub kind: EventKind,
    /// The new version, or the tombstone.
    pub entry: Entry,
}

/// What was followed does not fit what the mirror holds. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// The store is written to and follows nobody.
    #[error("the store is no mirror")]
    NotAMirror,
    /// The followed store shows a revision that the mirror has already.
    #[error("followed store sent revision {found}, the mirror is at {revision} already")]
    Backwards {
        /// The revision that came.
        found: u64,
        /// The mirror's.
        revision: u64,
    },
    /// Revisions are missing.
    #[error("followed store sent revision {found}, expected {expected}")]
    Gap {
        /// The revision that came.
        found: u64,
        /// The one after the mirror's latest.
        expected: u64,
    },
    /// The mirror was closed.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl Store {
    /// A store in memory that holds what another one held at `revision`, and follows it from there. O(entries).
    pub fn mirror(
        options: StoreOptions,
        origin: Origin,
        entries: impl IntoIterator<Item = Entry>,
        revision: u64,
    ) -> Self {
        let published = Published { snapshot: complete(entries, revision), history: History::default() };
        let mut store = Self::new(options, published, None, (origin.cluster_id, origin.member_id));
        Arc::get_mut(&mut store.inner).expect("a new store has one handle").is_mirror = true;
        store
    }

    /// Whether the store follows another one, and cannot be written to.
    pub fn is_mirror(&self) -> bool {
        self.inner.is_mirror
    }

    /// Replaces everything by what the followed store held at `revision`, after changes were missed. O(entries).
    ///
    /// The history is forgotten: whoever watches learns that what it needs is compacted, and reads anew. Fails unless
    /// `revision` lies at least two after the mirror's: a watcher that has all up to the mirror's must not go on.
    pub fn install(
        &self,
        entries: impl IntoIterator<Item = Entry>,
        revision: u64,
    ) -> Result<(), MirrorError> {
        let _writer = self.writer_of_mirror()?;
        let latest = self.revision();
        if revision <= latest + 1 {
            return Err(MirrorError::Backwards { found: revision, revision: latest });
        }
        self.inner.publish(complete(entries, revision), |history| *history = History::default());
        self.inner.progress.send_replace(revision);
        Ok(())
    }

    /// Takes over the changes of whole revisions, in the followed store's order, and shows them together. Returns the
    /// latest revision. O(changes · log keys).
    ///
    /// Fails, with nothing changed, unless they begin with the revision after the mirror's and leave none out.
    pub fn replay(&self, changes: impl IntoIterator<Item = Followed>) -> Result<u64, MirrorError> {
        let writer = self.writer_of_mirror()?;
        let latest = self.revision();
        let mut snapshot = self.snapshot();
        let mut batches: Vec<Arc<Batch>> = Vec::new();
        let (mut revision, mut events) = (latest, Vec::new());
        let at = Instant::now();
        for Followed { kind, mut entry } in changes {
            let found = entry.mod_revision;
            if found <= latest || found < revision {
                return Err(MirrorError::Backwards { found, revision });
            }
            if found > revision + 1 {
                return Err(MirrorError::Gap { found, expected: revision + 1 });
            }
            if found > revision {
                finish(&mut batches, revision, &mut events, at);
                revision = found;
            }
            entry.sub = u32::try_from(events.len()).unwrap_or(u32::MAX);
            let previous = snapshot.get(&entry.key).cloned();
            let event = Event { kind, entry: Arc::new(entry), previous };
            snapshot.apply(&event);
            events.push(event);
        }
        finish(&mut batches, revision, &mut events, at);
        if revision == latest {
            return Ok(latest);
        }
        snapshot.set_revision(revision);
        self.inner.publish(snapshot, |history| batches.into_iter().for_each(|batch| history.push(batch)));
        self.inner.progress.send_replace(revision);
        self.compact_surplus(&writer);
        Ok(revision)
    }

    fn writer_of_mirror(&self) -> Result<std::sync::MutexGuard<'_, super::Writer>, MirrorError> {
        if !self.inner.is_mirror {
            return Err(MirrorError::NotAMirror);
        }
        Ok(self.inner.writer()?)
    }
}

/// The state at `revision`, without any history. Its own events are not known, so nobody can watch from it: the oldest
/// revision to watch from is the next one. An empty store has no events before that.
fn complete(entries: impl IntoIterator<Item = Entry>, revision: u64) -> Snapshot {
    let mut snapshot = Snapshot::empty();
    for entry in entries {
        snapshot.apply(&Event { kind: EventKind::Put, entry: Arc::new(entry), previous: None });
    }
    snapshot.forget_history();
    let revision = revision.max(1);
    snapshot.set_revision(revision);
    snapshot.set_compacted(if revision == 1 { 0 } else { revision + 1 });
    snapshot
}

fn finish(batches: &mut Vec<Arc<Batch>>, revision: u64, events: &mut Vec<Event>, at: Instant) {
    if !events.is_empty() {
        let events = std::mem::take(events).into_boxed_slice();
        batches.push(Arc::new(Batch { revision, events, at }));
    }
}

#[cfg(test)]
mod tests;
