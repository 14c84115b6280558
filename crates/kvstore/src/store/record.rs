//! How an event is written to disk.
//!
//! STABLE FORMAT, all integers big-endian. Key: revision `u64`, place in the transaction `u32`, so that records
//! sort in the order in which they happened. Value: format `u8` = 1, kind `u8` (0 put, 1 delete), create
//! revision `u64`, version `u64`, lease `i64`, length of the key `u32`, key, value. A lease is its number `i64` as the
//! key and its seconds `i64` as the value. Checksums are the library's.

use super::entry::{Entry, Event, EventKind};
use bytes::{Buf, BufMut, Bytes};
use std::sync::Arc;

/// A record on disk that is not one of ours.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The record's key is not a revision and a place.
    #[error("record key is {found} bytes, expected 12")]
    Key {
        /// Its length.
        found: usize,
    },
    /// A lease is not two numbers.
    #[error("lease record is {key} and {value} bytes, expected 8 and 8")]
    Lease {
        /// Length of its key.
        key: usize,
        /// Length of its value.
        value: usize,
    },
    /// The record's value ends too early.
    #[error("record of revision {revision} is cut short at {found} bytes")]
    Short {
        /// The record's revision.
        revision: u64,
        /// Its length.
        found: usize,
    },
    /// The record has a format or kind that this version does not know.
    #[error(
        "record of revision {revision} has format {format} and kind {kind}, expected format 1 and kind 0 or 1"
    )]
    Unknown {
        /// The record's revision.
        revision: u64,
        /// Its format byte.
        format: u8,
        /// Its kind byte.
        kind: u8,
    },
}

/// The disk key of an event.
pub(crate) fn place(entry: &Entry) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    let (revision, sub) = key.split_at_mut(8);
    revision.copy_from_slice(&entry.mod_revision.to_be_bytes());
    sub.copy_from_slice(&entry.sub.to_be_bytes());
    key
}

/// The disk value of an event.
pub(crate) fn encode(event: &Event) -> Vec<u8> {
    let entry = &event.entry;
    let mut out = Vec::with_capacity(HEAD_BYTES + entry.size());
    out.put_u8(FORMAT);
    out.put_u8(match event.kind {
        EventKind::Put => 0,
        EventKind::Delete => 1,
    });
    out.put_u64(entry.create_revision);
    out.put_u64(entry.version);
    out.put_i64(entry.lease);
    out.put_u32(u32::try_from(entry.key.len()).expect("keys are shorter than 4 GiB"));
    out.put_slice(&entry.key);
    out.put_slice(&entry.value);
    out
}

/// Reads an event back; `previous` is not stored and stays empty.
pub(crate) fn decode(key: &[u8], value: &[u8]) -> Result<Event, RecordError> {
    let found = key.len();
    let (mut place, mut rest) = (key, value);
    if found != KEY_BYTES {
        return Err(RecordError::Key { found });
    }
    let (mod_revision, sub) = (place.get_u64(), place.get_u32());
    let short = || RecordError::Short { revision: mod_revision, found: value.len() };
    if rest.remaining() < HEAD_BYTES {
        return Err(short());
    }
    let (format, kind) = (rest.get_u8(), rest.get_u8());
    let kind = match (format, kind) {
        (FORMAT, 0) => EventKind::Put,
        (FORMAT, 1) => EventKind::Delete,
        _ => return Err(RecordError::Unknown { revision: mod_revision, format, kind }),
    };
    let (create_revision, version, lease) = (rest.get_u64(), rest.get_u64(), rest.get_i64());
    let key_bytes = usize::try_from(rest.get_u32()).map_err(|_too_long| short())?;
    let (key, value) = rest.split_at_checked(key_bytes).ok_or_else(short)?;
    let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
    let entry = Entry { key, value, create_revision, mod_revision, version, lease, sub };
    Ok(Event { kind, entry: Arc::new(entry), previous: None })
}

/// Reads a lease back: its number, and the seconds that it was granted for.
pub(crate) fn decode_lease(key: &[u8], value: &[u8]) -> Result<(i64, i64), RecordError> {
    let number = |bytes: &[u8]| bytes.try_into().ok().map(i64::from_be_bytes);
    let lease = number(key).zip(number(value));
    lease.ok_or(RecordError::Lease { key: key.len(), value: value.len() })
}

const FORMAT: u8 = 1;
const KEY_BYTES: usize = 12;
const HEAD_BYTES: usize = 1 + 1 + 8 + 8 + 8 + 4;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            key in prop::collection::vec(any::<u8>(), 0..40), value in prop::collection::vec(any::<u8>(), 0..80),
            create_revision: u64, mod_revision: u64, version: u64, lease: i64, sub: u32, put: bool,
        ) {
            let kind = if put { EventKind::Put } else { EventKind::Delete };
            let entry = Entry { key: key.into(), value: value.into(), create_revision, mod_revision, version, lease, sub };
            let event = Event { kind, entry: Arc::new(entry), previous: None };
            prop_assert_eq!(decode(&place(&event.entry), &encode(&event)).expect("our own record"), event);
        }

        #[test]
        fn rubbish_is_an_error_and_no_panic(
            key in prop::collection::vec(any::<u8>(), 0..16), value in prop::collection::vec(0u8..3, 0..60)
        ) {
            drop(decode(&key, &value));
            drop(decode_lease(&key, &value));
        }
    }
}
