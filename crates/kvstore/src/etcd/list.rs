//! Reads of etcd: its latest revision, and everything that it held at one.

use super::{
    EtcdError,
    call::{kv, refused, unary, wire},
    error::StoreReplaced,
};
use crate::{
    client::entry,
    proto::etcdserverpb::{RangeRequest, ResponseHeader},
    range::KeyRange,
    store::{Entry, Origin, Snapshot},
};
use tokio::time::Instant;
use tonic::{Code, transport::Channel};

/// A header that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) origin: Origin,
    pub(super) revision: u64,
    /// When it was looked at; for [`latest`], a moment before it was asked for.
    pub(super) asked: Instant,
}

impl Head {
    /// Reads a header; with `expected`, its cluster must be that one.
    pub(super) fn of(
        method: &'static str,
        header: Option<&ResponseHeader>,
        expected: Option<u64>,
    ) -> Result<Self, EtcdError> {
        let found = format!("header {header:?}");
        let sound = header.filter(|header| header.cluster_id != 0 && header.member_id != 0);
        let revision = sound.and_then(|header| u64::try_from(header.revision).ok());
        let (Some(header), Some(revision)) = (sound, revision) else {
            return Err(EtcdError::Protocol {
                method,
                found,
                expected: "cluster id, member id and revision",
            });
        };
        let ResponseHeader { cluster_id, member_id, .. } = *header;
        match expected {
            Some(expected) if expected != cluster_id => {
                Err(StoreReplaced::ClusterId { expected, found: cluster_id }.into())
            }
            _ => Ok(Self { origin: Origin { cluster_id, member_id }, revision, asked: Instant::now() }),
        }
    }
}

/// The latest revision, by a linearizable read: everything written before the call is at or below it.
pub(super) async fn latest(channel: &Channel, expected: Option<u64>) -> Result<Head, EtcdError> {
    const METHOD: &str = "Range";
    // Any key will do; this one cannot exist for long, and nothing is sent of it.
    let request = RangeRequest { key: "\0".into(), count_only: true, ..RangeRequest::default() };
    let asked = Instant::now();
    let answer = unary(kv(channel.clone()).range(request)).await.map_err(refused(METHOD))?;
    Ok(Head { asked, ..Head::of(METHOD, answer.header.as_ref(), expected)? })
}

/// Holds one key of a snapshot, the one that was written last, against what etcd has at that revision.
pub(super) async fn confirm(channel: &Channel, known: &Snapshot, cluster_id: u64) -> Result<(), EtcdError> {
    const METHOD: &str = "Range";
    let newest = known.range(&KeyRange::all()).max_by_key(|entry| entry.mod_revision);
    let Some(newest) = newest else { return Ok(()) };
    let revision = known.revision();
    let request =
        RangeRequest { key: newest.key.clone(), revision: wire(revision), ..RangeRequest::default() };
    let answer = match unary(kv(channel.clone()).range(request)).await {
        // The history is gone, and with it the need to go on from there: everything will be read again.
        Err(status) if status.code() == Code::OutOfRange => return Ok(()),
        other => other.map_err(refused(METHOD))?,
    };
    Head::of(METHOD, answer.header.as_ref(), Some(cluster_id))?;
    let found = answer.kvs.into_iter().next().map(entry);
    let same = found.is_some_and(|found| Entry { sub: newest.sub, ..found } == **newest);
    if same { Ok(()) } else { Err(StoreReplaced::Content { key: newest.key.clone(), revision }.into()) }
}

/// Everything at a revision, 0 for the latest, and which one that was.
///
/// Fails with [`EtcdError::Compacted`] if it is compacted, before or meanwhile.
pub(super) async fn everything(
    channel: &Channel,
    revision: u64,
    cluster_id: u64,
) -> Result<(Vec<Entry>, u64), EtcdError> {
    const METHOD: &str = "Range";
    let (mut at, mut rest) = (revision, KeyRange::all());
    let (mut entries, mut bytes): (Vec<Entry>, usize) = (Vec::new(), 0);
    loop {
        let request = RangeRequest {
            key: rest.wire_key(),
            range_end: rest.wire_end(),
            limit: PAGE,
            revision: wire(at),
            ..RangeRequest::default()
        };
        let answer =
            unary(kv(channel.clone()).range(request)).await.map_err(|status| match status.code() {
                Code::OutOfRange if at > 0 => EtcdError::Compacted { asked: at, compacted: 0 },
                _ => EtcdError::call(METHOD, &status),
            })?;
        let head = Head::of(METHOD, answer.header.as_ref(), Some(cluster_id))?;
        if at == 0 {
            at = head.revision;
        }
        let more = answer.more && !answer.kvs.is_empty();
        for kv in answer.kvs {
            let in_order = entries.last().is_none_or(|last| last.key < kv.key);
            if !in_order || u64::try_from(kv.mod_revision).is_ok_and(|revision| revision > at) {
                let found = format!("key {:?} of revision {}", kv.key, kv.mod_revision);
                let expected = "keys in ascending order, none newer than the revision asked for";
                return Err(EtcdError::Protocol { method: METHOD, found, expected });
            }
            bytes += kv.key.len() + kv.value.len();
            entries.push(entry(kv));
        }
        for (found, limit, unit) in [(entries.len(), ENTRIES, "entries"), (bytes, BYTES, "bytes")] {
            if found > limit {
                return Err(EtcdError::TooLarge { limit, unit });
            }
        }
        match entries.last() {
            Some(last) if more => rest = rest.after(&last.key),
            _ => return Ok((entries, at)),
        }
    }
}

/// Entries in a page.
const PAGE: i64 = 1000;
/// Most entries, and most bytes of keys and values, that a mirror keeps.
const ENTRIES: usize = 4_000_000;
const BYTES: usize = 4 << 30;
