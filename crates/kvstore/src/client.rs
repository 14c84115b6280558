//! The client side of etcd's v3 API: what a peer or an agent needs of a remote hub, and nothing that writes.
//!
//! Only `KV.Range` and `Watch.Watch` are used, in the shapes that stock ClusterMesh clients use, so any etcd and
//! any stock hub will do. The connection (addresses, TLS, keepalive) is the caller's: it brings a [`Channel`].
//!
//! Each response must carry a header, and the header's `cluster_id` must stay the same for the life of the
//! client: behind one address there may be several stores whose revisions have nothing to do with each other
//! (Cilium `pkg/clustermesh/common/interceptor.go`). What the server sends is bounded by [`Limits`].

mod list_watch;

pub use list_watch::{Change, ListWatch, Resume, Update};

use crate::{
    proto::{
        etcdserverpb::{RangeRequest, RangeResponse, ResponseHeader, kv_client, watch_client},
        mvccpb,
    },
    range::KeyRange,
    store::Entry,
};
use bytes::Bytes;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tonic::{Code, Status, transport::Channel};

/// Reads one remote store over one channel. Clones share the channel and the pinned `cluster_id`.
#[derive(Clone, Debug)]
pub struct Client {
    kv: kv_client::KvClient<Channel>,
    watch: watch_client::WatchClient<Channel>,
    limits: Limits,
    /// 0 until the first response.
    cluster_id: Arc<AtomicU64>,
}

/// Bounds of what a server may send and how long it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries asked for in one page; stock clients use 256.
    pub page: u32,
    /// Most entries of one listed range.
    pub entries: usize,
    /// Most bytes of one listed range, keys and values.
    pub bytes: usize,
    /// Longest message.
    pub message_bytes: usize,
    /// Longest wait for the answer to a unary call, and for the `created` answer to a watch.
    pub answer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            page: 256,
            entries: 1_000_000,
            bytes: 1 << 30,
            message_bytes: 64 << 20,
            answer: Duration::from_secs(30),
        }
    }
}

/// The remote store cannot be read on this connection. The caller connects anew, with backoff.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server refused by its rules; the text is its own.
    #[error("server denied {method}: {reason}")]
    PermissionDenied {
        /// The call.
        method: &'static str,
        /// The server's text.
        reason: String,
    },
    /// The call failed.
    #[error("{method} failed")]
    Rpc {
        /// The call.
        method: &'static str,
        /// The server's or the transport's status.
        source: Box<Status>,
    },
    /// No answer came.
    #[error("no answer to {method} within {after:?}")]
    Timeout {
        /// The call.
        method: &'static str,
        /// How long it was waited for.
        after: Duration,
    },
    /// A response has no header, or one without a `cluster_id` after one with it.
    #[error("response to {method} has no header with a cluster id")]
    NoHeader {
        /// The call.
        method: &'static str,
    },
    /// Another store answers than at first.
    #[error("etcd cluster id has changed: expected {expected:x}, found {found:x}")]
    ClusterIdChanged {
        /// The id of the first response.
        expected: u64,
        /// The id of this one.
        found: u64,
    },
    /// The listed range is larger than this client accepts.
    #[error("listed range {prefix:?} exceeds {limit} {unit}")]
    TooLarge {
        /// Where the range starts.
        prefix: Bytes,
        /// The bound.
        limit: usize,
        /// What is bounded.
        unit: &'static str,
    },
    /// The server broke the protocol.
    #[error("response to {method} is wrong: {found}, expected {expected}")]
    Protocol {
        /// The call.
        method: &'static str,
        /// What came.
        found: String,
        /// What should have come.
        expected: &'static str,
    },
    /// The server ended a watch for a reason other than compaction.
    #[error("server canceled the watch: {reason}")]
    WatchCanceled {
        /// The server's text, may be empty.
        reason: String,
    },
    /// The server ended the stream.
    #[error("server closed the watch stream")]
    WatchClosed,
}

impl Client {
    /// Reads through `channel`, with the default [`Limits`].
    pub fn new(channel: Channel) -> Self {
        Self::with_limits(channel, Limits::default())
    }

    /// Reads through `channel`.
    pub fn with_limits(channel: Channel, limits: Limits) -> Self {
        let kv = kv_client::KvClient::new(channel.clone()).max_decoding_message_size(limits.message_bytes);
        let watch = watch_client::WatchClient::new(channel).max_decoding_message_size(limits.message_bytes);
        Self { kv, watch, limits, cluster_id: Arc::default() }
    }

    /// The remote store's `cluster_id`; `None` before the first response (or if the server sends none).
    pub fn cluster_id(&self) -> Option<u64> {
        Some(self.cluster_id.load(Ordering::Acquire)).filter(|id| *id != 0)
    }

    /// Reads one key; `None` if it does not exist.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<Entry>, Error> {
        let request = RangeRequest { key: key.into(), ..RangeRequest::default() };
        let response = self.range(request).await?.response;
        Ok(response.kvs.into_iter().next().map(entry))
    }

    /// Reads a range completely at one revision and follows it from there.
    ///
    /// With `resume` the list is skipped if the remote store is still the same and still has the history;
    /// otherwise the list is made after all. See [`ListWatch::next`].
    pub fn list_watch(&self, range: KeyRange, resume: Option<Resume>) -> ListWatch {
        ListWatch::new(self.clone(), range, resume)
    }

    async fn range(&self, request: RangeRequest) -> Result<Page, Error> {
        const METHOD: &str = "Range";
        let mut kv = self.kv.clone();
        let answer = tokio::time::timeout(self.limits.answer, kv.range(request)).await;
        let answer =
            answer.map_err(|_elapsed| Error::Timeout { method: METHOD, after: self.limits.answer })?;
        let response = answer.map_err(|status| Error::from_status(METHOD, status))?.into_inner();
        let revision = self.check(METHOD, response.header.as_ref())?;
        Ok(Page { response, revision })
    }

    /// Holds a header against the pinned `cluster_id` and returns its revision.
    fn check(&self, method: &'static str, header: Option<&ResponseHeader>) -> Result<u64, Error> {
        let header = header.ok_or(Error::NoHeader { method })?;
        let found = header.cluster_id;
        let pinned = self.cluster_id.compare_exchange(0, found, Ordering::AcqRel, Ordering::Acquire);
        match pinned {
            Err(expected) if expected != found => Err(Error::ClusterIdChanged { expected, found }),
            _ => u64::try_from(header.revision).map_err(|_negative| Error::Protocol {
                method,
                found: format!("revision {}", header.revision),
                expected: "a revision of 0 or more",
            }),
        }
    }
}

/// One answer to a Range and the revision in its header.
struct Page {
    response: RangeResponse,
    revision: u64,
}

impl Error {
    fn from_status(method: &'static str, status: Status) -> Self {
        match status.code() {
            Code::PermissionDenied => Self::PermissionDenied { method, reason: status.message().to_owned() },
            _ => Self::Rpc { method, source: Box::new(status) },
        }
    }
}

/// A key-value pair from the wire. Counters below zero, which no server sends, become 0.
pub(crate) fn entry(kv: mvccpb::KeyValue) -> Entry {
    let number = |wire: i64| u64::try_from(wire).unwrap_or_default();
    Entry {
        key: kv.key,
        value: kv.value,
        create_revision: number(kv.create_revision),
        mod_revision: number(kv.mod_revision),
        version: number(kv.version),
        lease: kv.lease,
        sub: 0,
    }
}
