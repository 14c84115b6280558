//! The calls of the load: a page, a put, a watch, a whole list.

use anyhow::{Result, ensure};
use bytes::Bytes;
use kvstore::proto::etcdserverpb::{
    PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest, WatchRequest, request_op::Request,
    watch_request::RequestUnion,
};

use super::answer::{Page, WatchAnswer, header_revision};
use super::connection::Connection;

/// Holds what a complete list found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    /// How many records.
    pub(super) records: usize,
    /// The revision of all of them.
    pub(super) revision: i64,
}

/// Reads everything below a prefix in pages, at one revision: what a ClusterMesh client does when it has nothing
/// (Cilium `pkg/kvstore/etcd.go`, `paginatedList`).
pub(super) async fn list(connection: &mut Connection, prefix: &str, page_size: i64) -> Result<Listed> {
    let (mut key, range_end) = (Bytes::from(prefix.to_owned()), end_of(prefix));
    let mut listed = Listed { records: 0, revision: 0 };
    loop {
        let request = RangeRequest {
            key,
            range_end: range_end.clone(),
            limit: page_size,
            revision: listed.revision,
            serializable: true,
            ..RangeRequest::default()
        };
        let page = Page::read(connection.unary(RANGE, &request).await?)?;
        listed.records += page.records;
        if listed.revision == 0 {
            listed.revision = page.revision;
        }
        if !page.more {
            return Ok(listed);
        }
        ensure!(!page.last_key.is_empty(), "an empty page, although more follows");
        key = [page.last_key, &[0]].concat().into();
    }
}

/// The current revision of the store.
pub(super) async fn revision(connection: &mut Connection) -> Result<i64> {
    let request = RangeRequest { key: Bytes::from_static(b"bench"), ..RangeRequest::default() };
    header_revision(connection.unary(RANGE, &request).await?)
}

/// Writes one record and gives its revision.
pub(super) async fn put(connection: &mut Connection, key: String, value: String) -> Result<i64> {
    let request = PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() };
    header_revision(connection.unary(PUT, &request).await?)
}

/// Writes records in one transaction of at most 128 (etcd's `--max-txn-ops`).
pub(super) async fn put_all(
    connection: &mut Connection,
    records: impl Iterator<Item = (String, String)>,
) -> Result<()> {
    let put = |(key, value): (String, String)| {
        let put = PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() };
        RequestOp { request: Some(Request::RequestPut(put)) }
    };
    let request = TxnRequest { success: records.map(put).collect(), ..TxnRequest::default() };
    connection.unary(TXN, &request).await.map(drop)
}

/// Watches a prefix from a revision on; returns once the server says that the watch is there.
pub(super) async fn watch(connection: &mut Connection, prefix: &str, from: i64) -> Result<()> {
    let create = WatchCreateRequest {
        key: Bytes::from(prefix.to_owned()),
        range_end: end_of(prefix),
        start_revision: from,
        ..WatchCreateRequest::default()
    };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    connection.stream(WATCH, &request).await?;
    let answer = WatchAnswer::read(connection.message().await?, |_| Ok(()))?;
    ensure!(answer.created, "a watch was answered, but not created: {answer:?}");
    still_there(&answer)
}

/// Fails if the server ended the watch.
pub(super) fn still_there(answer: &WatchAnswer) -> Result<()> {
    match answer.canceled {
        None => Ok(()),
        Some(compacted) => anyhow::bail!("the server canceled the watch (compacted at {compacted})"),
    }
}

/// The first key after all keys with this prefix, which ends with `/`.
fn end_of(prefix: &str) -> Bytes {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end.into()
}

const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";
const TXN: &str = "/etcdserverpb.KV/Txn";
const WATCH: &str = "/etcdserverpb.Watch/Watch";
