//! One version of one key, and one change.

use bytes::Bytes;
use std::sync::Arc;
use tokio::time::Instant;

/// One version of one key, with etcd's counters. Shared by snapshots, history and watchers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Bytes,
    /// The value; empty is allowed.
    pub value: Bytes,
    /// Revision at which the key came into being (again).
    pub create_revision: u64,
    /// Revision that wrote this version.
    pub mod_revision: u64,
    /// Number of writes since `create_revision`, from 1.
    pub version: u64,
    /// The lease that the key hangs on, 0 for none.
    pub lease: i64,
    /// Place within the transaction that wrote it; with `mod_revision` it names the record on disk.
    pub(crate) sub: u32,
}

impl Entry {
    /// Bytes of key and value together.
    pub fn size(&self) -> usize {
        self.key.len() + self.value.len()
    }
}

/// What happened to the key of an [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Written; [`Event::entry`] is the new version.
    Put,
    /// Deleted; [`Event::entry`] holds the key and the revision of the deletion, all else is empty.
    Delete,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Put or delete.
    pub kind: EventKind,
    /// The new version, or the tombstone.
    pub entry: Arc<Entry>,
    /// The version before; `None` if there was none, or if it had been compacted before a restart.
    pub previous: Option<Arc<Entry>>,
}

/// All events of one revision, in the order in which the transaction made them.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) revision: u64,
    pub(crate) events: Box<[Event]>,
    /// When it was written, or loaded after a restart; retention by age counts from here.
    pub(crate) at: Instant,
}

impl Batch {
    /// Bytes that this batch keeps in memory, roughly.
    pub(crate) fn size(&self) -> usize {
        self.events.iter().map(|event| event.entry.size() + EVENT_OVERHEAD).sum()
    }
}

/// Bytes of an event beside its key and value: entry, reference counts, slots in map and history.
const EVENT_OVERHEAD: usize = 200;
