//! One thread that brings the journal to disk, for all who wait together.

use super::journal::Journal;
use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};
use tokio::sync::watch;
use tracing::error;

/// Runs syncs on demand: while one is under way, all new demands wait for the next one together.
pub(crate) struct Syncer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    journal: Arc<Journal>,
    /// Latest revision in the journal.
    appended: AtomicU64,
    demand: Mutex<Demand>,
    wake: Condvar,
    /// Latest revision on disk.
    synced: watch::Sender<u64>,
    failed: AtomicBool,
}

#[derive(Default)]
struct Demand {
    revision: u64,
    stop: bool,
}

/// A sync failed: what the disk holds is not known, so nothing more is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an earlier sync to disk failed, the store must be opened anew")]
pub struct SyncFailed;

impl Syncer {
    /// Starts the thread; everything up to `revision` is on disk already.
    pub(crate) fn start(journal: Arc<Journal>, revision: u64) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            journal,
            appended: AtomicU64::new(revision),
            demand: Mutex::default(),
            wake: Condvar::new(),
            synced: watch::Sender::new(revision),
            failed: AtomicBool::new(false),
        });
        let of_thread = shared.clone();
        let thread = std::thread::Builder::new().name("store-sync".into()).spawn(move || of_thread.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Notes that the journal holds `revision`.
    pub(crate) fn appended(&self, revision: u64) {
        self.shared.appended.store(revision, Ordering::Release);
    }

    /// Asks for a sync without waiting for it.
    pub(crate) fn request(&self, revision: u64) {
        let mut demand = self.shared.demand.lock().unwrap_or_else(PoisonError::into_inner);
        demand.revision = demand.revision.max(revision);
        self.shared.wake.notify_one();
    }

    /// Waits until `revision` is on disk. Waiters of the same moment share one sync.
    pub(crate) async fn synced(&self, revision: u64) -> Result<(), SyncFailed> {
        let mut synced = self.shared.synced.subscribe();
        if *synced.borrow() < revision {
            self.request(revision);
        }
        let reached = |synced: &u64| *synced >= revision || self.has_failed();
        synced.wait_for(reached).await.map_err(|_closed| SyncFailed)?;
        if *self.shared.synced.borrow() >= revision { Ok(()) } else { Err(SyncFailed) }
    }

    /// Whether a sync has failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.shared.failed.load(Ordering::Acquire)
    }
}

impl Shared {
    fn run(&self) {
        loop {
            let mut demand = self.demand.lock().unwrap_or_else(PoisonError::into_inner);
            while demand.revision <= *self.synced.borrow() && !demand.stop {
                demand = self.wake.wait(demand).unwrap_or_else(PoisonError::into_inner);
            }
            if demand.stop {
                return;
            }
            drop(demand);
            let revision = self.appended.load(Ordering::Acquire);
            if let Err(cause) = self.journal.sync() {
                error!(error = ?cause, revision, "sync to disk failed: no more writes are accepted");
                self.failed.store(true, Ordering::Release);
                self.synced.send_modify(|_| {});
                return;
            }
            self.synced.send_replace(revision);
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.shared.demand.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the sync thread panicked");
        }
    }
}
