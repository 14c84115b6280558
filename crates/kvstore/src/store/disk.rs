//! The store's disk, and what happens when it fails.
//!
//! A write that failed leaves the library's files in doubt: part of it may be there, and what was synced before may have
//! been dropped by the kernel. Memory holds everything that was ever shown to a reader, so the files are written anew
//! from it as soon as the disk takes them, under the same `cluster_id`. Until then
//!
//! * what asks for durability is refused: it could not be promised;
//! * the files are marked as in doubt, so that a process that starts on them takes a new `cluster_id`;
//! * then what can be had again ([`Store::derive`](super::Store::derive)) goes on in memory. A disk that does not even
//!   take the mark (it is read-only) stops that, too: nobody is shown a revision that could come again.

mod failure;
mod restore;

use super::{
    entry::{Batch, Entry},
    journal::{HIGH_WATER, Journal, JournalError, Meta},
    lease::LeaseChange,
    syncer::Syncer,
};
use failure::Health;
use std::{
    fmt,
    fs::OpenOptions,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, atomic::Ordering},
};
use tokio::sync::watch;

pub use failure::DiskFailure;
pub(crate) use failure::chain;
pub(crate) use restore::{Attempts, FRESH, RestoreError, remove};

/// A directory in use.
pub(crate) struct Disk {
    directory: PathBuf,
    meta: Meta,
    /// Nothing while the files are in doubt, once they have been closed.
    files: RwLock<Option<Arc<Files>>>,
    health: Arc<Health>,
}

/// The files and the thread that syncs them.
struct Files {
    // Dropped first: its thread uses the journal.
    syncer: Syncer,
    journal: Arc<Journal>,
}

impl Disk {
    /// Takes over files that are whole up to `revision`.
    pub(crate) fn new(directory: &Path, journal: Journal, meta: Meta, revision: u64) -> io::Result<Self> {
        let health = Arc::new(Health::new());
        let files = Files::start(journal, revision, &health)?;
        Ok(Self { directory: directory.to_owned(), meta, files: RwLock::new(Some(files)), health })
    }

    /// Hands revisions to the operating system, all or none. The caller is the one who writes.
    pub(crate) fn append(&self, batches: &[Arc<Batch>], leases: &[LeaseChange]) -> Result<(), DiskFailure> {
        let Some(last) = batches.last() else { return Ok(()) };
        let files = self.sound()?;
        files.journal.append(batches, last.revision, leases).map_err(|cause| self.fail(&cause))?;
        files.syncer.appended(last.revision);
        Ok(())
    }

    /// Marks the files of a failed disk as in doubt, so that a process that starts on them takes a new `cluster_id`; false
    /// if the disk does not even take that. The caller is the one who writes.
    pub(crate) fn mark(&self) -> bool {
        if self.health.marked.load(Ordering::Acquire) {
            return true;
        }
        // By its name: the journal's own descriptor may be closed already.
        let file = OpenOptions::new().write(true).open(self.directory.join(HIGH_WATER));
        let marked = file.and_then(|file| file.write_all_at(&IN_DOUBT.to_be_bytes(), 0)).is_ok();
        self.health.marked.store(marked, Ordering::Release);
        marked
    }

    /// Removes what a compaction forgot. The caller is the one who writes.
    pub(crate) fn compact(&self, revision: u64, garbage: &[Arc<Entry>]) -> Result<(), DiskFailure> {
        let files = self.sound()?;
        files.journal.compact(revision, garbage).map_err(|cause| self.fail(&cause))
    }

    /// Waits until `revision` is on disk.
    pub(crate) async fn synced(&self, revision: u64) -> Result<(), DiskFailure> {
        // Files that are replaced meanwhile have to be closed by then, so they are not held here.
        let synced = self.sound()?.syncer.synced(revision);
        synced.await.map_err(|_ended| self.failure().unwrap_or_else(DiskFailure::closed))
    }

    /// Asks for a sync without waiting for it.
    pub(crate) fn request(&self, revision: u64) {
        if let Ok(files) = self.sound() {
            files.syncer.request(revision);
        }
    }

    /// Notes that everything is on disk and the store was closed in order. The caller has waited for that.
    pub(crate) fn close(&self, compacted: u64) -> Result<(), DiskFailure> {
        let files = self.sound()?;
        let meta = Meta { closed: true, compacted, ..self.meta.clone() };
        files.journal.set_meta(&meta).map_err(|cause| self.fail(&cause))
    }

    /// Why the disk takes no writes; `None` if it does.
    pub(crate) fn failure(&self) -> Option<DiskFailure> {
        self.health.failure.borrow().clone()
    }

    /// The failure as it comes and goes.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<DiskFailure>> {
        self.health.failure.subscribe()
    }

    fn replace_files(&self, files: Option<Arc<Files>>) -> Option<Arc<Files>> {
        let mut current = self.files.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut current, files)
    }

    fn sound(&self) -> Result<Arc<Files>, DiskFailure> {
        if let Some(failure) = self.failure() {
            return Err(failure);
        }
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner).clone();
        files.ok_or_else(DiskFailure::closed)
    }

    /// As if a write had failed.
    #[cfg(test)]
    pub(super) fn fail_for_a_test(&self) {
        assert!(self.failure().is_none());
        let source = io::Error::from(io::ErrorKind::StorageFull);
        let cause = JournalError::File { action: "write", path: self.directory.clone(), source };
        self.fail(&cause);
    }

    fn fail(&self, cause: &JournalError) -> DiskFailure {
        self.health.fail(cause)
    }
}

impl Files {
    fn start(journal: Journal, revision: u64, health: &Arc<Health>) -> io::Result<Arc<Self>> {
        let (journal, health) = (Arc::new(journal), health.clone());
        let failed = move |cause| drop(health.fail(&cause));
        let syncer = Syncer::start(journal.clone(), revision, failed)?;
        Ok(Arc::new(Self { syncer, journal }))
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// A high-water mark that no store reaches.
pub(crate) const IN_DOUBT: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Store, StoreOptions};
    use futures_util::FutureExt;

    #[tokio::test]
    async fn who_waits_for_a_sync_keeps_no_file_open() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let store = Store::open(directory.path(), StoreOptions::default()).expect("open");
        let revision = store.put("a", "1").expect("put");
        let disk = store.inner.disk.as_ref().expect("a disk");
        let mut waiting = std::pin::pin!(disk.synced(revision));
        let outcome = waiting.as_mut().now_or_never();
        let files = disk.sound().expect("sound");
        assert_eq!(Arc::strong_count(&files), 2, "the store's and ours");
        drop(files);
        let outcome = match outcome {
            Some(outcome) => outcome,
            None => waiting.await,
        };
        outcome.expect("synced");
    }
}
