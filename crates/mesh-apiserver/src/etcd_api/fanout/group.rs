//! Watches that are sent the same events.

use super::{super::view::View, Fanout};
use bytes::Bytes;
use kvstore::{Event, EventKind, KeyRange};
use std::{
    borrow::Cow,
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::Notify;

/// What decides about the events of a watch and how they are written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in super::super) struct Kind {
    pub(in super::super) range: KeyRange,
    pub(in super::super) filters: Filters,
    /// What its peer sees; `None` is everything.
    pub(in super::super) view: Option<View>,
}

impl Kind {
    /// An event of the range as these watches are told of it; `None` if they are not.
    pub(in super::super) fn told<'a>(&self, event: &'a Event) -> Option<Cow<'a, Event>> {
        let event = match &self.view {
            None => Cow::Borrowed(event),
            Some(view) => Cow::Owned(view.event(event)?),
        };
        self.filters.keep(&event).then_some(event)
    }
}

/// Which events a watch wants, and whether with the version before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in super::super) struct Filters {
    pub(in super::super) puts: bool,
    pub(in super::super) deletes: bool,
    pub(in super::super) previous: bool,
}

impl Filters {
    /// Whether the watch wants an event of its range.
    fn keep(&self, event: &Event) -> bool {
        match event.kind {
            EventKind::Put => self.puts,
            EventKind::Delete => self.deletes,
        }
    }
}

/// Watches of one kind.
#[derive(Debug)]
pub(super) struct Group {
    kind: Kind,
    streams: Mutex<Streams>,
    recent: Mutex<Recent>,
    /// The last revision of the last chunk; at first the revision that was reached when the group began.
    touched: AtomicU64,
}

/// The streams to wake, by slot.
#[derive(Debug, Default)]
struct Streams {
    wakes: HashMap<u64, Arc<Notify>>,
    next_slot: u64,
}

/// The last few chunks, oldest first.
#[derive(Debug, Default)]
struct Recent {
    chunks: VecDeque<Arc<Chunk>>,
    bytes: usize,
}

/// Encoded events of the group in `(after, last]`.
#[derive(Debug)]
pub(in super::super) struct Chunk {
    /// The group has no event between this revision and `first`.
    after: u64,
    /// Revision of the first event.
    first: u64,
    /// Everything up to here is in this chunk or in earlier ones.
    pub(in super::super) last: u64,
    pub(in super::super) events: usize,
    /// `events` fields of a `WatchResponse`.
    pub(in super::super) body: Bytes,
}

/// How a watch gets on.
#[derive(Debug)]
pub(in super::super) enum Next {
    /// By this chunk, whole.
    Chunk(Arc<Chunk>),
    /// There is nothing for it up to what was reached.
    Nothing,
    /// By reading the history: it is in the midst of a chunk, or before those that are kept.
    History,
}

impl Group {
    pub(super) fn new(kind: Kind, reached: u64) -> Self {
        let (streams, recent) = (Mutex::default(), Mutex::default());
        Self { kind, streams, recent, touched: AtomicU64::new(reached) }
    }

    pub(super) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Adds a chunk with the events of revisions from `first` to `last`.
    pub(super) fn push(&self, first: u64, last: u64, events: usize, body: Bytes) {
        let mut recent = lock(&self.recent);
        let after = self.touched.swap(last, Ordering::AcqRel);
        recent.bytes += body.len();
        recent.chunks.push_back(Arc::new(Chunk { after, first, last, events, body }));
        while recent.chunks.len() > CHUNKS || (recent.bytes > CHUNKS_BYTES && recent.chunks.len() > 1) {
            let Some(oldest) = recent.chunks.pop_front() else { break };
            recent.bytes -= oldest.body.len();
        }
    }

    /// Notes that events up to `last` are not in any chunk: watches have to read the history.
    pub(super) fn gap(&self, last: u64) {
        let mut recent = lock(&self.recent);
        self.touched.store(last, Ordering::Release);
        *recent = Recent::default();
    }

    /// How to wake each of its streams.
    pub(super) fn wakes(&self) -> Vec<Arc<Notify>> {
        lock(&self.streams).wakes.values().cloned().collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        lock(&self.streams).wakes.is_empty()
    }
}

/// One watch in its group; it leaves when dropped.
#[derive(Debug)]
pub(in super::super) struct Subscription {
    fanout: Arc<Fanout>,
    group: Arc<Group>,
    slot: u64,
}

impl Subscription {
    pub(super) fn new(fanout: Arc<Fanout>, group: Arc<Group>, wake: &Arc<Notify>) -> Self {
        let mut streams = lock(&group.streams);
        let slot = streams.next_slot;
        streams.next_slot += 1;
        streams.wakes.insert(slot, wake.clone());
        drop(streams);
        Self { fanout, group, slot }
    }

    pub(in super::super) fn kind(&self) -> &Kind {
        &self.group.kind
    }

    /// How to get on from revision `next`, all before it being delivered, up to `reached`.
    ///
    /// A chunk is there before its revisions count as reached: other groups, that of the filters among them, may not have
    /// theirs yet.
    pub(in super::super) fn next(&self, next: u64, reached: u64) -> Next {
        if next > self.group.touched.load(Ordering::Acquire) {
            return Next::Nothing;
        }
        let recent = lock(&self.group.recent);
        let chunk = recent.chunks.iter().find(|chunk| chunk.after < next && next <= chunk.first);
        match chunk {
            Some(chunk) if chunk.last > reached => Next::Nothing,
            Some(chunk) => Next::Chunk(chunk.clone()),
            None => Next::History,
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut streams = lock(&self.group.streams);
        streams.wakes.remove(&self.slot);
        let is_last = streams.wakes.is_empty();
        drop(streams);
        if is_last {
            self.fanout.leave(&self.group);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is whole, so a panic of another holder leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Chunks that a group keeps for streams that were not fast enough; later ones read the history.
const CHUNKS: usize = 8;
const CHUNKS_BYTES: usize = 2 << 20;
