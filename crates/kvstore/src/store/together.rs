//! Transactions that are asked for at the same moment are made together: one after another, each at a revision of its own,
//! and handed to the journal in one write.
//!
//! Who asks puts its work on a list and lets everybody else who is ready do the same; then whoever comes first does all of
//! it. Nobody's thread sleeps meanwhile, and a lone writer waits for nobody.

use super::{Changeset, Committed, Need, Store, Transaction, WriteError};
use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// Work that waits for the next turn.
#[derive(Default)]
pub(super) struct Together {
    waiting: Mutex<Vec<Box<dyn Job>>>,
    /// Held by the one who does the work of all.
    turn: tokio::sync::Mutex<()>,
    /// So many do not let others go first.
    hurry: AtomicU32,
}

/// One transaction.
trait Job: Send {
    /// Nobody waits for its outcome any more.
    fn is_forsaken(&self) -> bool;

    /// Does the work and keeps what it returned; false if it failed.
    fn run(&mut self, transaction: &mut Transaction) -> bool;

    /// Tells who asked for it: the revision and whether anything changed, or why nothing did.
    fn end(self: Box<Self>, outcome: Result<(u64, bool), WriteError>);
}

struct Asked<F, T, E> {
    work: Option<F>,
    returned: Option<Result<T, E>>,
    done: oneshot::Sender<Result<Committed<T>, E>>,
}

impl<F, T, E> Job for Asked<F, T, E>
where
    F: FnOnce(&mut Transaction) -> Result<T, E> + Send,
    T: Send,
    E: From<WriteError> + Send,
{
    fn is_forsaken(&self) -> bool {
        self.done.is_closed()
    }

    fn run(&mut self, transaction: &mut Transaction) -> bool {
        self.returned = self.work.take().map(|work| work(transaction));
        matches!(self.returned, Some(Ok(_)))
    }

    fn end(self: Box<Self>, outcome: Result<(u64, bool), WriteError>) {
        let Self { returned, done, .. } = *self;
        let outcome = match (returned, outcome) {
            (Some(Err(refused)), _) => Err(refused),
            (Some(Ok(value)), Ok((revision, changed))) => Ok(Committed { value, revision, changed }),
            (_, Err(error)) => Err(error.into()),
            (None, Ok(_)) => Err(WriteError::Abandoned.into()),
        };
        // Who has left meanwhile does not want to know.
        let _nobody = done.send(outcome);
    }
}

impl Store {
    /// As [`transact`](Self::transact), in one write with all that is asked for at the same moment. Each transaction sees those
    /// before it, and they are shown to readers together.
    ///
    /// If this is dropped, the transaction is either made or not. Must be called within a tokio runtime.
    pub async fn transact_together<T, E>(
        &self,
        work: impl FnOnce(&mut Transaction) -> Result<T, E> + Send + 'static,
    ) -> Result<Committed<T>, E>
    where
        T: Send + 'static,
        E: From<WriteError> + Send + 'static,
    {
        let together = &self.inner.together;
        let (done, mut outcome) = oneshot::channel();
        together.waiting().push(Box::new(Asked { work: Some(work), returned: None, done }));
        together.others_first().await;
        if let Ok(outcome) = outcome.try_recv() {
            return outcome;
        }
        let turn = together.turn.lock().await;
        let jobs = std::mem::take(&mut *together.waiting());
        self.run_together(jobs);
        drop(turn);
        // Lost only with a panic of another one's work.
        outcome.await.unwrap_or_else(|_lost| Err(WriteError::Abandoned.into()))
    }

    fn run_together(&self, mut jobs: Vec<Box<dyn Job>>) {
        jobs.retain(|job| !job.is_forsaken());
        if jobs.is_empty() {
            return;
        }
        let writer = match self.begin(Need::Durable) {
            Ok(writer) => writer,
            Err(error) => return jobs.into_iter().for_each(|job| job.end(Err(error.clone()))),
        };
        let mut changes = Changeset::on(self.snapshot());
        let mut outcomes = Vec::with_capacity(jobs.len());
        for job in &mut jobs {
            let mut transaction = Transaction::new(changes.snapshot.clone());
            let made = job.run(&mut transaction);
            // What a failed one has done is forgotten with it.
            outcomes.push(if made { changes.add(transaction) } else { (0, false) });
        }
        let made = self.make(&writer, Need::Durable, changes);
        drop(writer);
        // One that changed nothing may have seen what was not made.
        for (job, outcome) in jobs.into_iter().zip(outcomes) {
            job.end(made.clone().map(|()| outcome));
        }
    }
}

impl Together {
    /// Lets those who are ready to ask do so; not if that has taken long lately, since others kept the threads busy.
    async fn others_first(&self) {
        let hurry = self.hurry.load(Ordering::Relaxed);
        if hurry > 0 {
            self.hurry.store(hurry - 1, Ordering::Relaxed);
            return;
        }
        let begun = Instant::now();
        tokio::task::yield_now().await;
        if begun.elapsed() > LONG {
            self.hurry.store(HURRIED, Ordering::Relaxed);
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Box<dyn Job>>> {
        // Each change is whole, so a panic elsewhere leaves nothing half done.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Longer than dozens of writers take to ask.
const LONG: Duration = Duration::from_millis(2);
/// Then it is tried again.
const HURRIED: u32 = 63;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{range::KeyRange, store::StoreOptions};
    use futures_util::{FutureExt, future::join_all};

    fn put(key: &'static str) -> impl FnOnce(&mut Transaction) -> Result<u64, WriteError> + Send {
        move |transaction| {
            let seen = transaction.snapshot().range(&KeyRange::all()).count() as u64;
            transaction.put(key.into(), key.into(), 0);
            if key == "refused" { Err(WriteError::Closed) } else { Ok(seen) }
        }
    }

    #[tokio::test]
    async fn each_has_a_revision_and_sees_those_before_it() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let store = Store::open(directory.path(), StoreOptions::default()).expect("open");
        let begun = store.revision();
        let keys = ["a", "b", "refused", "c"];
        let made = join_all(keys.map(|key| store.transact_together(put(key)))).await;
        let made: Vec<_> =
            made.iter().map(|made| made.as_ref().map(|made| (made.value, made.revision)).ok()).collect();
        assert_eq!(made, [Some((0, begun + 1)), Some((1, begun + 2)), None, Some((2, begun + 3))]);
        assert_eq!(store.snapshot().range(&KeyRange::all()).count(), 3);
        store.synced(begun + 3).await.expect("a sound disk");
        drop(store);
        let store = Store::open(directory.path(), StoreOptions::default()).expect("open again");
        let found = store.snapshot();
        let revisions: Vec<u64> = found.range(&KeyRange::all()).map(|entry| entry.mod_revision).collect();
        assert_eq!((revisions, store.revision()), (vec![begun + 1, begun + 2, begun + 3], begun + 3));
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_not_done_later() {
        let store = Store::in_memory(StoreOptions::default());
        let begun = store.revision();
        let mut left = Box::pin(store.transact_together(put("left")));
        assert!((&mut left).now_or_never().is_none(), "it lets others ask first");
        drop(left);
        let made = store.transact_together(put("stayed")).await.expect("made");
        assert_eq!((made.value, made.revision), (0, begun + 1));
    }

    #[tokio::test]
    async fn all_are_refused_while_the_disk_takes_no_writes() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let store = Store::open(directory.path(), StoreOptions::default()).expect("open");
        store.inner.disk.as_ref().expect("a disk").fail_for_a_test();
        let before = store.revision();
        let made = join_all(["a", "b"].map(|key| store.transact_together(put(key)))).await;
        assert!(made.iter().all(|made| matches!(made, Err(WriteError::Disk(_)))), "{made:?}");
        assert_eq!(store.revision(), before);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn from_many_tasks_every_one_is_made_once() {
        let store = Store::in_memory(StoreOptions::default());
        let begun = store.revision();
        let tasks: Vec<_> = (0..200)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move { store.transact_together(put("k")).await })
            })
            .collect();
        let mut revisions = Vec::new();
        for task in tasks {
            revisions.push(task.await.expect("no panic").expect("made").revision);
        }
        revisions.sort_unstable();
        assert_eq!(revisions, (begun + 1..=begun + 200).collect::<Vec<_>>());
    }
}
