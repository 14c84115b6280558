//! What a stream of a hub says.

use std::collections::BTreeSet;

use kvstore::client::{Change, Update};

/// True if the writer has written: a heartbeat that is taken away is none.
pub(super) fn is_beat(update: &Update) -> bool {
    match update {
        Update::Reset { .. } | Update::Resumed { .. } => true,
        Update::Changes { changes, .. } => changes.iter().any(|change| matches!(change, Change::Put(_))),
    }
}

/// The revision of a change.
pub(super) fn revision_of(change: &Change) -> u64 {
    match change {
        Change::Put(entry) => entry.mod_revision,
        Change::Delete { revision, .. } => *revision,
    }
}

/// The keys that are there after it, as far as it tells.
pub(super) fn keys(update: &Update) -> BTreeSet<&[u8]> {
    match update {
        Update::Reset { entries, .. } => entries.iter().map(|entry| entry.key.as_ref()).collect(),
        Update::Changes { changes, .. } => changes
            .iter()
            .filter_map(|change| match change {
                Change::Put(entry) => Some(entry.key.as_ref()),
                Change::Delete { .. } => None,
            })
            .collect(),
        Update::Resumed { .. } => BTreeSet::new(),
    }
}
