//! Evaluates a Range request on a snapshot.

use super::{
    counts::{Counted, Counts},
    grants::requested,
    refusal, wire,
};
use kvstore::{
    Entry, KeyRange, Snapshot,
    proto::{
        etcdserverpb::{
            RangeRequest, RangeResponse,
            range_request::{SortOrder, SortTarget},
        },
        mvccpb::KeyValue,
    },
};
use std::{cmp::Ordering, sync::Arc};
use tonic::Status;

/// The response without its header, with etcd's meaning of each option (etcd `server/etcdserver/apply.go`, Range).
///
/// `count` counts all of the range: with `counts` only the first page of a list costs that, the others their own size.
pub(super) fn evaluate(
    snapshot: &Snapshot,
    request: RangeRequest,
    counts: Option<&Counts>,
) -> Result<RangeResponse, Status> {
    let (order, target) = (request.sort_order(), request.sort_target());
    let filters = Filters::of(&request);
    let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0);
    let keys_only = request.keys_only;
    let (key, range_end) = (request.key.clone(), request.range_end.clone());
    let range = requested(request.key, request.range_end)?;
    let view = snapshot.at(u64::try_from(request.revision).unwrap_or(0)).map_err(refusal::read)?;
    let mut found = view.range(&range);
    if request.count_only {
        let count = i64::try_from(found.count()).unwrap_or(i64::MAX);
        return Ok(RangeResponse { count, ..RangeResponse::default() });
    }

    // Without an order and filters nothing past the limit has to be held, but for one that tells of more.
    let all = order != SortOrder::None || !filters.is_empty();
    let held = limit.filter(|_| !all).map_or(usize::MAX, |limit| limit.saturating_add(1));
    let mut entries: Vec<&Arc<Entry>> = found.by_ref().take(held).collect();
    let count = if entries.len() < held {
        entries.len()
    } else {
        let at = Counted { revision: view.revision(), key, range_end };
        let known = counts.and_then(|counts| counts.get(&at));
        let count = known.unwrap_or_else(|| entries.len() + found.count());
        if let Some(counts) = counts {
            // The next page of this list begins after the last entry of this one.
            let shown = entries.len().saturating_sub(1);
            if let Some(last) = shown.checked_sub(1).and_then(|last| entries.get(last)) {
                let next = Counted { key: KeyRange::after_key(&last.key), ..at.clone() };
                counts.remember(next, count - shown);
            }
            if known.is_none() {
                counts.remember(at, count);
            }
        }
        count
    };
    entries.retain(|entry| filters.keep(entry));
    // A target other than the key is sorted by even without an order: as in etcd, only what is held.
    if order != SortOrder::None || target != SortTarget::Key {
        entries.sort_by(|a, b| compare(target, a, b));
        if order == SortOrder::Descend {
            entries.reverse();
        }
    }
    let more = limit.is_some_and(|limit| entries.len() > limit);
    entries.truncate(limit.unwrap_or(usize::MAX));
    let kvs = entries.into_iter().map(|entry| key_value(entry, keys_only)).collect();
    Ok(RangeResponse { header: None, kvs, more, count: i64::try_from(count).unwrap_or(i64::MAX) })
}

/// An entry as the wire has it.
pub(super) fn key_value(entry: &Entry, keys_only: bool) -> KeyValue {
    KeyValue {
        key: entry.key.clone(),
        create_revision: wire(entry.create_revision),
        mod_revision: wire(entry.mod_revision),
        version: wire(entry.version),
        value: if keys_only { bytes::Bytes::new() } else { entry.value.clone() },
        lease: entry.lease,
    }
}

/// Bounds on revisions, both included; 0 is no bound.
struct Filters {
    min_mod: i64,
    max_mod: i64,
    min_create: i64,
    max_create: i64,
}

impl Filters {
    fn of(request: &RangeRequest) -> Self {
        Self {
            min_mod: request.min_mod_revision,
            max_mod: request.max_mod_revision,
            min_create: request.min_create_revision,
            max_create: request.max_create_revision,
        }
    }

    fn is_empty(&self) -> bool {
        [self.min_mod, self.max_mod, self.min_create, self.max_create] == [0; 4]
    }

    fn keep(&self, entry: &Entry) -> bool {
        let within = |value, min, max| (min == 0 || value >= min) && (max == 0 || value <= max);
        within(wire(entry.mod_revision), self.min_mod, self.max_mod)
            && within(wire(entry.create_revision), self.min_create, self.max_create)
    }
}

fn compare(target: SortTarget, a: &Entry, b: &Entry) -> Ordering {
    match target {
        SortTarget::Key => a.key.cmp(&b.key),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::Create => a.create_revision.cmp(&b.create_revision),
        SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => a.value.cmp(&b.value),
    }
}
