//! A cursor into the history.

use super::{
    Store,
    entry::{Batch, Event},
};
use crate::range::KeyRange;
use std::sync::{Arc, atomic::Ordering};
use tokio::sync::watch;

/// Follows a range. It holds no events, only the next revision to read, so it may be as slow as it likes; if it
/// falls behind a compaction it is told so.
#[derive(Debug)]
pub struct Watcher {
    store: Store,
    range: KeyRange,
    next: u64,
    progress: watch::Receiver<u64>,
    /// Whether it appears in the metrics.
    counted: bool,
}

/// Events of whole revisions, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The events in the watched range; may be empty from [`Watcher::take`].
    pub events: Vec<Event>,
    /// Everything in the range up to and including this revision has now been delivered.
    pub revision: u64,
}

/// The watcher asks for revisions that are forgotten. It has to read the range anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("revision {next} has been compacted, the oldest one is {compact_revision}")]
pub struct Compacted {
    /// What the watcher needed.
    pub next: u64,
    /// The oldest revision that can be watched from.
    pub compact_revision: u64,
}

impl Watcher {
    pub(crate) fn new(store: Store, range: KeyRange, start_revision: u64, counted: bool) -> Self {
        let progress = store.progress();
        let next = if start_revision == 0 { *progress.borrow() + 1 } else { start_revision };
        store.counters().watchers.fetch_add(u64::from(counted), Ordering::Relaxed);
        Self { store, range, next, progress, counted }
    }

    /// The watched range.
    pub fn range(&self) -> &KeyRange {
        &self.range
    }

    /// Everything before this revision has been delivered.
    pub fn next_revision(&self) -> u64 {
        self.next
    }

    /// Goes on to `next` for a caller that knows that nothing of the range lies before it, or has it from elsewhere.
    pub fn skip_to(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    /// The store's latest revision.
    pub fn latest(&self) -> u64 {
        *self.progress.borrow()
    }

    /// Counts events that its client was given from elsewhere.
    pub fn delivered(&self, events: usize) {
        if self.counted {
            self.store.counters().events_delivered.fetch_add(events as u64, Ordering::Relaxed);
        }
    }

    /// Reads on without waiting; `None` if there is nothing new.
    ///
    /// Reads a bounded piece: the events may be empty and more may follow. Fails if the watcher fell behind.
    pub fn take(&mut self) -> Result<Option<Changes>, Compacted> {
        self.take_until(u64::MAX)
    }

    /// As [`take`](Self::take), but reads no revision above `last`.
    pub fn take_until(&mut self, last: u64) -> Result<Option<Changes>, Compacted> {
        let (batches, latest) = self.batches()?;
        let latest = latest.min(last);
        let mut events = Vec::new();
        let (mut bytes, mut revision) = (0, None);
        for batch in batches.iter().take_while(|batch| batch.revision <= last) {
            for event in batch.events.iter().filter(|event| self.range.contains(&event.entry.key)) {
                bytes += event.entry.size();
                events.push(event.clone());
            }
            revision = Some(batch.revision);
            if events.len() >= EVENTS_PER_TAKE || bytes >= BYTES_PER_TAKE {
                break;
            }
        }
        let Some(revision) = revision else {
            // Revisions without events (the empty store, a history lost) have nothing to deliver.
            self.next = self.next.max(latest + 1);
            return Ok(None);
        };
        self.next = revision + 1;
        self.delivered(events.len());
        Ok(Some(Changes { events, revision }))
    }

    /// Waits for the next events. Fails if the watcher fell behind a compaction.
    ///
    /// Cancel safe: dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Changes, Compacted> {
        loop {
            match self.take()? {
                Some(changes) if !changes.events.is_empty() => return Ok(changes),
                // A long stretch without events of ours: let others run.
                Some(_) => tokio::task::yield_now().await,
                None => {
                    self.progress.mark_unchanged();
                    if *self.progress.borrow() < self.next {
                        // The sender lives as long as the store, which this watcher holds.
                        self.progress.changed().await.expect("the store is alive");
                    }
                }
            }
        }
    }

    /// The next revisions, a bounded number of them, and the latest revision there is.
    fn batches(&self) -> Result<(Vec<Arc<Batch>>, u64), Compacted> {
        self.store.inner.read(|published| {
            let compact_revision = published.snapshot.compacted();
            if self.next < compact_revision {
                return Err(Compacted { next: self.next, compact_revision });
            }
            let batches = published.history.from(self.next, REVISIONS_PER_TAKE).cloned().collect();
            Ok((batches, published.snapshot.revision()))
        })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.store.counters().watchers.fetch_sub(u64::from(self.counted), Ordering::Relaxed);
    }
}

/// Bounds of one [`Watcher::take`]; a revision is never split, so one alone may exceed them.
const REVISIONS_PER_TAKE: usize = 512;
const EVENTS_PER_TAKE: usize = 1000;
const BYTES_PER_TAKE: usize = 1 << 20;
