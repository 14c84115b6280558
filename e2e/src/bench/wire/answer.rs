//! Answers of the etcd v3 API, read without decoding them: only what the generator must know.

use anyhow::{Context, Result, bail};

/// Holds what a client needs of a page to ask for the next.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Page<'a> {
    /// Revision of the store.
    pub(super) revision: i64,
    /// How many records it holds.
    pub(super) records: usize,
    /// Key of the last.
    pub(super) last_key: &'a [u8],
    /// Whether more follow.
    pub(super) more: bool,
}

/// Holds what a watcher needs of an answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct WatchAnswer {
    /// Revision of the store.
    pub(super) revision: i64,
    /// The watch is there.
    pub(super) created: bool,
    /// The watch ended: the revision that was compacted, or 0.
    pub(super) canceled: Option<i64>,
}

/// A field's value.
#[derive(Clone, Copy, Debug)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Page<'a> {
    /// Reads a RangeResponse.
    pub(super) fn read(message: &'a [u8]) -> Result<Self> {
        let mut page = Self::default();
        let mut last = None;
        fields(message, |field| {
            match field {
                (1, Value::Bytes(header)) => page.revision = revision(header)?,
                (2, Value::Bytes(record)) => {
                    page.records += 1;
                    last = Some(record);
                }
                (3, Value::Number(more)) => page.more = more != 0,
                _ => {}
            }
            Ok(())
        })?;
        fields(last.unwrap_or_default(), |field| {
            if let (1, Value::Bytes(key)) = field {
                page.last_key = key;
            }
            Ok(())
        })?;
        Ok(page)
    }
}

impl WatchAnswer {
    /// Reads a WatchResponse and hands each event's bytes to `event`.
    pub(super) fn read(message: &[u8], mut event: impl FnMut(&[u8]) -> Result<()>) -> Result<Self> {
        let mut answer = Self::default();
        let mut compacted = 0;
        fields(message, |field| {
            match field {
                (1, Value::Bytes(header)) => answer.revision = revision(header)?,
                (3, Value::Number(created)) => answer.created = created != 0,
                (4, Value::Number(canceled)) if canceled != 0 => answer.canceled = Some(0),
                (5, Value::Number(revision)) => compacted = revision.cast_signed(),
                (11, Value::Bytes(bytes)) => event(bytes)?,
                _ => {}
            }
            Ok(())
        })?;
        answer.canceled = answer.canceled.map(|_| compacted);
        Ok(answer)
    }
}

/// The revision in the header of an answer.
pub(super) fn header_revision(message: &[u8]) -> Result<i64> {
    let mut found = 0;
    fields(message, |field| {
        if let (1, Value::Bytes(header)) = field {
            found = revision(header)?;
        }
        Ok(())
    })?;
    Ok(found)
}

fn revision(header: &[u8]) -> Result<i64> {
    let mut found = 0;
    fields(header, |field| {
        if let (3, Value::Number(revision)) = field {
            found = revision.cast_signed();
        }
        Ok(())
    })?;
    Ok(found)
}

/// Walks over the fields of a message; nested ones are bytes.
fn fields<'a>(mut rest: &'a [u8], mut field: impl FnMut((u64, Value<'a>)) -> Result<()>) -> Result<()> {
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        let value = match tag & 7 {
            0 => Value::Number(varint(&mut rest)?),
            2 => {
                let length = usize::try_from(varint(&mut rest)?).context("length of a field")?;
                let (bytes, after) = rest.split_at_checked(length).context("a field is cut")?;
                rest = after;
                Value::Bytes(bytes)
            }
            other => bail!("field {} has wire type {other}, which etcd's messages do not use", tag >> 3),
        };
        field((tag >> 3, value))?;
    }
    Ok(())
}

fn varint(rest: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first().context("a number is cut")?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    bail!("a number of more than ten bytes")
}

#[cfg(test)]
mod tests {
    use kvstore::proto::etcdserverpb::{RangeResponse, ResponseHeader, WatchResponse};
    use kvstore::proto::{Message, mvccpb};

    use super::*;

    #[test]
    fn reads_what_the_generated_messages_write() {
        let header = Some(ResponseHeader { cluster_id: 1 << 63, revision: 300, ..Default::default() });
        let record = |key: &'static str| mvccpb::KeyValue { key: key.into(), ..Default::default() };
        let range = RangeResponse { header, kvs: vec![record("a"), record("b")], more: true, count: 9 };
        let bytes = range.encode_to_vec();
        let expected = Page { revision: 300, records: 2, last_key: b"b", more: true };
        assert_eq!(Page::read(&bytes).expect("sound"), expected);
        assert!(Page::read(&bytes[..bytes.len() - 3]).is_err());

        let event = mvccpb::Event { kv: Some(record("c")), ..Default::default() };
        let watch = WatchResponse { header, events: vec![event.clone(), event], ..Default::default() };
        let mut events = 0;
        let mut count = |bytes: &[u8]| {
            assert!(bytes.ends_with(b"c"));
            events += 1;
            Ok(())
        };
        let answer = WatchAnswer::read(&watch.encode_to_vec(), &mut count).expect("sound");
        assert_eq!(answer, WatchAnswer { revision: 300, created: false, canceled: None });
        assert_eq!(events, 2);
        let gone = WatchResponse { canceled: true, compact_revision: 7, ..Default::default() };
        let answer = WatchAnswer::read(&gone.encode_to_vec(), |_| Ok(())).expect("sound");
        assert_eq!(answer.canceled, Some(7));
    }
}
