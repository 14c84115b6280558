//! Transactions: comparisons, then one of two lists of operations, all at one revision.

use super::{
    Grants,
    grants::requested,
    kv::{authorize_delete, authorize_put, delete, put},
    range, refusal, wire,
};
use bytes::Bytes;
use kvstore::{
    Entry, KeyRange, Snapshot,
    proto::etcdserverpb::{
        Compare, DeleteRangeResponse, PutResponse, RangeResponse, RequestOp, ResponseHeader, ResponseOp,
        TxnRequest, TxnResponse,
        compare::{CompareResult, CompareTarget, TargetUnion},
        request_op::Request,
        response_op::Response,
    },
    store::{Transaction, WriteError},
};
use std::{cmp::Ordering, collections::BTreeSet};
use tonic::Status;

/// Ends a transaction without a change.
#[derive(Debug)]
pub(super) struct Refused(pub(super) Status);

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self(status)
    }
}

impl From<WriteError> for Refused {
    fn from(error: WriteError) -> Self {
        Self(refusal::write(error))
    }
}

/// Refuses what etcd refuses before it looks at the store: too many operations, keys written twice.
pub(super) fn check(request: &TxnRequest, most: usize) -> Result<(), Status> {
    check_counts(request, most, NESTING)?;
    for branch in [&request.success, &request.failure] {
        Writes::of(branch)?;
    }
    Ok(())
}

/// Refuses a transaction any part of which the client may not do, whichever branch would run.
pub(super) fn authorize(request: &TxnRequest, grants: &Grants) -> Result<(), Status> {
    for compare in &request.compare {
        grants.may_read(&requested(compare.key.clone(), compare.range_end.clone())?)?;
    }
    for operation in request.success.iter().chain(&request.failure) {
        match &operation.request {
            None => {}
            Some(Request::RequestRange(range)) => {
                grants.may_read(&requested(range.key.clone(), range.range_end.clone())?)?;
            }
            Some(Request::RequestPut(put)) => authorize_put(grants, put)?,
            Some(Request::RequestDeleteRange(delete)) => authorize_delete(grants, delete)?,
            Some(Request::RequestTxn(nested)) => authorize(nested, grants)?,
        }
    }
    Ok(())
}

/// Runs the branch that the comparisons choose; the response has no header yet.
pub(super) fn run(transaction: &mut Transaction, request: TxnRequest) -> Result<TxnResponse, Refused> {
    let succeeded = request.compare.iter().all(|compare| holds(compare, transaction.snapshot()));
    let branch = if succeeded { request.success } else { request.failure };
    let responses = branch.into_iter().filter_map(|operation| operation.request);
    let responses = responses.map(|operation| run_one(transaction, operation)).collect::<Result<_, _>>()?;
    Ok(TxnResponse { header: None, succeeded, responses })
}

fn run_one(transaction: &mut Transaction, operation: Request) -> Result<ResponseOp, Refused> {
    let response = match operation {
        Request::RequestRange(request) => {
            let response = range::find(transaction.snapshot(), request, None)?.response();
            Response::ResponseRange(RangeResponse { header: header(transaction), ..response })
        }
        Request::RequestPut(request) => {
            let response = put(transaction, request)?;
            Response::ResponsePut(PutResponse { header: header(transaction), ..response })
        }
        Request::RequestDeleteRange(request) => {
            let response = delete(transaction, request)?;
            Response::ResponseDeleteRange(DeleteRangeResponse { header: header(transaction), ..response })
        }
        Request::RequestTxn(request) => {
            let response = run(transaction, request)?;
            Response::ResponseTxn(TxnResponse { header: Some(ResponseHeader::default()), ..response })
        }
    };
    Ok(ResponseOp { response: Some(response) })
}

/// The header of an operation inside a transaction: as in etcd, the revision and nothing else.
fn header(transaction: &Transaction) -> Option<ResponseHeader> {
    let revision = wire(transaction.snapshot().revision());
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}

/// Whether a comparison holds for every key of its range; a missing single key compares as an empty entry, but a
/// missing value equals nothing (etcd `server/etcdserver/apply.go`, applyCompare).
fn holds(compare: &Compare, snapshot: &Snapshot) -> bool {
    let range = KeyRange::from_wire(compare.key.clone(), compare.range_end.clone());
    let mut found = snapshot.range(&range).peekable();
    if found.peek().is_none() {
        return compare.target() != CompareTarget::Value && holds_for(compare, None);
    }
    found.all(|entry| holds_for(compare, Some(entry)))
}

fn holds_for(compare: &Compare, entry: Option<&Entry>) -> bool {
    let number = |field: fn(&Entry) -> u64| entry.map_or(0, |entry| wire(field(entry)));
    let wanted = |target: CompareTarget| match (&compare.target_union, target) {
        (Some(TargetUnion::Version(wanted)), CompareTarget::Version)
        | (Some(TargetUnion::CreateRevision(wanted)), CompareTarget::Create)
        | (Some(TargetUnion::ModRevision(wanted)), CompareTarget::Mod)
        | (Some(TargetUnion::Lease(wanted)), CompareTarget::Lease) => *wanted,
        _ => 0,
    };
    let target = compare.target();
    let ordering = match target {
        CompareTarget::Version => number(|entry| entry.version).cmp(&wanted(target)),
        CompareTarget::Create => number(|entry| entry.create_revision).cmp(&wanted(target)),
        CompareTarget::Mod => number(|entry| entry.mod_revision).cmp(&wanted(target)),
        CompareTarget::Lease => entry.map_or(0, |entry| entry.lease).cmp(&wanted(target)),
        CompareTarget::Value => {
            let wanted: &[u8] = match &compare.target_union {
                Some(TargetUnion::Value(value)) => value,
                _ => &[],
            };
            entry.map_or(&[][..], |entry| entry.value.as_ref()).cmp(wanted)
        }
    };
    match compare.result() {
        CompareResult::Equal => ordering == Ordering::Equal,
        CompareResult::NotEqual => ordering != Ordering::Equal,
        CompareResult::Greater => ordering == Ordering::Greater,
        CompareResult::Less => ordering == Ordering::Less,
    }
}

fn check_counts(request: &TxnRequest, most: usize, depth: usize) -> Result<(), Status> {
    let longest = request.compare.len().max(request.success.len()).max(request.failure.len());
    if longest > most || depth == 0 {
        return Err(refusal::too_many_operations());
    }
    for operation in request.success.iter().chain(&request.failure) {
        if let Some(Request::RequestTxn(nested)) = &operation.request {
            check_counts(nested, most - longest.min(most), depth - 1)?;
        }
    }
    Ok(())
}

/// Keys that a branch puts, and ranges that it deletes.
#[derive(Default)]
struct Writes {
    puts: BTreeSet<Bytes>,
    deletes: Vec<KeyRange>,
}

impl Writes {
    /// Collects the writes of a branch. Fails if one key would be put twice, or put and deleted. The two branches
    /// of a nested transaction may write the same keys, since only one of them runs.
    fn of(branch: &[RequestOp]) -> Result<Self, Status> {
        let mut all = Self::default();
        for operation in branch {
            match &operation.request {
                Some(Request::RequestPut(put)) => {
                    all.merge(Self { puts: [put.key.clone()].into(), deletes: Vec::new() })?;
                }
                Some(Request::RequestDeleteRange(delete)) => {
                    let range = KeyRange::from_wire(delete.key.clone(), delete.range_end.clone());
                    all.merge(Self { puts: BTreeSet::new(), deletes: vec![range] })?;
                }
                Some(Request::RequestTxn(nested)) => {
                    let (success, failure) = (Self::of(&nested.success)?, Self::of(&nested.failure)?);
                    let puts = success.puts.union(&failure.puts).cloned().collect();
                    let deletes = success.deletes.into_iter().chain(failure.deletes).collect();
                    all.merge(Self { puts, deletes })?;
                }
                Some(Request::RequestRange(_)) | None => {}
            }
        }
        Ok(all)
    }

    fn merge(&mut self, other: Self) -> Result<(), Status> {
        let twice = !self.puts.is_disjoint(&other.puts)
            || other.puts.iter().any(|key| self.deletes.iter().any(|range| range.contains(key)))
            || self.puts.iter().any(|key| other.deletes.iter().any(|range| range.contains(key)));
        if twice {
            return Err(refusal::duplicate_key());
        }
        self.puts.extend(other.puts);
        self.deletes.extend(other.deletes);
        Ok(())
    }
}

/// How deep transactions may hold transactions.
const NESTING: usize = 16;
