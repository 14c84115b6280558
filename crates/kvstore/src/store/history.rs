//! The events since the last compaction, one batch a revision, shared by all watchers.

use super::entry::Batch;
use std::{collections::VecDeque, sync::Arc};
use tokio::time::Instant;

/// Batches of neighbouring revisions, oldest first.
#[derive(Debug, Default)]
pub(crate) struct History {
    batches: VecDeque<Arc<Batch>>,
    bytes: usize,
}

impl History {
    /// Appends the next revision.
    pub(crate) fn push(&mut self, batch: Arc<Batch>) {
        debug_assert!(self.batches.back().is_none_or(|last| last.revision + 1 == batch.revision));
        self.bytes += batch.size();
        self.batches.push_back(batch);
    }

    /// At most `count` batches from `revision` on, oldest first; from the oldest one held if that is later.
    pub(crate) fn from(&self, revision: u64, count: usize) -> impl Iterator<Item = &Arc<Batch>> {
        let first = self.batches.front().map_or(0, |batch| batch.revision);
        let skipped = usize::try_from(revision.saturating_sub(first)).unwrap_or(usize::MAX);
        self.batches.range(skipped.min(self.batches.len())..).take(count)
    }

    /// Batches of revisions up to and including `revision`, oldest first.
    pub(crate) fn up_to(&self, revision: u64) -> impl Iterator<Item = &Arc<Batch>> {
        self.batches.iter().take_while(move |batch| batch.revision <= revision)
    }

    /// Forgets the batches of revisions before `revision`.
    pub(crate) fn forget_before(&mut self, revision: u64) {
        while self.batches.front().is_some_and(|batch| batch.revision < revision) {
            if let Some(batch) = self.batches.pop_front() {
                self.bytes = self.bytes.saturating_sub(batch.size());
            }
        }
    }

    /// The revision to compact to, so that about `revisions` batches of about `bytes` remain, none written
    /// before `oldest`; `None` if they are within these bounds.
    pub(crate) fn expired(&self, revisions: usize, bytes: usize, oldest: Option<Instant>) -> Option<u64> {
        let mut surplus_count = self.batches.len().saturating_sub(revisions);
        let mut surplus_bytes = self.bytes.saturating_sub(bytes);
        let mut expired = None;
        for batch in &self.batches {
            let too_old = oldest.is_some_and(|oldest| batch.at < oldest);
            if surplus_count == 0 && surplus_bytes == 0 && !too_old {
                break;
            }
            surplus_count = surplus_count.saturating_sub(1);
            surplus_bytes = surplus_bytes.saturating_sub(batch.size());
            expired = Some(batch.revision + 1);
        }
        expired
    }

    /// Number of revisions held.
    pub(crate) fn len(&self) -> usize {
        self.batches.len()
    }

    /// Bytes held, roughly.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}
