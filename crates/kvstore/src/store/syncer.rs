//! One thread that brings the journal to disk, for all who wait together.
//!
//! While a sync is under way, new demands gather for the next one. Those who were served together are likely to come
//! back together, so the thread waits a moment for as many as the last time before it syncs again: a sync costs the
//! same for one as for all. A lone writer is never kept waiting.

use super::journal::{Journal, JournalError};
use std::{
    collections::BinaryHeap,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio::{runtime::Handle, sync::oneshot};
use tracing::error;

/// Runs syncs on demand.
pub(crate) struct Syncer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    journal: Arc<Journal>,
    /// Latest revision in the journal.
    appended: AtomicU64,
    /// Latest revision on disk.
    synced: AtomicU64,
    demand: Mutex<Demand>,
    wake: Condvar,
}

#[derive(Default)]
struct Demand {
    /// The latest revision that is wanted on disk.
    revision: u64,
    /// The one that wants the least first.
    waiters: BinaryHeap<Waiter>,
    /// Where the one who came first waits.
    runtime: Option<Handle>,
    /// Wake the thread when so many wait.
    gather: usize,
    /// The thread has ended, or is to end.
    stop: bool,
}

struct Waiter {
    revision: u64,
    done: oneshot::Sender<()>,
}

/// Those whose revision is on disk; they are told when it is dropped.
struct Served(Vec<Waiter>);

/// The sync that was waited for did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotSynced;

impl Syncer {
    /// Starts the thread; everything up to `revision` is on disk already. `failed` is told why the thread ended early.
    pub(crate) fn start(
        journal: Arc<Journal>,
        revision: u64,
        failed: impl FnOnce(JournalError) + Send + 'static,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            journal,
            appended: AtomicU64::new(revision),
            synced: AtomicU64::new(revision),
            demand: Mutex::default(),
            wake: Condvar::new(),
        });
        let of_thread = shared.clone();
        let body = move || {
            let ended = of_thread.run();
            // First the reason, then those who will ask for it.
            if let Err(cause) = ended {
                failed(cause);
            }
            of_thread.stop();
        };
        let thread = std::thread::Builder::new().name("store-sync".into()).spawn(body)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Notes that the journal holds `revision`.
    pub(crate) fn appended(&self, revision: u64) {
        self.shared.appended.store(revision, Ordering::Release);
    }

    /// Asks for a sync without waiting for it.
    pub(crate) fn request(&self, revision: u64) {
        let mut demand = self.shared.demand();
        demand.revision = demand.revision.max(revision);
        drop(demand);
        self.shared.wake.notify_one();
    }

    /// Waits until `revision` is on disk. Who waits keeps nothing open.
    pub(crate) fn synced(&self, revision: u64) -> impl Future<Output = Result<(), NotSynced>> + use<> {
        let turn = self.turn(revision);
        async move {
            match turn? {
                Some(outcome) => outcome.await.map_err(|_dropped| NotSynced),
                None => Ok(()),
            }
        }
    }

    /// Asks for a sync, and for word of it; `None` if it has been made.
    fn turn(&self, revision: u64) -> Result<Option<oneshot::Receiver<()>>, NotSynced> {
        let is_synced = || self.shared.synced.load(Ordering::Acquire) >= revision;
        if is_synced() {
            return Ok(None);
        }
        let mut demand = self.shared.demand();
        // Once more: a sync that has ended since has told its waiters already, and there need not be another one.
        if is_synced() {
            return Ok(None);
        }
        if demand.stop {
            return Err(NotSynced);
        }
        let (done, outcome) = oneshot::channel();
        demand.revision = demand.revision.max(revision);
        if demand.waiters.is_empty() {
            demand.runtime = Handle::try_current().ok();
        }
        demand.waiters.push(Waiter { revision, done });
        if demand.waiters.len() >= demand.gather {
            self.shared.wake.notify_one();
        }
        Ok(Some(outcome))
    }
}

impl Shared {
    fn demand(&self) -> MutexGuard<'_, Demand> {
        // Every change is whole, so a panic of another holder leaves nothing half done.
        self.demand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Syncs until it is to stop. Fails when the disk does.
    fn run(&self) -> Result<(), JournalError> {
        let mut group = 1;
        while self.wait(group) {
            let revision = self.appended.load(Ordering::Acquire);
            self.journal.sync()?;
            self.synced.store(revision, Ordering::Release);
            group = self.serve(revision);
        }
        Ok(())
    }

    /// Waits until there is something to sync and, for a moment, for a group as large as the last one. False at the end.
    fn wait(&self, group: usize) -> bool {
        let mut demand = self.demand();
        demand.gather = group;
        let mut patience = None;
        loop {
            if demand.stop {
                return false;
            }
            let is_due = demand.revision > self.synced.load(Ordering::Acquire);
            if is_due && demand.waiters.len() >= group {
                return true;
            }
            demand = if is_due {
                let until = *patience.get_or_insert_with(|| Instant::now() + PATIENCE);
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() || demand.waiters.is_empty() {
                    return true;
                }
                let waited = self.wake.wait_timeout(demand, left);
                waited.unwrap_or_else(PoisonError::into_inner).0
            } else {
                demand.gather = 1;
                let mut woken = self.wake.wait(demand).unwrap_or_else(PoisonError::into_inner);
                woken.gather = group;
                woken
            };
        }
    }

    /// Tells those whose revision is on disk, and returns how many they were.
    fn serve(&self, revision: u64) -> usize {
        let mut demand = self.demand();
        let mut served = Vec::with_capacity(demand.waiters.len());
        while demand.waiters.peek().is_some_and(|waiter| waiter.revision <= revision) {
            served.extend(demand.waiters.pop());
        }
        let runtime = demand.runtime.clone();
        drop(demand);
        let (count, served) = (served.len(), Served(served));
        // To wake many from within their runtime costs a fraction of what it does from this thread. A runtime that ends
        // drops what it was given, and a lone waiter is woken at once.
        if let Some(runtime) = runtime.filter(|_| count > 1) {
            runtime.spawn(async move { drop(served) });
        }
        count
    }

    /// Lets nobody wait for ever.
    fn stop(&self) {
        let mut demand = self.demand();
        demand.stop = true;
        demand.waiters.clear();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        for waiter in self.0.drain(..) {
            // One who no longer waits needs no answer.
            let _nobody = waiter.done.send(());
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.shared.demand().stop = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the sync thread panicked");
        }
    }
}

impl PartialEq for Waiter {
    fn eq(&self, other: &Self) -> bool {
        self.revision == other.revision
    }
}

impl Eq for Waiter {}

impl PartialOrd for Waiter {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiter {
    /// Backwards, since the heap gives its greatest first.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.revision.cmp(&self.revision)
    }
}

/// The longest wait for the others of a group; a few times what a sync takes.
const PATIENCE: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_who_asks_while_a_sync_ends_is_told() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let journal = Arc::new(Journal::open(directory.path()).expect("open"));
        let syncer = Arc::new(Syncer::start(journal, 1, drop).expect("thread"));
        for revision in 2..500 {
            syncer.appended(revision);
            let demand = syncer.shared.demand();
            let (asking, asks) = std::sync::mpsc::channel();
            let asked = tokio::spawn({
                let syncer = syncer.clone();
                async move {
                    asking.send(()).expect("listened to");
                    syncer.synced(revision).await
                }
            });
            asks.recv().expect("asks");
            std::thread::yield_now();
            // A sync ends, with nobody to tell.
            syncer.shared.synced.store(revision, Ordering::Release);
            drop(demand);
            let told = tokio::time::timeout(Duration::from_secs(10), asked).await;
            assert!(matches!(told, Ok(Ok(Ok(())))), "revision {revision}: {told:?}");
        }
    }
}
