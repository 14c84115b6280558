//! The files of a failed disk, written anew from memory and put in the place of the old ones in one step.

use super::{
    super::{
        Inner,
        entry::Entry,
        journal::{Journal, JournalError, Meta, RECORDS},
        snapshot::Snapshot,
    },
    Disk, Files,
    failure::chain,
};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};
use tokio::time::Instant;
use tracing::{info, warn};

/// A copy of the store at one moment, beside the files in use.
struct Copied {
    journal: Journal,
    snapshot: Snapshot,
}

impl Disk {
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
            failure.map_or(0, |failure| jiff::Timestamp::now().duration_since(failure.since()).as_secs());
        info!(directory = %self.directory.display(), revision = snapshot.revision(), keys = snapshot.len(), secs,
            "store is on disk again, written anew from memory");
        Ok(())
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
const FIRST_PAUSE: std::time::Duration = std::time::Duration::from_secs(1);
const LONGEST_PAUSE: std::time::Duration = std::time::Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        range::KeyRange,
        store::{Store, StoreOptions, Transaction, WriteError},
    };

    fn open(directory: &Path) -> Store {
        Store::open(directory, StoreOptions::default()).expect("open")
    }

    fn disk(store: &Store) -> &Disk {
        store.inner.disk.as_ref().expect("a disk")
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
