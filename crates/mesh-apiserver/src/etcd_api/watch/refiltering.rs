//! Changes of peers' filters, as a watch stream learns of them.

use super::super::fanout::{Fanout, Filters, Kind, Next, Subscription};
use crate::peer_filters::in_force::FILTERS;
use kvstore::KeyRange;
use std::sync::Arc;
use tokio::sync::Notify;

/// Watches the filters in the store for one stream. They come by the same fan-out as the events: what was handed out up
/// to a revision tells of all filters up to it.
#[derive(Debug)]
pub(super) struct Refiltering {
    subscription: Subscription,
    /// Changes up to this revision were told.
    seen: u64,
}

impl Refiltering {
    /// Wakes the stream when a filter changes.
    pub(super) fn new(fanout: &Arc<Fanout>, wake: &Arc<Notify>) -> Self {
        let seen = fanout.reached();
        let filters = Filters { puts: true, deletes: true, previous: false };
        let kind = Kind { range: KeyRange::prefix(FILTERS), filters, view: None };
        Self { subscription: fanout.subscribe(kind, wake), seen }
    }

    /// Whether some peer's filter may have changed since it was last asked. One atomic load if not.
    pub(super) fn take_change(&mut self, fanout: &Fanout) -> bool {
        // Before the look: what comes meanwhile is told next time.
        let reached = fanout.reached();
        let changed = !matches!(self.subscription.next(self.seen + 1, reached), Next::Nothing);
        self.seen = self.seen.max(reached);
        changed
    }
}
