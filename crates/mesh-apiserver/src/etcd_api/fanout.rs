//! Events for many watchers: encoded once, handed out in waves.
//!
//! ```text
//!   Store ─> pacer: wave ─> Group (range, filters) ─> Chunk: encoded events, shared by all its watches
//!                                 └─> wakes the streams that watch it, and no others
//! ```
//! What a delivery costs is a wake-up, a TLS record and a write, whatever it carries. So the first change after a
//! quiet time goes out at once, and the next ones wait for the next wave, the longer the more streams the last one woke;
//! if they were few, not at all; and longer still while waves to many streams carry hardly anything. A watch that is not where the others are (it starts in the past, or its client reads slowly)
//! reads the store's history by itself until it has caught up.

mod group;
mod wave;

pub(super) use group::{Filters, Kind, Next, Subscription};

use group::Group;
use kvstore::{KeyRange, Store, Watcher};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Notify, task::JoinSet};

/// Shared by all watch streams of a store.
#[derive(Debug)]
pub(super) struct Fanout {
    state: Mutex<State>,
    /// Every event up to this revision is in its groups.
    reached: AtomicU64,
}

#[derive(Debug)]
struct State {
    /// Reads every event once.
    watcher: Watcher,
    groups: HashMap<Kind, Arc<Group>>,
}

/// Keeps the waves coming; they end when it is dropped.
#[derive(Debug)]
pub(super) struct Pacer {
    _task: JoinSet<()>,
}

impl Fanout {
    /// Begins at the store's latest revision.
    pub(super) fn new(store: &Store) -> Self {
        let watcher = store.feed(KeyRange::all(), 0);
        let reached = AtomicU64::new(watcher.next_revision() - 1);
        Self { state: Mutex::new(State { watcher, groups: HashMap::new() }), reached }
    }

    /// Every event up to this revision has been handed out. Watches read no further.
    pub(super) fn reached(&self) -> u64 {
        self.reached.load(Ordering::Acquire)
    }

    /// Joins the group of a kind of watch; `wake` is told of each of its chunks.
    pub(super) fn subscribe(self: &Arc<Self>, kind: Kind, wake: &Arc<Notify>) -> Subscription {
        let mut state = self.state();
        let reached = self.reached();
        let group = state.groups.entry(kind.clone()).or_insert_with(|| Arc::new(Group::new(kind, reached)));
        Subscription::new(self.clone(), group.clone(), wake)
    }

    /// Hands out everything up to the latest revision, and returns how many streams it woke.
    pub(super) fn wave(&self) -> usize {
        let wakes = self.hand_out();
        wakes.iter().for_each(|wake| wake.notify_one());
        wakes.len()
    }

    /// Hands out everything up to the latest revision, and returns whom to wake.
    fn hand_out(&self) -> Vec<Arc<Notify>> {
        let mut state = self.state();
        let State { watcher, groups } = &mut *state;
        let touched = wave::run(watcher, groups.values(), |revision| {
            self.reached.store(revision, Ordering::Release);
        });
        drop(state);
        touched.iter().flat_map(|group| group.wakes()).collect()
    }

    /// Forgets a group that nobody is in any more.
    fn leave(&self, group: &Arc<Group>) {
        let mut state = self.state();
        if group.is_empty() {
            // Another group of this kind may have taken its place.
            if state.groups.get(group.kind()).is_some_and(|known| Arc::ptr_eq(known, group)) {
                state.groups.remove(group.kind());
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A wave that panicked has at most left out events, and then watches read the history.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pacer {
    /// Begins the waves; `after` runs after each. Must be called within a tokio runtime.
    pub(super) fn start(fanout: Arc<Fanout>, store: &Store, after: impl Fn() + Send + 'static) -> Self {
        let mut progress = store.progress();
        let mut task = JoinSet::new();
        task.spawn(async move {
            // The sender lives as long as the store, which the watcher of the fan-out holds.
            while progress.changed().await.is_ok() {
                let before = fanout.reached();
                let wakes = fanout.hand_out();
                let revisions = fanout.reached().saturating_sub(before);
                for some in wakes.chunks(AT_ONCE) {
                    some.iter().for_each(|wake| wake.notify_one());
                    // They are served before the next ones are woken, and so is whoever came meanwhile: a put does
                    // not wait for the whole wave.
                    tokio::task::yield_now().await;
                }
                after();
                match pause(wakes.len(), revisions) {
                    Some(pause) => tokio::time::sleep(pause).await,
                    // Whoever was woken comes first, and so do the puts that have come meanwhile.
                    None => tokio::task::yield_now().await,
                }
            }
        });
        Self { _task: task }
    }
}

/// Time until the next wave, so that streams keep up with it: they share the machine with everything else.
///
/// Deliveries take half a core at most. Those to many streams that carry a revision or two are hardly worth their cost, so
/// they take a quarter: 500 streams are told of 50 changes a second in about 30 waves.
fn pause(woken: usize, revisions: u64) -> Option<Duration> {
    let streams = u32::try_from(woken).unwrap_or(u32::MAX);
    let (per_stream, longest) = match woken > MANY && revisions <= HARDLY_ANY {
        true => (2 * PER_STREAM, 2 * LONGEST),
        false => (PER_STREAM, LONGEST),
    };
    (woken > FEW).then(|| per_stream.saturating_mul(streams).clamp(SHORTEST, longest))
}

/// Streams that are never made to wait: what a wave to them costs is little beside the put that caused it.
const FEW: usize = 4;
/// Streams whose deliveries weigh on a machine even at a few dozen changes a second.
const MANY: usize = 256;
/// Revisions in a wave that carries little.
const HARDLY_ANY: u64 = 2;
/// Streams that are woken in one go.
const AT_ONCE: usize = 128;
/// Somewhat more than the processor time that one delivery over TLS takes.
const PER_STREAM: Duration = Duration::from_micros(32);
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests;
