//! How much a connection may have asked for that it has not read yet.

use http::Extensions;
use kvstore::proto::etcdserverpb::RangeRequest;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Room for the lists of one connection. A client that asks for many and reads none waits for itself: its further
/// lists are not even looked for.
#[derive(Clone, Debug)]
pub(super) struct Room {
    records: Arc<Semaphore>,
}

/// Room that a list takes until it has been handed to the connection.
pub(super) type Taken = Option<OwnedSemaphorePermit>;

impl Default for Room {
    fn default() -> Self {
        Self { records: Arc::new(Semaphore::new(RECORDS as usize)) }
    }
}

impl Room {
    /// The room of a request's connection.
    pub(super) fn of(extensions: &Extensions) -> Self {
        extensions.get::<Self>().cloned().unwrap_or_default()
    }

    /// Waits for the room that a request needs: a list without a limit needs all there is.
    pub(super) async fn take(&self, request: &RangeRequest) -> Taken {
        // The semaphore is never closed.
        self.records.clone().acquire_many_owned(records(request)).await.ok()
    }
}

fn records(request: &RangeRequest) -> u32 {
    if request.range_end.is_empty() || request.count_only {
        return 1;
    }
    match request.limit {
        ..=0 => RECORDS,
        limit => u32::try_from(limit).unwrap_or(RECORDS).min(RECORDS),
    }
}

/// Records on the way to one connection: dozens of pages as clients ask for them, or one whole list.
const RECORDS: u32 = 32 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn whole_lists_go_one_by_one_and_pages_together() {
        let room = Room::default();
        let list = |limit| RangeRequest { range_end: "b".into(), limit, ..RangeRequest::default() };
        let pages: Vec<Taken> = (0..65).filter_map(|_| room.take(&list(500)).now_or_never()).collect();
        assert_eq!(pages.len(), 65);
        assert!(room.take(&list(500)).now_or_never().is_none(), "the next page waits");
        assert!(room.take(&RangeRequest::default()).now_or_never().is_some(), "a single key does not");
        drop(pages);
        for limit in [0, -1, i64::MAX] {
            let whole = room.take(&list(limit)).now_or_never().expect("there is room");
            assert!(room.take(&list(1)).now_or_never().is_none());
            drop(whole);
        }
    }
}
