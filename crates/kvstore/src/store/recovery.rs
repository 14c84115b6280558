//! Opening a store's directory: what is there, and whether its revisions may go on under the same `cluster_id`.
//!
//! They may go on if every revision that any reader can have seen is here. The death of the process loses none.
//! A new id is taken when one may be missing: the machine rebooted before everything was synced, the files were
//! copied (restored from a backup), the journal's tail is gone, or there is a hole in the history.

use super::{
    disk,
    entry::{Batch, Entry, Event, EventKind},
    history::History,
    journal::{HIGH_WATER, Journal, JournalError, Meta, RECORDS},
    snapshot::Snapshot,
};
use std::{
    fs,
    io::{self, Read},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::time::Instant;
use tracing::{error, info, warn};

/// A store as it was found.
pub(crate) struct Recovered {
    pub(crate) journal: Journal,
    pub(crate) meta: Meta,
    pub(crate) snapshot: Snapshot,
    pub(crate) history: History,
}

/// The directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("store {directory} is open in another process")]
    InUse {
        /// The store's directory.
        directory: PathBuf,
    },
    /// The disk failed, is full, or is not ours to write.
    #[error("open store {directory}")]
    Journal {
        /// The store's directory.
        directory: PathBuf,
        /// What failed.
        source: JournalError,
    },
    /// A file operation failed.
    #[error("{action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// Why revisions cannot go on under the old `cluster_id`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Break {
    #[error("the machine rebooted before everything was synced to disk")]
    Rebooted,
    #[error("the files were copied here, as from a backup")]
    Copied,
    #[error("revision {written} had been written, but the files end at revision {found}")]
    TailLost { written: u64, found: u64 },
    #[error("the disk had failed while the store was in use")]
    InDoubt,
    #[error("the history has a hole after revision {after}")]
    Hole { after: u64 },
}

/// Opens `directory`, creating it if needed. Damaged files are moved aside, never deleted unread.
pub(crate) fn open(directory: &Path) -> Result<Recovered, OpenError> {
    let file_error = |action, path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::File { action, path, source }
    };
    fs::create_dir_all(directory).map_err(file_error("create", directory))?;
    if let Err(cause) = disk::remove(&directory.join(disk::FRESH)) {
        warn!(error = %disk::chain(&cause), "what is left of files that were being written anew stays");
    }
    let boot_id = boot_id();
    match recover(directory, &boot_id) {
        Ok(recovered) => Ok(recovered),
        Err(cause) if cause.is_locked() => Err(OpenError::InUse { directory: directory.to_owned() }),
        Err(cause) if cause.is_damage() => {
            let aside = directory.join(DAMAGED);
            error!(directory = %directory.display(), aside = %aside.display(), error = ?cause,
                "store is damaged: its files are moved aside and a new, empty store is begun with a new cluster id");
            if aside.exists() {
                fs::remove_dir_all(&aside).map_err(file_error("remove", &aside))?;
            }
            fs::rename(directory.join(RECORDS), &aside).map_err(file_error("move aside to", &aside))?;
            let high_water = directory.join(HIGH_WATER);
            if high_water.exists() {
                fs::remove_file(&high_water).map_err(file_error("remove", &high_water))?;
            }
            recover(directory, &boot_id)
                .map_err(|source| OpenError::Journal { directory: directory.to_owned(), source })
        }
        Err(source) => Err(OpenError::Journal { directory: directory.to_owned(), source }),
    }
}

fn recover(directory: &Path, boot_id: &str) -> Result<Recovered, JournalError> {
    // The library checks what it reads, but some of its checks of its own files are assertions.
    let mut journal = match catch_unwind(AssertUnwindSafe(|| Journal::open(directory))) {
        Ok(opened) => opened?,
        Err(_panic) => {
            let source = Box::new(fjall::Error::Unrecoverable);
            return Err(JournalError::Storage { path: directory.join(RECORDS), source });
        }
    };
    let found = journal.meta()?;
    let compacted = found.as_ref().map_or(0, |meta| meta.compacted);
    let mut replay = Replay::new(compacted);
    journal.replay(|event| replay.event(event))?;
    let (mut snapshot, history, hole, garbage) = replay.finish();
    for (id, ttl_secs) in journal.leases()? {
        snapshot.set_lease(id, Some(ttl_secs));
    }
    journal.compact(snapshot.compacted(), &garbage)?;

    let mark = journal.mark();
    let meta = match found {
        None => Meta { cluster_id: random_id(), member_id: random_id(), ..Meta::default() },
        Some(meta) => match broken(&meta, boot_id, mark, journal.high_water(), &snapshot, hole) {
            None => meta,
            Some(reason) => {
                let cluster_id = random_id();
                warn!(directory = %directory.display(), %reason, revision = snapshot.revision(),
                    old = format_args!("{:x}", meta.cluster_id), new = format_args!("{cluster_id:x}"),
                    "store takes a new cluster id: peers list again");
                Meta { cluster_id, ..meta }
            }
        },
    };
    let compacted = snapshot.compacted();
    // Each opening has a mark of its own, so files of an earlier one that are put back are noticed.
    let (new_mark, name) = journal.new_mark(snapshot.revision())?;
    let boot_id = boot_id.to_owned();
    let meta = Meta { boot_id, mark: name, mark_before: mark, compacted, closed: false, ..meta };
    journal.set_meta(&meta)?;
    journal.replace_mark(new_mark)?;
    info!(directory = %directory.display(), cluster_id = format_args!("{:x}", meta.cluster_id), compacted,
        revision = snapshot.revision(), keys = snapshot.len(), "store opened");
    Ok(Recovered { journal, meta, snapshot, history })
}

/// Whether a reader may have seen a revision that is not here, and why.
fn broken(
    meta: &Meta,
    boot_id: &str,
    mark: u64,
    high_water: Option<u64>,
    snapshot: &Snapshot,
    hole: Option<u64>,
) -> Option<Break> {
    let (written, found) = (high_water.unwrap_or(u64::MAX), snapshot.revision());
    if let Some(after) = hole {
        return Some(Break::Hole { after });
    }
    if meta.mark != mark && meta.mark_before != mark {
        return Some(Break::Copied);
    }
    if written == disk::IN_DOUBT {
        return Some(Break::InDoubt);
    }
    if meta.boot_id != boot_id && !meta.closed {
        return Some(Break::Rebooted);
    }
    (written > found).then_some(Break::TailLost { written, found })
}

/// Rebuilds snapshot and history from events in order.
struct Replay {
    snapshot: Snapshot,
    history: History,
    pending: Vec<Event>,
    hole: Option<u64>,
    garbage: Vec<Arc<Entry>>,
    now: Instant,
}

impl Replay {
    fn new(compacted: u64) -> Self {
        let mut snapshot = Snapshot::empty();
        snapshot.set_compacted(compacted);
        snapshot.set_revision(compacted.max(1));
        let (history, pending, garbage) = (History::default(), Vec::new(), Vec::new());
        Self { snapshot, history, pending, hole: None, garbage, now: Instant::now() }
    }

    fn event(&mut self, mut event: Event) {
        let revision = event.entry.mod_revision;
        if revision < self.snapshot.compacted() {
            // A compaction that was cut short leaves records that nobody can ask for.
            self.garbage.extend(self.snapshot.apply_compacted(&event));
            if event.kind == EventKind::Delete {
                self.garbage.push(event.entry);
            }
            return;
        }
        if self.pending.first().is_some_and(|first| first.entry.mod_revision != revision) {
            self.close_revision();
        }
        event.previous = self.snapshot.get(&event.entry.key).cloned();
        self.snapshot.apply(&event);
        self.pending.push(event);
    }

    fn close_revision(&mut self) {
        let Some(revision) = self.pending.first().map(|event| event.entry.mod_revision) else { return };
        let last = self.snapshot.revision();
        let follows = revision == last + 1 || (revision == last && self.history.len() == 0);
        if !follows {
            self.hole.get_or_insert(last);
            self.history = History::default();
        }
        let events = std::mem::take(&mut self.pending).into_boxed_slice();
        self.history.push(Arc::new(Batch { revision, events, at: self.now }));
        self.snapshot.set_revision(revision);
    }

    fn finish(mut self) -> (Snapshot, History, Option<u64>, Vec<Arc<Entry>>) {
        self.close_revision();
        if self.hole.is_some() {
            // What lies around a hole cannot be read in order: only the latest state is kept readable.
            self.history = History::default();
            self.snapshot.forget_history();
            self.snapshot.set_compacted(self.snapshot.revision());
        }
        (self.snapshot, self.history, self.hole, self.garbage)
    }
}

/// Names the machine's current boot.
fn boot_id() -> String {
    let read = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    read.map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// A random number above zero: stock clients take zero for "not known".
pub(crate) fn random_id() -> u64 {
    let mut bytes = [0; 8];
    let read = fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.expect("/dev/urandom is readable");
    u64::from_be_bytes(bytes).max(1)
}

const DAMAGED: &str = "records.damaged";

#[cfg(test)]
mod tests {
    use super::*;

    fn put(revision: u64) -> Event {
        let entry = Entry {
            key: format!("k/{revision}").into(),
            value: "v".into(),
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            lease: 0,
            sub: 0,
        };
        Event { kind: EventKind::Put, entry: Arc::new(entry), previous: None }
    }

    #[test]
    fn a_hole_in_the_history_leaves_the_latest_state_only() {
        let mut replay = Replay::new(0);
        for revision in [2, 3, 5, 6] {
            replay.event(put(revision));
        }
        let (snapshot, history, hole, _) = replay.finish();
        assert_eq!(hole, Some(3));
        assert_eq!((snapshot.revision(), snapshot.compacted(), snapshot.len()), (6, 6, 4));
        assert_eq!(history.len(), 0);
    }

    #[test]
    fn a_reboot_breaks_the_run_unless_the_store_was_closed() {
        let meta = Meta { cluster_id: 7, boot_id: "one".into(), mark: 5, ..Meta::default() };
        let mut snapshot = Snapshot::empty();
        snapshot.set_revision(9);
        let check = |meta: &Meta, boot: &str, high_water| broken(meta, boot, 5, high_water, &snapshot, None);
        assert_eq!(check(&meta, "one", Some(9)), None);
        assert_eq!(check(&meta, "one", Some(8)), None, "killed between journal and high-water mark");
        assert_eq!(check(&meta, "one", Some(10)), Some(Break::TailLost { written: 10, found: 9 }));
        assert_eq!(check(&meta, "two", Some(9)), Some(Break::Rebooted));
        let closed = Meta { closed: true, ..meta };
        assert_eq!(check(&closed, "two", Some(9)), None);
    }
}
