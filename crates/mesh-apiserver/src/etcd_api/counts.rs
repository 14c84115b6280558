//! How many keys a range holds, remembered from page to page.

use super::view::View;
use bytes::Bytes;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// Counts of ranges at fixed revisions, which never change. A client that reads page after page, and all clients
/// that read the same revision, then cost one count instead of one a page.
#[derive(Debug, Default)]
pub(super) struct Counts {
    known: Mutex<HashMap<Counted, usize>>,
}

/// A range at a revision, in a view.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Counted {
    pub(super) revision: u64,
    pub(super) key: Bytes,
    pub(super) range_end: Bytes,
    pub(super) view: Option<View>,
}

impl Counts {
    /// The number of keys, if it is known.
    pub(super) fn get(&self, counted: &Counted) -> Option<usize> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(counted).copied()
    }

    /// Remembers the number of keys. The memory is bounded: once it is full it begins anew.
    pub(super) fn remember(&self, counted: Counted, count: usize) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(counted, count);
    }
}

const MOST: usize = 4096;
