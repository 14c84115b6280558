//! Finds what a Range request asks for in a snapshot, and writes it.

use super::{
    counts::{Counted, Counts},
    grants::requested,
    refusal,
    view::View,
    wire,
};
use bytes::{BufMut, Bytes, BytesMut};
use kvstore::{
    Entry, KeyRange, Snapshot,
    proto::{
        Message,
        etcdserverpb::{
            RangeRequest, RangeResponse,
            range_request::{SortOrder, SortTarget},
        },
        mvccpb::KeyValue,
    },
};
use std::{cmp::Ordering, sync::Arc};
use tonic::Status;

/// What a request asks for, found but not yet written.
pub(super) struct Found<'a> {
    entries: Vec<&'a Arc<Entry>>,
    keys_only: bool,
    more: bool,
    count: i64,
}

impl Found<'_> {
    /// The response without its header.
    pub(super) fn response(self) -> RangeResponse {
        let kvs = self.entries.into_iter().map(|entry| key_value(entry, self.keys_only)).collect();
        RangeResponse { header: None, kvs, more: self.more, count: self.count }
    }

    /// How many keys the range has, whatever is shown of them.
    pub(super) fn count(&self) -> usize {
        usize::try_from(self.count).unwrap_or(0)
    }

    /// The encoded fields of the response but for its header. O(bytes).
    pub(super) fn encode(self) -> Bytes {
        let value_bytes = |entry: &Entry| if self.keys_only { 0 } else { entry.value.len() };
        let sizes = self.entries.iter().map(|entry| entry.key.len() + value_bytes(entry) + NUMBERS_BYTES);
        let mut out = BytesMut::with_capacity(sizes.sum::<usize>() + NUMBERS_BYTES);
        for entry in &self.entries {
            out.put_u8(KVS_FIELD);
            let encoded = key_value(entry, self.keys_only).encode_length_delimited(&mut out);
            encoded.expect("the buffer grows");
        }
        let rest = RangeResponse { more: self.more, count: self.count, ..RangeResponse::default() };
        rest.encode(&mut out).expect("the buffer grows");
        out.freeze()
    }
}

/// Finds what a request asks for, with etcd's meaning of each option (etcd `server/etcdserver/apply.go`, Range).
///
/// `count` counts all of the range: with `counts` only the first page of a list costs that, the others their own size.
pub(super) fn find<'a>(
    snapshot: &'a Snapshot,
    request: RangeRequest,
    counts: Option<&Counts>,
) -> Result<Found<'a>, Status> {
    find_in(snapshot, request, counts, None)
}

/// As [`find`], in a view: what the view hides is not there, and not counted.
pub(super) fn find_in<'a>(
    snapshot: &'a Snapshot,
    request: RangeRequest,
    counts: Option<&Counts>,
    view: Option<&View>,
) -> Result<Found<'a>, Status> {
    let revision = u64::try_from(request.revision).unwrap_or(0);
    let at = snapshot.at(revision).map_err(refusal::read)?;
    let found = at.range(&requested(request.key.clone(), request.range_end.clone())?);
    match view {
        None => Ok(choose(found, request, at.revision(), counts, None)),
        Some(view) => {
            let shown = found.filter(|entry| view.shows(entry));
            Ok(choose(shown, request, at.revision(), counts, Some(view)))
        }
    }
}

/// Chooses among the entries of the range at the revision.
fn choose<'a>(
    mut found: impl Iterator<Item = &'a Arc<Entry>>,
    request: RangeRequest,
    revision: u64,
    counts: Option<&Counts>,
    view: Option<&View>,
) -> Found<'a> {
    let (order, target) = (request.sort_order(), request.sort_target());
    let filters = Filters::of(&request);
    let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0);
    let keys_only = request.keys_only;
    if request.count_only {
        let count = i64::try_from(found.count()).unwrap_or(i64::MAX);
        return Found { entries: Vec::new(), keys_only, more: false, count };
    }

    // Without an order and filters nothing past the limit has to be held, but for one that tells of more.
    let all = order != SortOrder::None || !filters.is_empty();
    let held = limit.filter(|_| !all).map_or(usize::MAX, |limit| limit.saturating_add(1));
    let mut entries: Vec<&Arc<Entry>> = found.by_ref().take(held).collect();
    let count = if entries.len() < held {
        entries.len()
    } else {
        let RangeRequest { key, range_end, .. } = request;
        let at = Counted { revision, key, range_end, view: view.cloned() };
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
    Found { entries, keys_only, more, count: i64::try_from(count).unwrap_or(i64::MAX) }
}

/// An entry as the wire has it.
pub(super) fn key_value(entry: &Entry, keys_only: bool) -> KeyValue {
    KeyValue {
        key: entry.key.clone(),
        create_revision: wire(entry.create_revision),
        mod_revision: wire(entry.mod_revision),
        version: wire(entry.version),
        value: if keys_only { Bytes::new() } else { entry.value.clone() },
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

/// Field 2, length-delimited.
const KVS_FIELD: u8 = 2 << 3 | 2;
/// Room for tags, lengths and numbers of a record; a guess that is seldom too small.
const NUMBERS_BYTES: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;
    use kvstore::{Store, StoreOptions};
    use proptest::prelude::*;

    fn number() -> impl Strategy<Value = i64> {
        prop_oneof![-3i64..40, any::<i64>(), Just(i64::MIN), Just(i64::MAX)]
    }

    fn request() -> impl Strategy<Value = RangeRequest> {
        let key = || prop::collection::vec(prop_oneof![0u8..3, Just(b'k'), any::<u8>()], 0..4);
        let numbers = (number(), number(), number(), number(), number(), number());
        let others = (any::<i32>(), any::<i32>(), any::<bool>(), any::<bool>(), 0u8..8);
        (key(), key(), numbers, others).prop_map(|(key, range_end, numbers, others)| {
            let (limit, revision, min_mod, max_mod, min_create, max_create) = numbers;
            let (sort_order, sort_target, keys_only, count_only, set) = others;
            // Half of the requests leave the odd options alone, so that some find something.
            let odd = |value: i64| if set & 1 == 0 { 0 } else { value };
            RangeRequest {
                key: key.into(),
                range_end: range_end.into(),
                limit,
                revision: if set & 2 == 0 { 0 } else { revision },
                sort_order: if set & 4 == 0 { 0 } else { sort_order % 4 },
                sort_target: if set & 4 == 0 { 0 } else { sort_target % 6 },
                serializable: false,
                keys_only,
                count_only,
                min_mod_revision: odd(min_mod),
                max_mod_revision: odd(max_mod),
                min_create_revision: odd(min_create),
                max_create_revision: odd(max_create),
            }
        })
    }

    proptest! {
        /// Whatever is asked: no panic, no more than the limit, nothing outside the range, and what is encoded is
        /// what is found.
        #[test]
        fn any_request_is_answered_within_its_bounds(
            request in request(), keys in prop::collection::vec(prop::collection::vec(0u8..4, 1..3), 0..20),
        ) {
            let store = Store::in_memory(StoreOptions::default());
            for (n, key) in keys.into_iter().enumerate() {
                if n % 5 == 4 { store.delete(&KeyRange::key(key)).map(drop).expect("delete"); }
                else { store.put(key, format!("value {n}")).map(drop).expect("put"); }
            }
            let snapshot = store.snapshot();
            let counts = Counts::default();
            for _ in 0..2 {
                let Ok(found) = find(&snapshot, request.clone(), Some(&counts)) else { continue };
                let (limit, asked) = (request.limit, KeyRange::from_wire(request.key.clone(), request.range_end.clone()));
                let encoded = RangeResponse::decode(found.encode()).expect("a response");
                let again = find(&snapshot, request.clone(), None).expect("as before").response();
                prop_assert_eq!(&encoded, &again);
                prop_assert!(limit <= 0 || encoded.kvs.len() as i64 <= limit);
                prop_assert!(encoded.kvs.iter().all(|kv| asked.contains(&kv.key)));
                prop_assert!(encoded.count >= encoded.kvs.len() as i64);
            }
        }

        #[test]
        fn bytes_that_are_no_request_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let store = Store::in_memory(StoreOptions::default());
            store.put("k", "v").expect("put");
            if let Ok(request) = RangeRequest::decode(bytes.as_slice()) {
                drop(find(&store.snapshot(), request, None).map(Found::encode));
            }
        }
    }
}
