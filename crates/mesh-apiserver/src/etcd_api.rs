//! etcd's v3 gRPC API over the store.
//!
//! ```text
//!   TLS connection ─> serve(io, routes, grants) ─> KV.Range      ─> Snapshot, pages that clients share
//!                                                  KV.Put, Txn…  ─> Store::transact, then synced; or to the etcd
//!                                                                   that the store is the mirror of
//!                                                  Watch.Watch   ─> Session: a cursor a watch, and
//!                                                                   events that the fan-out encoded
//! ```
//!
//! What stock ClusterMesh clients and `etcdctl` use, with etcd's codes and texts. [`Grants`] come with the connection: a request
//! without them is refused.

mod arriving;
mod calls;
mod connection;
mod counts;
mod fanout;
mod framing;
mod grants;
mod hello;
mod inspect;
mod kv;
mod lease;
mod pages;
mod plain;
mod range;
mod read;
mod refusal;
mod room;
mod tally;
#[cfg(test)]
mod tests;
mod txn;
mod unfiltered;
mod view;
mod watch;
mod write;

pub use calls::Calls;
pub use connection::{ConnectionError, serve, serve_until};
pub use grants::Grants;
pub use room::SharedRoom;
pub use view::Views;

use counts::Counts;
use fanout::{Fanout, Pacer};
use kvstore::{Etcd, Store, proto::etcdserverpb::ResponseHeader};
use pages::Pages;
use std::{ops::Deref, sync::Arc, time::Duration};
use tally::Tallies;
use tokio::sync::Semaphore;

/// Bounds of what clients may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest request message on the wire; etcd's is 1.5 MiB and 512 KiB for the rest of the message.
    pub message_bytes: usize,
    /// Longest put, delete or transaction; etcd's `--max-request-bytes`.
    pub request_bytes: usize,
    /// Most comparisons, and most operations in each branch, of a transaction; etcd's `--max-txn-ops`.
    pub txn_operations: usize,
    /// Most watches on one stream.
    pub watches_per_stream: usize,
    /// Most watches of all streams of one connection.
    pub watches_per_connection: usize,
    /// Most streams (calls under way) on one connection.
    pub streams_per_connection: u32,
    /// Time that a client has to say its first words on a connection.
    pub hello_time: Duration,
    /// Time that a client has to send a message it has begun, or all of a call that is no stream.
    pub message_time: Duration,
    /// Time that a client has to read a list or a page; then its connection is closed.
    pub list_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 2 << 20,
            request_bytes: 3 << 19,
            txn_operations: 128,
            watches_per_stream: 1000,
            watches_per_connection: 4000,
            streams_per_connection: 256,
            hello_time: Duration::from_secs(10),
            message_time: Duration::from_secs(20),
            list_time: Duration::from_secs(300),
        }
    }
}

/// Implements the gRPC services. Clones are the same API.
#[derive(Clone, Debug)]
struct Api {
    parts: Arc<Parts>,
}

/// What the API is made of.
#[derive(Debug)]
struct Parts {
    store: Store,
    /// Where writes go, if the store is a mirror.
    etcd: Option<Etcd>,
    limits: Limits,
    counts: Counts,
    tallies: Tallies,
    pages: Arc<Pages>,
    fanout: Arc<Fanout>,
    views: Arc<Views>,
    /// Turns to read through a view.
    judging: Arc<Semaphore>,
    _pacer: Pacer,
}

impl Deref for Api {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Api {
    fn new(parts: Parts) -> Self {
        Self { parts: Arc::new(parts) }
    }

    /// The header that every response carries; stock clients refuse one without.
    fn header(&self, revision: u64) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.store.cluster_id(),
            member_id: self.store.member_id(),
            revision: wire(revision),
            raft_term: RAFT_TERM,
        }
    }
}

/// A revision as the wire has it.
fn wire(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// There is one writer and no election; etcd's first term.
const RAFT_TERM: u64 = 1;
/// The API version that is spoken; stock tools want "3.5.x".
const ETCD_VERSION: &str = "3.5.21";
