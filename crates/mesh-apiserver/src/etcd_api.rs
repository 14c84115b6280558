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

pub use connection::{ConnectionError, serve, serve_until};
pub use grants::Grants;
pub use room::SharedRoom;
pub use view::Views;

use axum::{middleware, routing::post};
use counts::Counts;
use fanout::{Fanout, Pacer};
use kvstore::{
    Etcd, Store,
    proto::etcdserverpb::{
        ResponseHeader, cluster_server::ClusterServer, kv_server::KvServer, lease_server::LeaseServer,
        maintenance_server::MaintenanceServer,
    },
};
use pages::Pages;
use std::{sync::Arc, time::Duration};
use tally::Tallies;
use tokio::sync::{Mutex, Semaphore};
use tonic::service::Routes;

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

/// The API as a service for one or many connections; clones share the store.
///
/// Must be called within a tokio runtime: a task hands out events until the last clone is dropped.
/// Each request must carry an `Arc<Grants>` in its extensions; [`serve`] puts it there.
pub fn routes(store: Store, limits: Limits) -> axum::Router {
    routes_with(store, limits, Arc::default())
}

/// As [`routes`], with views whose counters are registered somewhere.
pub fn routes_with(store: Store, limits: Limits, views: Arc<Views>) -> axum::Router {
    router(store, None, limits, views)
}

/// The API over the mirror of an etcd cluster: reads and watches are served from the mirror, and what clients write,
/// once it is authorized, goes to etcd.
///
/// The same holds as for [`routes`].
pub fn shared_routes(etcd: Etcd, limits: Limits, views: Arc<Views>) -> axum::Router {
    router(etcd.mirror().clone(), Some(etcd), limits, views)
}

fn router(store: Store, etcd: Option<Etcd>, limits: Limits, views: Arc<Views>) -> axum::Router {
    let fanout = Arc::new(Fanout::new(&store));
    let pages = Arc::new(Pages::default());
    let expired = pages.clone();
    let pacer = Arc::new(Pacer::start(fanout.clone(), &store, move || expired.expire()));
    let judging = Arc::new(Semaphore::new(JUDGING));
    let api = Api {
        store,
        etcd,
        limits,
        counts: Arc::default(),
        tallies: Arc::default(),
        pages,
        fanout,
        views,
        judging,
        writing: Arc::default(),
        _pacer: pacer,
    };
    let (most, guarded) = (limits.message_bytes, api.clone());
    // The first two answer with bytes that clients share, which generated services cannot; the third is called most.
    let shared = axum::Router::new()
        .route("/etcdserverpb.KV/Range", post(read::range))
        .route("/etcdserverpb.Watch/Watch", post(watch::watch))
        .route("/etcdserverpb.KV/Put", post(write::put))
        .with_state(api.clone());
    Routes::new(KvServer::new(api.clone()).max_decoding_message_size(most))
        .add_service(LeaseServer::new(api.clone()).max_decoding_message_size(most))
        .add_service(MaintenanceServer::new(api.clone()).max_decoding_message_size(most))
        .add_service(ClusterServer::new(api).max_decoding_message_size(most))
        .into_axum_router()
        .layer(middleware::from_fn_with_state(guarded, unfiltered::only))
        .merge(shared)
        .merge(plain::routes())
}

/// Answers every call with this status, and `/version` and `/health` as always: for clients that are told why they are not
/// served.
pub fn refusing(status: tonic::Status) -> axum::Router {
    let refuse = move || {
        let response = status.clone().into_http::<axum::body::Body>();
        async move { response }
    };
    plain::routes().fallback(refuse)
}

/// Implements the gRPC services.
#[derive(Clone, Debug)]
struct Api {
    store: Store,
    /// Where writes go, if the store is a mirror.
    etcd: Option<Etcd>,
    limits: Limits,
    counts: Arc<Counts>,
    tallies: Arc<Tallies>,
    pages: Arc<Pages>,
    fanout: Arc<Fanout>,
    views: Arc<Views>,
    /// Turns to read through a view.
    judging: Arc<Semaphore>,
    /// The turn to write: who waits for it leaves its thread to others, which the store's own lock would hold up.
    writing: Arc<Mutex<()>>,
    _pacer: Arc<Pacer>,
}

impl Api {
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

/// Reads through a view at a time: they keep a processor busy.
const JUDGING: usize = 2;
/// There is one writer and no election; etcd's first term.
const RAFT_TERM: u64 = 1;
/// The API version that is spoken; stock tools want "3.5.x".
const ETCD_VERSION: &str = "3.5.21";
