//! How much history is kept, and forgetting the rest.

use super::{CompactError, Inner, Store, Writer, entry::Entry, entry::EventKind, snapshot::ReadError};
use std::{
    sync::{Arc, MutexGuard, atomic::Ordering},
    time::Duration,
};
use tokio::time::Instant;
use tracing::{debug, warn};

/// Bounds of the history; what exceeds any of them is compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Longest time that a revision is kept after the next one. Stock servers keep one hour.
    pub age: Duration,
    /// Most revisions kept.
    pub revisions: usize,
    /// Most bytes kept, keys and values with a fixed overhead an event.
    pub bytes: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self { age: Duration::from_secs(3600), revisions: 200_000, bytes: 256 << 20 }
    }
}

impl Store {
    /// Compacts what exceeds the retention.
    pub(super) fn compact_expired(&self) {
        let Retention { age, revisions, bytes } = self.inner.options.retention;
        let oldest = Instant::now().checked_sub(age);
        if self.inner.surplus(revisions, bytes, oldest).is_none() {
            return;
        }
        // A store that is closed needs no compaction.
        let Ok(writer) = self.inner.writer() else { return };
        if let Some(revision) = self.inner.surplus(revisions, bytes, oldest)
            && let Err(cause) = self.compact_locked(&writer, revision)
        {
            warn!(error = ?cause, revision, "compaction failed");
        }
    }

    /// The bound that holds even if nobody runs [`Store::maintain`]: twice the retention.
    pub(super) fn compact_surplus(&self, writer: &MutexGuard<'_, Writer>) {
        let Retention { revisions, bytes, .. } = self.inner.options.retention;
        let (held, held_bytes) = self.history_size();
        if held < revisions.saturating_mul(2) && held_bytes < bytes.saturating_mul(2) {
            return;
        }
        if let Some(revision) = self.inner.surplus(revisions, bytes, None)
            && let Err(cause) = self.compact_locked(writer, revision)
        {
            warn!(error = ?cause, revision, "compaction failed");
        }
    }

    pub(super) fn compact_locked(
        &self,
        _writer: &MutexGuard<'_, Writer>,
        revision: u64,
    ) -> Result<(), CompactError> {
        let mut snapshot = self.snapshot();
        let compacted = snapshot.compacted();
        if revision > snapshot.revision() {
            return Err(ReadError::Future { asked: revision, revision: snapshot.revision() }.into());
        }
        if revision <= compacted {
            return Err(ReadError::Compacted { asked: revision, compacted }.into());
        }
        let forgotten = self.inner.read(|published| {
            published.history.up_to(revision).cloned().collect::<Vec<_>>() // cloned: reading on takes a while
        });
        let mut garbage: Vec<Arc<Entry>> = Vec::new();
        for batch in &forgotten {
            for event in &batch.events {
                // The batch of `revision` itself can still be watched, so its events stay until next time.
                let is_watched = |entry: &Entry| entry.mod_revision >= revision;
                if let Some(previous) = event.previous.as_ref().filter(|previous| !is_watched(previous)) {
                    if previous.mod_revision < batch.revision {
                        snapshot.forget(previous);
                    }
                    garbage.push(previous.clone());
                }
                if event.kind == EventKind::Delete && !is_watched(&event.entry) {
                    garbage.push(event.entry.clone());
                }
            }
        }
        snapshot.set_compacted(revision);
        if let Some(disk) = &self.inner.disk
            && let Err(failure) = disk.compact(revision, &garbage)
        {
            // Memory is bounded whatever the disk does; the files are written anew when it is back.
            debug!(error = %failure, revision, "compacted in memory alone");
        }
        self.inner.publish(snapshot, |history| history.forget_before(revision));
        self.inner.counters.compactions.fetch_add(1, Ordering::Relaxed);
        debug!(revision, records = garbage.len(), "store compacted");
        Ok(())
    }
}

impl Inner {
    /// The revision to compact to, if the history exceeds the bounds.
    fn surplus(&self, revisions: usize, bytes: usize, oldest: Option<Instant>) -> Option<u64> {
        self.read(|published| {
            let expired = published.history.expired(revisions, bytes, oldest)?;
            let revision = expired.min(published.snapshot.revision());
            (revision > published.snapshot.compacted()).then_some(revision)
        })
    }
}

/// How often leases and retention are looked at and quiet writes are synced; etcd looks at its leases as often.
pub(super) const INTERVAL: Duration = Duration::from_millis(500);
