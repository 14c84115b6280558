//! Encoded pages of lists, kept for a moment: clients that start together ask for the same ones.

use super::view::View;
use bytes::Bytes;
use kvstore::proto::etcdserverpb::RangeRequest;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// The latest pages. What is at a revision never changes, so a page is never wrong, only forgotten.
#[derive(Debug, Default)]
pub(super) struct Pages {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    pages: HashMap<Page, Bytes>,
    /// In the order in which they came.
    order: VecDeque<(Instant, Page)>,
    bytes: usize,
}

/// One page at one revision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Page {
    revision: u64,
    key: Bytes,
    range_end: Bytes,
    limit: i64,
    keys_only: bool,
    view: Option<View>,
}

impl Page {
    /// The page that a request asks for in a view; `None` if it is not one of a plain list.
    pub(super) fn of(request: &RangeRequest, revision: u64, view: Option<&View>) -> Option<Self> {
        let RangeRequest { key, range_end, limit, keys_only, .. } = request.clone();
        let plain = RangeRequest {
            key: key.clone(),
            range_end: range_end.clone(),
            limit,
            keys_only,
            revision: request.revision,
            serializable: request.serializable,
            ..RangeRequest::default()
        };
        let page = Self { revision, key, range_end, limit, keys_only, view: view.cloned() };
        (limit > 0 && plain == *request).then_some(page)
    }
}

impl Pages {
    pub(super) fn get(&self, page: &Page) -> Option<Bytes> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).pages.get(page).cloned()
    }

    /// Keeps a page until it is old, or others take its place. Small ones are not worth it.
    pub(super) fn remember(&self, page: Page, body: &Bytes) {
        if !(LEAST_BYTES..=MOST_BYTES / 4).contains(&body.len()) {
            return;
        }
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.forget(now, MOST_BYTES - body.len());
        if known.pages.insert(page.clone(), body.clone()).is_none() {
            known.bytes += body.len();
            known.order.push_back((now, page));
        }
    }

    /// Forgets pages that nobody will ask for any more.
    pub(super) fn expire(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).forget(Instant::now(), MOST_BYTES);
    }
}

impl Known {
    /// Forgets the oldest pages, so that none is too old and at most `most` bytes remain.
    fn forget(&mut self, now: Instant, most: usize) {
        while let Some((since, _)) = self.order.front() {
            if self.bytes <= most && now.duration_since(*since) < OLDEST {
                return;
            }
            let Some((_, page)) = self.order.pop_front() else { return };
            if let Some(body) = self.pages.remove(&page) {
                self.bytes -= body.len();
            }
        }
    }
}

/// Bytes of pages that are kept.
const MOST_BYTES: usize = 16 << 20;
const LEAST_BYTES: usize = 4 << 10;
/// Clients that start together are this far apart at most.
const OLDEST: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn page(revision: u64) -> Page {
        let request = RangeRequest { key: "a".into(), limit: 5, ..RangeRequest::default() };
        Page::of(&request, revision, None).expect("a plain list")
    }

    #[tokio::test(start_paused = true)]
    async fn the_latest_pages_are_kept_for_a_while() {
        let pages = Pages::default();
        let body = Bytes::from(vec![7; 1 << 20]);
        for revision in 0..20 {
            pages.remember(page(revision), &body);
        }
        let kept: Vec<u64> = (0..20).filter(|revision| pages.get(&page(*revision)).is_some()).collect();
        assert_eq!(kept, (4..20).collect::<Vec<_>>(), "16 MiB");
        pages.remember(page(100), &Bytes::from(vec![7; 5 << 20]));
        assert_eq!(pages.get(&page(100)), None, "too large to keep");
        tokio::time::advance(OLDEST).await;
        pages.expire();
        assert_eq!(pages.get(&page(19)), None);
        assert_eq!(pages.known.lock().expect("no panic").bytes, 0);
    }

    #[test]
    fn only_plain_lists_are_pages() {
        let plain = RangeRequest { key: "a".into(), limit: 5, revision: 3, ..RangeRequest::default() };
        assert!(Page::of(&plain, 3, None).is_some());
        assert_eq!(Page::of(&RangeRequest { count_only: true, ..plain.clone() }, 3, None), None);
        assert_eq!(Page::of(&RangeRequest { sort_order: 2, ..plain.clone() }, 3, None), None);
        assert_eq!(Page::of(&RangeRequest { min_mod_revision: 2, ..plain.clone() }, 3, None), None);
        assert_eq!(Page::of(&RangeRequest { limit: 0, ..plain }, 3, None), None);
    }
}
