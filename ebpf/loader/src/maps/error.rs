//! What can go wrong with one operation on one map.

use std::io;

use thiserror::Error;

/// An operation on a map failed.
#[derive(Debug, Error)]
pub enum MapError {
    /// The map is full.
    #[error("map {map}: no room for {key}, it holds {capacity} entries; start with a greater capacity")]
    Full {
        /// The map's pin name.
        map: &'static str,
        /// The entry that found no room.
        key: String,
        /// How many entries the map holds.
        capacity: u32,
    },
    /// An index beyond the end.
    #[error("map {map}: index {index} is beyond its end, it holds {capacity} entries")]
    OutOfRange {
        /// The map's pin name.
        map: &'static str,
        /// The index, or the first after a range.
        index: u64,
        /// How many entries the map holds.
        capacity: u32,
    },
    /// The kernel refused.
    #[error("map {map}: {action} {key}")]
    Refused {
        /// The map's pin name.
        map: &'static str,
        /// What was tried: "insert", "remove", "get", "dump" …
        action: &'static str,
        /// On which key.
        key: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl MapError {
    /// Translates aya's error; a full map gets its own variant.
    pub(crate) fn from_aya(
        map: &'static str,
        action: &'static str,
        key: impl Into<String>,
        capacity: u32,
        error: aya::maps::MapError,
    ) -> Self {
        let key = key.into();
        let source = match error {
            aya::maps::MapError::SyscallError(error) => error.io_error,
            aya::maps::MapError::OutOfBounds { index, max_entries } => {
                return Self::OutOfRange { map, index: index.into(), capacity: max_entries };
            }
            other => io::Error::other(other),
        };
        // A hash map says E2BIG when it is full (kernel/bpf/hashtab.c), a trie ENOSPC (kernel/bpf/lpm_trie.c).
        match source.raw_os_error() {
            Some(libc::E2BIG | libc::ENOSPC) if action == "insert" => Self::Full { map, key, capacity },
            _ => Self::Refused { map, action, key, source },
        }
    }
}

/// Whether aya's error says that there is no such entry.
pub(super) fn is_absent(error: &aya::maps::MapError) -> bool {
    match error {
        aya::maps::MapError::KeyNotFound | aya::maps::MapError::ElementNotFound => true,
        aya::maps::MapError::SyscallError(error) => error.io_error.raw_os_error() == Some(libc::ENOENT),
        _ => false,
    }
}
