//! The store: revisions, transactions, snapshots, watches, leases, compaction, durability.
//!
//! One writer at a time works on a private copy of the latest [`Snapshot`] (persistent maps: the copy is O(1)),
//! hands its events to the journal, and only then swaps the copy in and appends to the history. So a
//! reader or watcher never sees what a crash of this process could take back, readers wait for nobody, and
//! writers do not wait for watchers.

mod disk;
mod entry;
mod history;
mod journal;
mod lease;
mod mirror;
#[cfg(test)]
mod model_tests;
mod record;
mod recovery;
mod retention;
mod snapshot;
mod syncer;
mod together;
mod transaction;
mod watcher;

pub use disk::DiskFailure;
pub use entry::{Entry, Event, EventKind};
pub use journal::JournalError;
pub use lease::{Lease, LeaseError, MAX_LEASES, MAX_TTL_SECS, MIN_TTL_SECS};
pub use mirror::{Followed, MirrorError, Origin};
pub use record::RecordError;
pub use recovery::OpenError;
pub use retention::Retention;
pub use snapshot::{ReadError, Snapshot, View};
pub use transaction::{Committed, Transaction};
pub use watcher::{Changes, Compacted, Watcher};

use crate::{metrics::Counters, range::KeyRange};
use bytes::Bytes;
use disk::{Attempts, Disk};
use entry::Batch;
use history::History;
use lease::{Deadlines, LeaseChange};
use std::{
    convert::Infallible,
    fmt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};
use together::Together;
use tokio::{sync::watch, time::Instant};

/// A revisioned key-value store. Clones are handles to the same store.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

/// How a store behaves.
#[derive(Clone, Debug, Default)]
pub struct StoreOptions {
    /// How much history it keeps for readers of old revisions and for watchers that catch up.
    pub retention: Retention,
}

/// A write was not made.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    /// The disk takes no writes at present; nothing changed. [`Store::maintain`] tries to get it back.
    #[error(transparent)]
    Disk(#[from] DiskFailure),
    /// The store was closed.
    #[error("store is closed")]
    Closed,
    /// The store follows another one.
    #[error("store is a mirror: writes go to the one that it follows")]
    Mirror,
    /// Another transaction that was to be made together with it panicked; nothing changed.
    #[error("a transaction beside it failed, see the log; nothing changed")]
    Abandoned,
}

/// A compaction was not made.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// The revision is compacted already, or in the future.
    #[error(transparent)]
    Revision(#[from] ReadError),
    /// The journal failed.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Holds what all handles share.
struct Inner {
    options: StoreOptions,
    cluster_id: u64,
    member_id: u64,
    /// Held by the one who writes.
    writer: Mutex<Writer>,
    published: RwLock<Published>,
    together: Together,
    /// When leases run out. Whoever writes takes this lock after `writer`.
    deadlines: Mutex<Deadlines>,
    /// Latest published revision; wakes watchers.
    progress: watch::Sender<u64>,
    disk: Option<Disk>,
    /// It follows another store, and is written by replaying alone.
    is_mirror: bool,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Writer {
    closed: bool,
}

/// Holds what readers and watchers see.
struct Published {
    snapshot: Snapshot,
    history: History,
}

/// What transactions that run one after another have changed together.
struct Changeset {
    /// The state with all of it.
    snapshot: Snapshot,
    /// One a transaction that changed anything.
    batches: Vec<Arc<Batch>>,
    leases: Vec<LeaseChange>,
}

/// What is to become of a change while the disk takes no writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// It is refused.
    Durable,
    /// It is made in memory.
    Derived,
}

impl Changeset {
    fn on(snapshot: Snapshot) -> Self {
        Self { snapshot, batches: Vec::new(), leases: Vec::new() }
    }

    /// Takes over what a transaction on [`Self::snapshot`] has done; returns the revision and whether anything changed.
    fn add(&mut self, transaction: Transaction) -> (u64, bool) {
        let (snapshot, events, leases) = transaction.finish();
        let revision = snapshot.revision();
        let changed = !events.is_empty();
        if changed || !leases.is_empty() {
            let batch = Batch { revision, events: events.into_boxed_slice(), at: Instant::now() };
            self.batches.push(Arc::new(batch));
            self.leases.extend(leases);
            self.snapshot = snapshot;
        }
        (revision, changed)
    }
}

impl Store {
    /// A store that lives and dies with the process.
    pub fn in_memory(options: StoreOptions) -> Self {
        let published = Published { snapshot: Snapshot::empty(), history: History::default() };
        Self::new(options, published, None, (recovery::random_id(), recovery::random_id()))
    }

    /// Opens or creates a durable store in `directory`. Reads all of it: O(bytes stored).
    ///
    /// Fails if another process has it open or the disk cannot be used. Damaged files are moved aside and the
    /// store begins anew under another [`cluster_id`](Self::cluster_id), which is logged as an error.
    pub fn open(directory: &Path, options: StoreOptions) -> Result<Self, OpenError> {
        let recovery::Recovered { journal, meta, snapshot, history } = recovery::open(directory)?;
        let ids = (meta.cluster_id, meta.member_id);
        let disk = Disk::new(directory, journal, meta, snapshot.revision());
        let disk = disk.map_err(|source| OpenError::File {
            action: "start the sync thread of",
            path: directory.to_owned(),
            source,
        })?;
        Ok(Self::new(options, Published { snapshot, history }, Some(disk), ids))
    }

    fn new(options: StoreOptions, published: Published, disk: Option<Disk>, ids: (u64, u64)) -> Self {
        let progress = watch::Sender::new(published.snapshot.revision());
        let (mut deadlines, now) = (Deadlines::default(), Instant::now());
        for (id, ttl_secs) in published.snapshot.leases() {
            deadlines.change(LeaseChange::Granted { id, ttl_secs }, now);
        }
        let inner = Inner {
            options,
            cluster_id: ids.0,
            member_id: ids.1,
            writer: Mutex::default(),
            published: RwLock::new(published),
            together: Together::default(),
            deadlines: Mutex::new(deadlines),
            progress,
            disk,
            is_mirror: false,
            counters: Arc::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Names one unbroken run of revisions; never 0. It changes when the store can no longer vouch for them.
    pub fn cluster_id(&self) -> u64 {
        self.inner.cluster_id
    }

    /// Names this store; never 0.
    pub fn member_id(&self) -> u64 {
        self.inner.member_id
    }

    /// The latest revision.
    pub fn revision(&self) -> u64 {
        *self.inner.progress.borrow()
    }

    /// The latest state. O(1), and waits for no writer's disk.
    pub fn snapshot(&self) -> Snapshot {
        self.inner.read(|published| published.snapshot.clone())
    }

    /// Runs `work` on the latest state and makes all its changes at one new revision, or none if it fails.
    ///
    /// No revision is made if nothing changes. The changes survive the death of the process when this returns,
    /// and the death of the machine once [`synced`](Self::synced) has returned. Transactions run one after
    /// another: `work` must be short. Fails while the disk takes no writes.
    pub fn transact<T, E: From<WriteError>>(
        &self,
        work: impl FnOnce(&mut Transaction) -> Result<T, E>,
    ) -> Result<Committed<T>, E> {
        self.write(Need::Durable, work)
    }

    /// As [`transact`](Self::transact), for what can be had again from where it came: while the disk takes no writes,
    /// the changes are made in memory. If the process ends before the disk is back, the next one begins with an older
    /// state under a new [`cluster_id`](Self::cluster_id). Fails if the disk does not even take the mark that says so.
    pub fn derive<T, E: From<WriteError>>(
        &self,
        work: impl FnOnce(&mut Transaction) -> Result<T, E>,
    ) -> Result<Committed<T>, E> {
        self.write(Need::Derived, work)
    }

    fn write<T, E: From<WriteError>>(
        &self,
        need: Need,
        work: impl FnOnce(&mut Transaction) -> Result<T, E>,
    ) -> Result<Committed<T>, E> {
        let writer = self.begin(need)?;
        let mut changes = Changeset::on(self.snapshot());
        let mut transaction = Transaction::new(changes.snapshot.clone());
        let value = work(&mut transaction)?;
        let (revision, changed) = changes.add(transaction);
        self.make(&writer, need, changes)?;
        Ok(Committed { value, revision, changed })
    }

    /// The turn to write, if there is anything that can be written now.
    fn begin(&self, need: Need) -> Result<MutexGuard<'_, Writer>, WriteError> {
        if self.inner.is_mirror {
            return Err(WriteError::Mirror);
        }
        let writer = self.inner.writer()?;
        match self.disk_failure().filter(|_| need == Need::Durable) {
            Some(failure) => Err(failure.into()),
            None => Ok(writer),
        }
    }

    /// Hands changes to the journal, then shows them to readers and watchers. Fails, and nothing has changed, if the journal
    /// does.
    fn make(
        &self,
        writer: &MutexGuard<'_, Writer>,
        need: Need,
        changes: Changeset,
    ) -> Result<(), WriteError> {
        let Changeset { snapshot, batches, leases } = changes;
        if batches.is_empty() {
            return Ok(());
        }
        if let Some(disk) = &self.inner.disk
            && let Err(failure) = disk.append(&batches, &leases)
            && (need == Need::Durable || !disk.mark())
        {
            return Err(failure.into());
        }
        let revision = snapshot.revision();
        let mut changed = false;
        self.inner.publish(snapshot, |history| {
            for batch in batches.into_iter().filter(|batch| !batch.events.is_empty()) {
                changed = true;
                history.push(batch);
            }
        });
        if !leases.is_empty() {
            let (mut deadlines, now) = (self.deadlines(), Instant::now());
            leases.into_iter().for_each(|change| deadlines.change(change, now));
        }
        if changed {
            self.inner.progress.send_replace(revision);
            self.compact_surplus(writer);
        }
        Ok(())
    }

    /// Writes one key and returns the revision.
    pub fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<u64, WriteError> {
        let work = |transaction: &mut Transaction| Ok(transaction.put(key.into(), value.into(), 0));
        self.transact::<_, WriteError>(work).map(|committed| committed.revision)
    }

    /// Deletes the keys of a range and returns the revision and how many there were.
    pub fn delete(&self, range: &KeyRange) -> Result<(u64, usize), WriteError> {
        let committed = self.transact::<_, WriteError>(|transaction| Ok(transaction.delete(range).len()))?;
        Ok((committed.revision, committed.value))
    }

    /// Waits until everything up to `revision` is on disk; at once for a store in memory.
    ///
    /// All who wait at the same moment share one sync. Fails if the disk does.
    pub async fn synced(&self, revision: u64) -> Result<(), DiskFailure> {
        match &self.inner.disk {
            Some(disk) => disk.synced(revision).await,
            None => Ok(()),
        }
    }

    /// Why the disk takes no writes; `None` if it does, or if there is none.
    pub fn disk_failure(&self) -> Option<DiskFailure> {
        self.inner.disk.as_ref().and_then(Disk::failure)
    }

    /// Waits until the disk takes writes; at once for a store in memory.
    pub async fn writable(&self) {
        if let Some(disk) = &self.inner.disk {
            // The sender lives as long as the store.
            drop(disk.watch().wait_for(Option::is_none).await);
        }
    }

    /// Follows a range from `start_revision` on; 0 means whatever comes next.
    ///
    /// A start in the future delivers nothing before that revision. Costs no memory but the cursor.
    pub fn watch(&self, range: KeyRange, start_revision: u64) -> Watcher {
        Watcher::new(self.clone(), range, start_revision, true)
    }

    /// A watcher that feeds others: the metrics do not count it, nor what it reads.
    pub fn feed(&self, range: KeyRange, start_revision: u64) -> Watcher {
        Watcher::new(self.clone(), range, start_revision, false)
    }

    /// The latest revision as it moves.
    pub fn progress(&self) -> watch::Receiver<u64> {
        self.inner.progress.subscribe()
    }

    /// Forgets what was superseded before `revision`, which stays the oldest one that can be read.
    ///
    /// Fails if the revision is compacted already or in the future. O(events forgotten).
    pub fn compact(&self, revision: u64) -> Result<(), CompactError> {
        let writer = self.inner.writer()?;
        self.compact_locked(&writer, revision)
    }

    /// Ends leases that ran out, compacts by retention, brings quiet writes to disk, and gets a failed disk back, for ever.
    ///
    /// The owner of the store runs it as a task. Without it no lease ever ends by itself, history is bounded only
    /// at twice the retention, and a disk that failed once takes no more writes.
    pub async fn maintain(&self) -> Infallible {
        let mut tick = tokio::time::interval(retention::INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut attempts = None;
        loop {
            tick.tick().await;
            self.expire_leases();
            self.compact_expired();
            let Some(disk) = &self.inner.disk else { continue };
            if disk.failure().is_none() {
                attempts = None;
                disk.request(self.revision());
            } else if attempts.get_or_insert_with(Attempts::new).is_due() {
                let restored = self.restore_disk().await;
                if let (Err(cause), Some(attempts)) = (restored, &mut attempts) {
                    attempts.failed(&cause);
                }
            }
        }
    }

    /// Stops writes, brings everything to disk and notes that it was closed in order.
    ///
    /// Without it a store is as after a crash: whole, but under a new `cluster_id` if the machine reboots before
    /// the next start.
    pub async fn close(&self) -> Result<(), WriteError> {
        let revision = {
            let mut writer = self.inner.writer()?;
            writer.closed = true;
            self.revision()
        };
        self.synced(revision).await?;
        if let Some(disk) = &self.inner.disk {
            disk.close(self.snapshot().compacted())?;
        }
        Ok(())
    }

    /// Bytes that the history holds in memory, roughly.
    pub fn history_bytes(&self) -> usize {
        self.history_size().1
    }

    /// Writes the files of a failed disk anew, away from the tasks of the runtime.
    async fn restore_disk(&self) -> Result<(), disk::RestoreError> {
        let store = self.clone();
        let restored = tokio::task::spawn_blocking(move || match &store.inner.disk {
            Some(disk) => disk.restore(&store.inner),
            None => Ok(()),
        });
        restored.await.unwrap_or_else(|ended| {
            // Or the runtime is ending.
            if ended.is_panic() {
                tracing::error!(error = %ended, "writing the store anew failed, it is tried again");
            }
            Ok(())
        })
    }

    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.inner.counters
    }

    /// Number of revisions in the history, and their bytes.
    pub(crate) fn history_size(&self) -> (usize, usize) {
        self.inner.read(|published| (published.history.len(), published.history.bytes()))
    }
}

impl Inner {
    fn writer(&self) -> Result<MutexGuard<'_, Writer>, WriteError> {
        let writer = self.lock_writer();
        if writer.closed { Err(WriteError::Closed) } else { Ok(writer) }
    }

    fn lock_writer(&self) -> MutexGuard<'_, Writer> {
        // The state is swapped whole, so a panic of another writer leaves nothing half done.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The latest state and the whole history.
    fn everything(&self) -> (Snapshot, Vec<Arc<Batch>>) {
        self.read(|published| {
            let history = published.history.from(0, usize::MAX).cloned().collect();
            (published.snapshot.clone(), history)
        })
    }

    fn read<T>(&self, read: impl FnOnce(&Published) -> T) -> T {
        read(&self.published.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Swaps in a new state. What the old one alone held is freed after the lock is given back.
    fn publish(&self, snapshot: Snapshot, change: impl FnOnce(&mut History)) {
        let mut published = self.published.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut published.snapshot, snapshot);
        change(&mut published.history);
        drop(published);
        drop(old);
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("cluster_id", &format_args!("{:x}", self.cluster_id()))
            .field("revision", &self.revision())
            .finish_non_exhaustive()
    }
}
