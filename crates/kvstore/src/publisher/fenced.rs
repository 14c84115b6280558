//! Publishing into an etcd cluster, as its leader: what differs from the mirror, in transactions that etcd takes.

use super::{Outcome, PublishError, Write};
use crate::{
    etcd::{Fence, FenceError},
    proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RequestOp, request_op::Request},
    store::Snapshot,
};
use bytes::Bytes;
use std::collections::HashMap;
use tracing::error;

/// Makes these changes, in order; those that are so already cost nothing. The mirror shows them when this returns.
pub(super) async fn apply(fence: &Fence, writes: &[Write]) -> Result<Outcome, PublishError> {
    let mirror = fence.etcd().mirror();
    let (transactions, mut outcome) = transactions(&mirror.snapshot(), writes);
    outcome.revision = mirror.revision();
    for operations in transactions {
        outcome.revision = fence.write(operations).await?;
    }
    fence.shown(outcome.revision).await?;
    Ok(outcome)
}

/// Writes one key and returns the revision, which the mirror shows then.
pub(super) async fn put(fence: &Fence, key: Bytes, value: Bytes) -> Result<u64, FenceError> {
    let revision = fence.write(vec![RequestOp { request: Some(request(&key, Some(&value))) }]).await?;
    fence.shown(revision).await?;
    Ok(revision)
}

/// What has to be done, as transactions within etcd's bounds, none of which names a key twice.
fn transactions(snapshot: &Snapshot, writes: &[Write]) -> (Vec<Vec<RequestOp>>, Outcome) {
    let mut outcome = Outcome::default();
    let mut done: Vec<Vec<RequestOp>> = Vec::new();
    let (mut current, mut bytes) = (Vec::new(), 0);
    // What is planned for a key, and in which transaction.
    let mut planned: HashMap<&Bytes, (Option<&Bytes>, usize)> = HashMap::new();
    for write in writes {
        let (key, wanted) = match write {
            Write::Put { key, value } => (key, Some(value)),
            Write::Delete { key } => (key, None),
        };
        let before = planned.get(key).copied();
        let now = match before {
            Some((value, _)) => value.map(Bytes::as_ref),
            None => snapshot.get(key).map(|entry| entry.value.as_ref()),
        };
        if now == wanted.map(Bytes::as_ref) {
            outcome.unchanged += 1;
            continue;
        }
        let size = key.len() + wanted.map_or(0, Bytes::len);
        if size > MOST_BYTES {
            error!(key = ?key, bytes = size, most = MOST_BYTES, "record is larger than etcd takes, left out");
            outcome.too_large += 1;
            continue;
        }
        let is_twice = before.is_some_and(|(_, transaction)| transaction == done.len());
        if is_twice || current.len() >= OPERATIONS || bytes + size > BYTES && !current.is_empty() {
            done.push(std::mem::take(&mut current));
            bytes = 0;
        }
        bytes += size;
        planned.insert(key, (wanted, done.len()));
        current.push(RequestOp { request: Some(request(key, wanted)) });
        match wanted {
            Some(_) => outcome.written += 1,
            None => outcome.deleted += 1,
        }
    }
    if !current.is_empty() {
        done.push(current);
    }
    (done, outcome)
}

fn request(key: &Bytes, wanted: Option<&Bytes>) -> Request {
    let key = key.clone();
    match wanted {
        Some(value) => Request::RequestPut(PutRequest { key, value: value.clone(), ..PutRequest::default() }),
        None => Request::RequestDeleteRange(DeleteRangeRequest { key, ..DeleteRangeRequest::default() }),
    }
}

/// etcd's `--max-txn-ops`.
const OPERATIONS: usize = 128;
/// Keys and values of one transaction; etcd refuses requests over 1.5 MiB.
const BYTES: usize = 1 << 20;
/// Longest key and value, with room for the rest of the request.
const MOST_BYTES: usize = (3 << 19) - (16 << 10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Store, StoreOptions};

    fn put(key: &str, value: &str) -> Write {
        Write::Put { key: key.to_owned().into(), value: value.to_owned().into() }
    }

    fn delete(key: &str) -> Write {
        Write::Delete { key: key.to_owned().into() }
    }

    /// Each transaction as text.
    fn plan(store: &Store, writes: &[Write]) -> (Vec<String>, Outcome) {
        let (transactions, outcome) = transactions(&store.snapshot(), writes);
        let text = |operation: &RequestOp| match &operation.request {
            Some(Request::RequestPut(put)) => {
                format!("{}={}", String::from_utf8_lossy(&put.key), String::from_utf8_lossy(&put.value))
            }
            Some(Request::RequestDeleteRange(delete)) => format!("-{}", String::from_utf8_lossy(&delete.key)),
            other => panic!("neither put nor delete: {other:?}"),
        };
        let texts =
            transactions.iter().map(|operations| operations.iter().map(text).collect::<Vec<_>>().join(" "));
        (texts.collect(), outcome)
    }

    #[test]
    fn only_differences_are_sent_and_no_key_twice_in_one_transaction() {
        let store = Store::in_memory(StoreOptions::default());
        store.put("a", "1").expect("put");
        store.put("b", "1").expect("put");
        let writes = [
            put("a", "1"),
            put("b", "2"),
            put("c", "1"),
            delete("x"),
            put("b", "2"),
            put("b", "3"),
            delete("c"),
        ];
        let (transactions, outcome) = plan(&store, &writes);
        assert_eq!(transactions, ["b=2 c=1", "b=3 -c"]);
        assert_eq!(outcome, Outcome { written: 3, deleted: 1, unchanged: 3, ..Outcome::default() });
    }

    #[test]
    fn transactions_stay_within_what_etcd_takes() {
        let store = Store::in_memory(StoreOptions::default());
        let many: Vec<Write> = (0..300).map(|n| put(&format!("{n:03}"), "v")).collect();
        let (transactions, outcome) = plan(&store, &many);
        let sizes: Vec<usize> = transactions.iter().map(|text| text.split(' ').count()).collect();
        assert_eq!((sizes, outcome.written), (vec![128, 128, 44], 300));
        let large = "v".repeat(700 << 10);
        let (transactions, outcome) =
            plan(&store, &[put("a", &large), put("b", &large), put("c", &large.repeat(3)), put("d", "1")]);
        let keys: Vec<String> = transactions
            .iter()
            .map(|text| text.split(' ').filter_map(|one| one.split('=').next()).collect())
            .collect();
        assert_eq!(keys, ["a", "bd"]);
        assert_eq!((outcome.written, outcome.too_large), (3, 1));
    }
}
