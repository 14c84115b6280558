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

use super::{
    Inner,
    entry::{Batch, Entry},
    journal::{HIGH_WATER, Journal, JournalError, Meta, RECORDS},
    lease::LeaseChange,
    snapshot::Snapshot,
    syncer::Syncer,
};
use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{sync::watch, time::Instant};
use tracing::{error, info, warn};

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

struct Health {
    failure: watch::Sender<Option<DiskFailure>>,
    /// The files are marked as in doubt.
    marked: AtomicBool,
}

/// A copy of the store at one moment, beside the files in use.
struct Copied {
    journal: Journal,
    snapshot: Snapshot,
}

/// Why the disk takes no writes. Clones share the text.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the store's disk has failed: {reason}")]
pub struct DiskFailure {
    reason: Arc<str>,
    is_full: bool,
    since: jiff::Timestamp,
}

impl Disk {
    /// Takes over files that are whole up to `revision`.
    pub(crate) fn new(directory: &Path, journal: Journal, meta: Meta, revision: u64) -> io::Result<Self> {
        let health = Arc::new(Health { failure: watch::Sender::new(None), marked: AtomicBool::new(false) });
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

    /// Writes the files anew from memory. Blocks for as long as it takes to write the whole store; writers are held up
    /// only at its end.
    pub(crate) fn restore(&self, inner: &Inner) -> Result<(), RestoreError> {
        let fresh = self.directory.join(FRESH);
        remove(&fresh)?;
        fs::create_dir_all(&fresh).map_err(RestoreError::file("create", &fresh))?;
        let restored = copy(&fresh, inner).and_then(|copied| self.take_over(&fresh, inner, copied));
        // What is left of a failed attempt would take the room that the next one needs.
        let removed = remove(&fresh);
        restored.and(removed)
    }

    /// Adds what was written since the copy, and puts it in the place of the files.
    fn take_over(&self, fresh: &Path, inner: &Inner, copied: Copied) -> Result<(), RestoreError> {
        let Copied { journal, snapshot: before } = copied;
        let begun = before.revision();
        let _writer = inner.lock_writer();
        let (snapshot, mut history) = inner.everything();
        history.retain(|batch| batch.revision > begun);
        journal.fill(&snapshot, &history, begun)?;
        if snapshot.compacted() > begun {
            // The tombstones of keys that were deleted since may be forgotten.
            let is_gone = |entry: &&Arc<Entry>| snapshot.get(&entry.key).is_none();
            let gone: Vec<_> = before.versions().filter(is_gone).cloned().collect();
            journal.compact(snapshot.compacted(), &gone)?;
        }
        journal.set_meta(&Meta { compacted: snapshot.compacted(), closed: false, ..self.meta.clone() })?;
        drop((journal, before));
        // The library's threads end before its files go.
        drop(self.replace_files(None));
        exchange(&fresh.join(RECORDS), &self.directory.join(RECORDS))?;
        let journal = Journal::open(&self.directory)?;
        journal.set_high_water(snapshot.revision())?;
        let files = Files::start(journal, snapshot.revision(), &self.health);
        self.replace_files(Some(
            files.map_err(RestoreError::file("start the sync thread of", &self.directory))?,
        ));
        self.health.marked.store(false, Ordering::Release);
        let failure = self.health.failure.send_replace(None);
        let secs =
            failure.map_or(0, |failure| jiff::Timestamp::now().duration_since(failure.since).as_secs());
        info!(directory = %self.directory.display(), revision = snapshot.revision(), keys = snapshot.len(), secs,
            "store is on disk again, written anew from memory");
        Ok(())
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

impl Health {
    /// Notes a failure, the first one of several.
    fn fail(&self, cause: &JournalError) -> DiskFailure {
        let failure = DiskFailure {
            reason: chain(cause).into(),
            is_full: cause.is_full(),
            since: jiff::Timestamp::now(),
        };
        let is_first = self.failure.send_if_modified(|known| {
            let is_first = known.is_none();
            known.get_or_insert_with(|| failure.clone());
            is_first
        });
        if is_first {
            error!(error = %failure.reason, "the store's disk has failed: what must be durable is refused, \
                 everything else goes on in memory, if the files can be marked, until the disk takes writes again");
        }
        failure
    }
}

impl DiskFailure {
    /// What failed, with its causes.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Whether there was no room left.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// When it began.
    pub fn since(&self) -> jiff::Timestamp {
        self.since
    }

    fn closed() -> Self {
        Self { reason: "its files are closed".into(), is_full: false, since: jiff::Timestamp::now() }
    }
}

/// The files could not be written anew.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    #[error("write the store anew")]
    Journal(#[from] JournalError),
    #[error("{action} {path}")]
    File { action: &'static str, path: PathBuf, source: io::Error },
}

impl RestoreError {
    fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// Writes everything to `fresh`, while others go on writing.
fn copy(fresh: &Path, inner: &Inner) -> Result<Copied, RestoreError> {
    let journal = Journal::open(fresh)?;
    let (snapshot, history) = inner.everything();
    journal.fill(&snapshot, &history, 0)?;
    Ok(Copied { journal, snapshot })
}

/// Swaps two directories that lie beside each other in the tree, in one step, and brings that to disk.
fn exchange(fresh: &Path, current: &Path) -> Result<(), RestoreError> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    // Somebody may have removed the old one.
    let flags = if current.exists() { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
    let exchanged = renameat_with(CWD, fresh, CWD, current, flags);
    exchanged
        .map_err(|errno| RestoreError::file("put the new files in the place of", current)(errno.into()))?;
    let directory = current.parent().unwrap_or(current);
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(RestoreError::file("sync", directory))
}

/// Removes what an attempt left behind.
pub(crate) fn remove(fresh: &Path) -> Result<(), RestoreError> {
    match fs::remove_dir_all(fresh) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            Err(RestoreError::file("remove", fresh)(cause))
        }
        _ => Ok(()),
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// When to try next to write the files anew, and how long to wait in between.
#[derive(Debug)]
pub(crate) struct Attempts {
    next: Instant,
    pause: std::time::Duration,
    last: String,
}

impl Attempts {
    /// The first attempt is soon.
    pub(crate) fn new() -> Self {
        Self { next: Instant::now() + FIRST_PAUSE, pause: FIRST_PAUSE, last: String::new() }
    }

    pub(crate) fn is_due(&self) -> bool {
        self.next <= Instant::now()
    }

    /// Notes a failed attempt; says so if its cause is another one than the last time.
    pub(crate) fn failed(&mut self, cause: &RestoreError) {
        let text = chain(cause);
        if text != self.last {
            warn!(error = %text, "the store cannot be written to its disk yet");
            self.last = text;
        }
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.next = Instant::now() + self.pause;
    }
}

/// Folder within the store's directory in which the files are written anew.
pub(crate) const FRESH: &str = "fresh";
/// A high-water mark that no store reaches.
pub(crate) const IN_DOUBT: u64 = u64::MAX;
const FIRST_PAUSE: std::time::Duration = std::time::Duration::from_secs(1);
const LONGEST_PAUSE: std::time::Duration = std::time::Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        range::KeyRange,
        store::{Store, StoreOptions, Transaction, WriteError},
    };
    use futures_util::FutureExt;

    fn open(directory: &Path) -> Store {
        Store::open(directory, StoreOptions::default()).expect("open")
    }

    fn disk(store: &Store) -> &Disk {
        store.inner.disk.as_ref().expect("a disk")
    }

    #[tokio::test]
    async fn who_waits_for_a_sync_keeps_no_file_open() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let store = open(directory.path());
        let revision = store.put("a", "1").expect("put");
        let disk = disk(&store);
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

    #[test]
    fn what_happens_while_the_files_are_copied_is_in_them() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let store = open(directory.path());
        let derive = |work: &dyn Fn(&mut Transaction)| {
            let work = |transaction: &mut Transaction| {
                work(transaction);
                Ok(())
            };
            store.derive::<_, WriteError>(work).expect("goes on in memory").revision
        };
        for key in ["changed", "deleted", "kept", "again"] {
            store.put(key, "1").expect("put");
        }
        for id in [7, 8] {
            store.grant(id, 100).expect("granted");
        }
        disk(&store).fail_for_a_test();
        let fresh = directory.path().join(FRESH);
        fs::create_dir_all(&fresh).expect("directory");
        let copied = copy(&fresh, &store.inner).expect("copied");
        derive(&|transaction| drop(transaction.put("changed".into(), "2".into(), 0)));
        derive(&|transaction| {
            transaction.delete(&KeyRange::key("deleted"));
            transaction.delete(&KeyRange::key("again"));
        });
        let last = derive(&|transaction| drop(transaction.put("again".into(), "2".into(), 0)));
        derive(&|transaction| transaction.end_lease(7));
        store.compact(last).expect("compacted in memory");
        disk(&store).take_over(&fresh, &store.inner, copied).expect("restored");
        let seen = |store: &Store| {
            let snapshot = store.snapshot();
            let entries: Vec<Entry> =
                snapshot.range(&KeyRange::all()).map(|entry| Entry::clone(entry)).collect();
            (snapshot.revision(), snapshot.compacted(), entries, store.leases())
        };
        let (before, cluster_id) = (seen(&store), store.cluster_id());
        drop(store);
        let store = open(directory.path());
        assert_eq!((seen(&store), store.cluster_id()), (before, cluster_id));
    }
}
