//! One watch of a stream: where it is, and what comes next.

use super::{
    super::{
        fanout::{Fanout, Next, Subscription},
        room::WatchPlace,
    },
    event::put_event,
};
use bytes::{Bytes, BytesMut};
use kvstore::{KeyRange, Watcher, store::Compacted};
use std::time::Duration;
use tokio::time::Instant;

/// A watch. It holds a cursor, and shares events with the watches of its kind while it is where they are.
#[derive(Debug)]
pub(super) struct Watching {
    watcher: Watcher,
    subscription: Subscription,
    /// Since when what its peer sees is what it sees.
    since: u64,
    fragment: bool,
    /// A new watch looks into the history first, where it may find that its start is compacted.
    is_new: bool,
    /// When to tell the client how far it is, if nothing else is sent; `None` if it did not ask.
    progress_due: Option<Instant>,
    _place: WatchPlace,
}

/// How the client wants to be told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    /// In fragments, where a piece is long.
    pub(super) fragment: bool,
    /// How far the watch is, when nothing happens.
    pub(super) progress: bool,
}

/// What a look for events found.
#[derive(Debug)]
pub(super) enum Found {
    /// At least one event.
    Piece(Piece),
    /// There are none up to what the fan-out has reached.
    Nothing,
    /// None in a stretch of the history; there is more of it.
    More,
    /// It has to read the history, and there is no room for what may be there.
    NoRoom,
}

/// Encoded events of whole revisions.
#[derive(Debug)]
pub(super) struct Piece {
    /// `events` fields of a `WatchResponse`, in one part or, for a watch that takes fragments, in several.
    pub(super) bodies: Vec<Bytes>,
    /// Nothing unsent of this watch lies at or before this revision.
    pub(super) revision: u64,
}

impl Watching {
    /// `since` is the revision since when the subscription's view counts for the peer.
    pub(super) fn new(
        watcher: Watcher,
        subscription: Subscription,
        since: u64,
        place: WatchPlace,
        told: Told,
    ) -> Self {
        let progress_due = told.progress.then(|| Instant::now() + PROGRESS_INTERVAL);
        let fragment = told.fragment;
        Self { watcher, subscription, since, fragment, is_new: true, progress_due, _place: place }
    }

    /// The watched range.
    pub(super) fn range(&self) -> &KeyRange {
        &self.subscription.kind().range
    }

    /// Whether a filter that counts since `since` is another one than this watch sees through.
    pub(super) fn is_outdated(&self, since: u64) -> bool {
        since > self.since
    }

    /// The next events. Reads one stretch of the history at most: a long one without events of ours would keep everybody
    /// else waiting. Asks `has_room` before.
    pub(super) fn next(
        &mut self,
        fanout: &Fanout,
        has_room: impl FnOnce() -> bool,
    ) -> Result<Found, Compacted> {
        let reached = fanout.reached();
        if self.watcher.next_revision() > reached {
            return Ok(Found::Nothing);
        }
        let piece = match self.subscription.next(self.watcher.next_revision(), reached) {
            Next::Nothing if !self.is_new => {
                self.watcher.skip_to(reached + 1);
                None
            }
            // Fragments are cut at events, so they take the events one by one.
            Next::Chunk(chunk) if !(self.is_new || self.fragment && chunk.body.len() > FRAGMENT_BYTES) => {
                self.watcher.skip_to(chunk.last + 1);
                self.watcher.delivered(chunk.events);
                Some(Piece { bodies: vec![chunk.body.clone()], revision: chunk.last })
            }
            Next::Nothing | Next::Chunk(_) | Next::History => {
                if !has_room() {
                    return Ok(Found::NoRoom);
                }
                self.read_history(reached)?
            }
        };
        self.is_new = false;
        if let (Some(_), Some(due)) = (&piece, &mut self.progress_due) {
            *due = Instant::now() + PROGRESS_INTERVAL;
        }
        Ok(match piece {
            Some(piece) => Found::Piece(piece),
            None if self.watcher.next_revision() <= reached => Found::More,
            None => Found::Nothing,
        })
    }

    /// The revision up to which everything has been delivered.
    pub(super) fn delivered(&self) -> u64 {
        self.watcher.next_revision().saturating_sub(1)
    }

    /// When [`take_progress`](Self::take_progress) will have something.
    pub(super) fn progress_due(&self) -> Option<Instant> {
        self.progress_due
    }

    /// Whether it is time to tell the client how far it is.
    pub(super) fn take_progress(&mut self) -> bool {
        match &mut self.progress_due {
            Some(due) if *due <= Instant::now() => {
                *due += PROGRESS_INTERVAL;
                true
            }
            _ => false,
        }
    }

    fn read_history(&mut self, reached: u64) -> Result<Option<Piece>, Compacted> {
        let Some(changes) = self.watcher.take_until(reached)? else { return Ok(None) };
        let kind = self.subscription.kind();
        let (mut bodies, mut body) = (Vec::new(), BytesMut::new());
        for event in changes.events.iter().filter_map(|event| kind.told(event)) {
            let before = body.len();
            put_event(&event, kind.filters.previous, &mut body);
            if self.fragment && before > 0 && body.len() > FRAGMENT_BYTES {
                let over = body.split_off(before);
                bodies.push(std::mem::replace(&mut body, over).freeze());
            }
        }
        if !body.is_empty() {
            bodies.push(body.freeze());
        }
        Ok((!bodies.is_empty()).then_some(Piece { bodies, revision: changes.revision }))
    }
}

/// etcd's interval.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(600);
/// etcd's `--max-request-bytes`, its size of a fragment.
const FRAGMENT_BYTES: usize = 3 << 19;

#[cfg(test)]
mod tests {
    use super::{
        super::super::{
            fanout::{Filters, Kind},
            room::{Room, SharedRoom},
        },
        *,
    };
    use crate::etcd_api::Limits;
    use kvstore::{Store, StoreOptions};
    use std::sync::Arc;

    #[test]
    fn a_long_history_of_others_is_read_in_stretches_and_not_without_room() {
        let store = Store::in_memory(StoreOptions::default());
        for _ in 0..2000 {
            store.put("other", "v").expect("put");
        }
        let (fanout, range) = (Arc::new(Fanout::new(&store)), KeyRange::key("k"));
        let filters = Filters { puts: true, deletes: true, previous: false };
        let place = Room::new(SharedRoom::default(), &Limits::default()).watch(&range, filters);
        let kind = Kind { range: range.clone(), filters, view: None };
        let subscription = fanout.subscribe(kind, &Arc::default());
        let told = Told { fragment: false, progress: false };
        let place = place.expect("there is room");
        let mut watch = Watching::new(store.watch(range, 2), subscription, 0, place, told);
        assert!(matches!(watch.next(&fanout, || false), Ok(Found::NoRoom)));
        let found = (0..10).map(|_| watch.next(&fanout, || true).expect("nothing is compacted"));
        let stretches = found.take_while(|found| matches!(found, Found::More)).count();
        assert!(stretches > 0 && watch.delivered() == 2001, "{stretches} up to {}", watch.delivered());
        assert!(matches!(watch.next(&fanout, || false), Ok(Found::Nothing)));
    }
}
