//! The store's disk: every event since the last compaction, and the current version of every key.
//!
//! A directory holds `records/` (a fjall database with the keyspaces `events`, `meta` and `leases`) and `high-water`, the
//! latest revision that was written, in eight bytes beside the database. [`recovery`](super::recovery) compares the two.
//!
//! A commit is one write to the operating system: it survives the death of the process. Surviving the death of
//! the machine takes [`Journal::sync`]. fjall's own sync holds the lock that its commits need, so a commit would
//! wait for the disk; instead the file it appends to is synced through a second descriptor, which blocks nobody.
//! That is sound because fjall syncs a journal file completely before it opens the next one.

use super::{
    entry::{Batch, Entry, Event, EventKind},
    lease::LeaseChange,
    record::{self, RecordError},
    snapshot::Snapshot,
};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::UNIX_EPOCH,
};

/// An open directory. Commits come from one thread at a time; `sync` may run beside them.
pub(crate) struct Journal {
    database: Database,
    events: Keyspace,
    meta: Keyspace,
    leases: Keyspace,
    high_water: File,
    records: PathBuf,
    active: Mutex<Option<ActiveFile>>,
}

/// The file that fjall appends to: the one with the highest number in its folder.
struct ActiveFile {
    number: u64,
    file: File,
}

/// What the store writes beside its events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) cluster_id: u64,
    pub(crate) member_id: u64,
    /// The machine's boot during which the store was last open.
    pub(crate) boot_id: String,
    /// Which `high-water` belongs to these files: another one means that the files were copied here.
    pub(crate) mark: u64,
    /// The one before, which is still there if the process was killed while it put the new one in its place.
    pub(crate) mark_before: u64,
    /// The oldest revision that can be read.
    pub(crate) compacted: u64,
    /// Everything had reached the disk when the store was closed.
    pub(crate) closed: bool,
}

/// The disk failed.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The storage library failed.
    #[error("storage in {path}")]
    Storage {
        /// The database's folder.
        path: PathBuf,
        /// The library's error.
        source: Box<fjall::Error>,
    },
    /// A file operation failed.
    #[error("{action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A record cannot be understood.
    #[error("read {path}")]
    Record {
        /// The database's folder.
        path: PathBuf,
        /// What is wrong with the record.
        source: RecordError,
    },
}

impl Journal {
    /// Opens or creates the files in `directory`.
    pub(crate) fn open(directory: &Path) -> Result<Self, JournalError> {
        let records = directory.join(RECORDS);
        let storage = |source| JournalError::Storage { path: records.clone(), source: Box::new(source) };
        // Values live in our own memory; the database is read only at start, so its cache is small.
        let database = Database::builder(&records)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNALS_BYTES)
            .worker_threads(1)
            .open()
            .map_err(storage)?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let events = database.keyspace("events", options).map_err(storage)?;
        let meta = database.keyspace("meta", options).map_err(storage)?;
        let leases = database.keyspace("leases", options).map_err(storage)?;
        let path = directory.join(HIGH_WATER);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let high_water = file.map_err(|source| JournalError::File { action: "open", path, source })?;
        Ok(Self { database, events, meta, leases, high_water, records, active: Mutex::default() })
    }

    /// Reads what was stored beside the events; `None` in a new directory.
    pub(crate) fn meta(&self) -> Result<Option<Meta>, JournalError> {
        let number = |name| {
            let found = self.meta.get(name).map_err(|source| self.storage(source))?;
            Ok::<_, JournalError>(
                found.and_then(|bytes| Some(u64::from_be_bytes(bytes.as_ref().try_into().ok()?))),
            )
        };
        let Some(cluster_id) = number("cluster_id")? else { return Ok(None) };
        let boot_id = self.meta.get("boot_id").map_err(|source| self.storage(source))?;
        Ok(Some(Meta {
            cluster_id,
            member_id: number("member_id")?.unwrap_or_default(),
            boot_id: boot_id.map(|id| String::from_utf8_lossy(&id).into_owned()).unwrap_or_default(),
            mark: number("mark")?.unwrap_or_default(),
            mark_before: number("mark_before")?.unwrap_or_default(),
            compacted: number("compacted")?.unwrap_or_default(),
            closed: number("closed")? == Some(1),
        }))
    }

    /// Writes everything beside the events and waits until the disk has it.
    pub(crate) fn set_meta(&self, meta: &Meta) -> Result<(), JournalError> {
        let mut batch = self.database.batch();
        let numbers = [
            ("cluster_id", meta.cluster_id),
            ("member_id", meta.member_id),
            ("mark", meta.mark),
            ("mark_before", meta.mark_before),
            ("compacted", meta.compacted),
            ("closed", u64::from(meta.closed)),
        ];
        for (name, number) in numbers {
            batch.insert(&self.meta, name, number.to_be_bytes());
        }
        batch.insert(&self.meta, "boot_id", meta.boot_id.as_bytes());
        batch.commit().map_err(|source| self.storage(source))?;
        self.database.persist(PersistMode::SyncAll).map_err(|source| self.storage(source))
    }

    /// Calls `visit` with every event in the order in which they happened.
    pub(crate) fn replay(&self, mut visit: impl FnMut(Event)) -> Result<(), JournalError> {
        for guard in self.events.iter() {
            let (key, value) = guard.into_inner().map_err(|source| self.storage(source))?;
            let event = record::decode(&key, &value);
            visit(event.map_err(|source| JournalError::Record { path: self.records.clone(), source })?);
        }
        Ok(())
    }

    /// The leases that were granted and have not ended, with the seconds that they were granted for.
    pub(crate) fn leases(&self) -> Result<Vec<(i64, i64)>, JournalError> {
        let mut leases = Vec::new();
        for guard in self.leases.iter() {
            let (key, value) = guard.into_inner().map_err(|source| self.storage(source))?;
            let lease = record::decode_lease(&key, &value);
            leases.push(lease.map_err(|source| JournalError::Record { path: self.records.clone(), source })?);
        }
        Ok(leases)
    }

    /// Hands revisions up to `last`, with or without events, to the operating system in one write: all or none of them
    /// survive the death of this process.
    pub(crate) fn append(
        &self,
        batches: &[Arc<Batch>],
        last: u64,
        leases: &[LeaseChange],
    ) -> Result<(), JournalError> {
        let mut write = self.database.batch();
        for event in batches.iter().flat_map(|batch| &batch.events) {
            write.insert(&self.events, record::place(&event.entry), record::encode(event));
        }
        for change in leases {
            match *change {
                LeaseChange::Granted { id, ttl_secs } => {
                    write.insert(&self.leases, id.to_be_bytes(), ttl_secs.to_be_bytes());
                }
                LeaseChange::Ended { id } => write.remove(&self.leases, id.to_be_bytes()),
            }
        }
        write.commit().map_err(|source| self.storage(source))?;
        self.set_high_water(last)
    }

    /// Writes a store into a directory that holds all of it up to revision `after`, 0 for an empty one: every version that
    /// can be read, and the events since the last compaction. What is in both is written twice, to the same place.
    /// Leases that it does not have are removed. Waits for nothing.
    pub(crate) fn fill(
        &self,
        snapshot: &Snapshot,
        history: &[Arc<Batch>],
        after: u64,
    ) -> Result<(), JournalError> {
        let versions = snapshot.versions().filter(|entry| entry.mod_revision > after).cloned();
        let versions = versions.map(|entry| Event { kind: EventKind::Put, entry, previous: None });
        let events = history.iter().flat_map(|batch| batch.events.iter().cloned());
        let mut events = versions.chain(events).peekable();
        while events.peek().is_some() {
            let mut write = self.database.batch();
            for event in events.by_ref().take(RECORDS_PER_COMMIT) {
                write.insert(&self.events, record::place(&event.entry), record::encode(&event));
            }
            write.commit().map_err(|source| self.storage(source))?;
        }
        let mut write = self.database.batch();
        for (id, _) in self.leases()?.into_iter().filter(|(id, _)| !snapshot.has_lease(*id)) {
            write.remove(&self.leases, id.to_be_bytes());
        }
        for (id, ttl_secs) in snapshot.leases() {
            write.insert(&self.leases, id.to_be_bytes(), ttl_secs.to_be_bytes());
        }
        write.commit().map_err(|source| self.storage(source))
    }

    /// Moves the compaction revision and removes records that no reader can ask for any more.
    pub(crate) fn compact(&self, compacted: u64, garbage: &[impl AsRef<Entry>]) -> Result<(), JournalError> {
        let mut write = self.database.batch();
        write.insert(&self.meta, "compacted", compacted.to_be_bytes());
        write.commit().map_err(|source| self.storage(source))?;
        for chunk in garbage.chunks(RECORDS_PER_COMMIT) {
            let mut write = self.database.batch();
            for entry in chunk {
                write.remove(&self.events, record::place(entry.as_ref()));
            }
            write.commit().map_err(|source| self.storage(source))?;
        }
        Ok(())
    }

    /// Waits until everything that was appended before the call is on disk.
    pub(crate) fn sync(&self) -> Result<(), JournalError> {
        let failed = |source| JournalError::File { action: "sync", path: self.records.clone(), source };
        // The one lock is held for the whole sync: there is one thread that syncs.
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        if !active.as_ref().is_some_and(|active| active.is_newest(&self.records)) {
            *active = ActiveFile::newest(&self.records).map_err(failed)?;
        }
        match &*active {
            Some(active) => active.file.sync_data().map_err(failed),
            None => self.database.persist(PersistMode::SyncData).map_err(|source| self.storage(source)),
        }
    }

    /// The latest revision that was ever appended; `None` in a new directory.
    pub(crate) fn high_water(&self) -> Option<u64> {
        let mut bytes = [0; 8];
        self.high_water.read_exact_at(&mut bytes, 0).ok()?;
        Some(u64::from_be_bytes(bytes))
    }

    /// Notes the latest revision beside the database.
    pub(crate) fn set_high_water(&self, revision: u64) -> Result<(), JournalError> {
        let written = self.high_water.write_all_at(&revision.to_be_bytes(), 0);
        written.map_err(|source| JournalError::File { action: "write", path: self.records.clone(), source })
    }

    /// Names the `high-water` that is there: no copy of it, and none of another opening, has the same name.
    pub(crate) fn mark(&self) -> u64 {
        name_of(&self.high_water)
    }

    /// A new `high-water`, not in its place yet, and its name.
    pub(crate) fn new_mark(&self, revision: u64) -> Result<(NewMark, u64), JournalError> {
        let path = self.records.with_file_name(NEW_HIGH_WATER);
        let failed = |source| JournalError::File { action: "write", path: path.clone(), source };
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path);
        let file = file.map_err(failed)?;
        file.write_all_at(&revision.to_be_bytes(), 0).map_err(failed)?;
        let name = name_of(&file);
        Ok((NewMark { file, path: path.clone() }, name))
    }

    /// Puts it in its place.
    pub(crate) fn replace_mark(&mut self, mark: NewMark) -> Result<(), JournalError> {
        let NewMark { file, path } = mark;
        let renamed = std::fs::rename(&path, self.records.with_file_name(HIGH_WATER));
        renamed.map_err(|source| JournalError::File { action: "rename", path, source })?;
        self.high_water = file;
        Ok(())
    }

    fn storage(&self, source: fjall::Error) -> JournalError {
        JournalError::Storage { path: self.records.clone(), source: Box::new(source) }
    }
}

impl JournalError {
    /// Whether the files cannot be read as they are, as opposed to a disk that is full, locked or not ours.
    pub(crate) fn is_damage(&self) -> bool {
        use io::ErrorKind::{AlreadyExists, InvalidData, InvalidInput, NotFound, UnexpectedEof};
        let unreadable =
            |kind| matches!(kind, AlreadyExists | InvalidData | InvalidInput | NotFound | UnexpectedEof);
        match self {
            Self::Record { .. } => true,
            Self::File { .. } => false,
            Self::Storage { source, .. } => match source.as_ref() {
                fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => {
                    unreadable(error.kind())
                }
                fjall::Error::Locked | fjall::Error::Poisoned => false,
                _ => true,
            },
        }
    }

    /// Whether there is no room left on the disk, or none for this user.
    pub(crate) fn is_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        let kind = match self {
            Self::Record { .. } => None,
            Self::File { source, .. } => Some(source.kind()),
            Self::Storage { source, .. } => match source.as_ref() {
                fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => {
                    Some(error.kind())
                }
                _ => None,
            },
        };
        matches!(kind, Some(StorageFull | QuotaExceeded))
    }

    /// Whether another process has the directory open.
    pub(crate) fn is_locked(&self) -> bool {
        matches!(self, Self::Storage { source, .. } if matches!(source.as_ref(), fjall::Error::Locked))
    }
}

impl ActiveFile {
    fn newest(records: &Path) -> io::Result<Option<Self>> {
        let mut newest: Option<u64> = None;
        for file in std::fs::read_dir(records)? {
            let name = file?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".jnl")?.parse().ok());
            newest = newest.max(number);
        }
        let Some(number) = newest else { return Ok(None) };
        let file = OpenOptions::new().write(true).open(journal_file(records, number))?;
        Ok(Some(Self { number, file }))
    }

    /// fjall numbers its files without a gap, and removes the oldest ones first.
    fn is_newest(&self, records: &Path) -> bool {
        journal_file(records, self.number).exists() && !journal_file(records, self.number + 1).exists()
    }
}

fn journal_file(records: &Path, number: u64) -> PathBuf {
    records.join(format!("{number}.jnl"))
}

/// A `high-water` under another name.
pub(crate) struct NewMark {
    file: File,
    path: PathBuf,
}

/// Inode and time of birth: a copy has another inode, and a file that was given the inode of a removed one was born later.
/// Not the time of change, which a change of its owner moves.
fn name_of(file: &File) -> u64 {
    let Ok(metadata) = file.metadata() else { return 0 };
    let born = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let born = born.map_or(0, |born| u64::try_from(born.as_nanos()).unwrap_or(u64::MAX));
    metadata.ino() ^ born.rotate_left(20)
}

/// Folder of the database within the store's directory.
pub(crate) const RECORDS: &str = "records";
/// File with the latest revision that was appended.
pub(crate) const HIGH_WATER: &str = "high-water";
const NEW_HIGH_WATER: &str = "high-water.new";
const CACHE_BYTES: u64 = 8 << 20;
const JOURNALS_BYTES: u64 = 128 << 20;
const MEMTABLE_BYTES: u64 = 16 << 20;
const RECORDS_PER_COMMIT: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    /// `sync` relies on where fjall appends.
    #[test]
    fn the_newest_journal_file_holds_what_was_just_appended() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let journal = Journal::open(directory.path()).expect("open");
        let marker = b"a value that is easy to find";
        let entry = Entry {
            key: "k".into(),
            value: marker.as_slice().into(),
            create_revision: 2,
            mod_revision: 2,
            version: 1,
            lease: 0,
            sub: 0,
        };
        let event = Event { kind: EventKind::Put, entry: Arc::new(entry), previous: None };
        let batch = Batch { revision: 2, events: [event].into(), at: tokio::time::Instant::now() };
        journal.append(&[Arc::new(batch)], 2, &[]).expect("append");

        let records = directory.path().join(RECORDS);
        let newest = ActiveFile::newest(&records).expect("list").expect("a journal file");
        assert!(newest.is_newest(&records));
        let bytes = std::fs::read(journal_file(&records, newest.number)).expect("read");
        assert!(bytes.windows(marker.len()).any(|window| window == marker), "not in {}", newest.number);
        assert_eq!(journal.high_water(), Some(2));
        journal.sync().expect("sync");
    }
}
