//! A store whose truth is an etcd cluster: followed into a mirror, written through fenced transactions.
//!
//! ```text
//!   etcd ─ Range at an older revision, then Watch ─> Follower ─> Store (mirror) ─> readers, watchers
//!     ^ <── linearizable Range, once a second ─────────┘ (how old is the mirror?)
//!     └──── Txn if create_revision(leader key) == mine ──────── Fence <── Leadership <── Contender
//! ```
//!
//! * [`Etcd`] is the handle: the mirror, the connection of the moment, calls, and how old the mirror is.
//! * [`Follower`] is the task behind it. It uses one endpoint at a time and goes on to the next when that fails; what it
//!   has missed meanwhile it gets from etcd's history. Only when etcd has compacted that does it list again, and then
//!   watchers of the mirror learn that they have to, too.
//! * [`Contender`] waits until nobody leads; a [`Leadership`] lasts as long as its lease; whatever is written through its
//!   [`Fence`] is written only while the key that proves it is there. A process that was paused and wakes up as a former
//!   leader can write nothing.
//!
//! An etcd whose `cluster_id` is another one than at first, or whose revisions went back, is another store: the
//! follower ends with an error, and so should the process. Under one name, readers are never shown two histories.
//!
//! Addresses and TLS are the caller's: it brings a [`Dial`].

mod call;
mod election;
mod error;
mod fence;
mod follow;
mod list;
mod metrics;
mod watch;

pub use call::{ANSWER, unary};
pub use election::{Contender, LEASE_TTL_SECS, Leadership};
pub use error::{EtcdError, FenceError, StoreReplaced};
pub use fence::Fence;
pub use follow::{Follower, HISTORY};
pub use metrics::register;

use crate::store::{Store, StoreOptions};
use futures_util::future::BoxFuture;
use std::{fmt, sync::Arc, time::Duration};
use tokio::{sync::watch as latest, time::Instant};
use tonic::transport::Channel;

/// How to reach the members of an etcd cluster.
pub trait Dial: fmt::Debug + Send + Sync + 'static {
    /// Number of endpoints; at least one.
    fn count(&self) -> usize;

    /// An endpoint's name, for logs and status.
    fn name(&self, endpoint: usize) -> String;

    /// Connects to an endpoint. The channel is one connection, and fails when it breaks. The wait is bounded here.
    fn dial(&self, endpoint: usize) -> BoxFuture<'_, Result<Channel, DialError>>;
}

/// Why an endpoint could not be reached.
pub type DialError = Box<dyn std::error::Error + Send + Sync>;

/// An etcd cluster and its mirror. Clones are handles to the same.
#[derive(Clone, Debug)]
pub struct Etcd {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    mirror: Store,
    /// The connection in use.
    contact: latest::Sender<Option<Contact>>,
    /// The last moment at which the mirror held all that etcd held.
    current: latest::Sender<Instant>,
}

/// A connection that has answered.
#[derive(Clone, Debug)]
struct Contact {
    channel: Channel,
    endpoint: String,
}

impl Etcd {
    /// Connects to the first endpoint that answers, and returns when the mirror holds all that etcd held at that time.
    ///
    /// Tries for ever; dropping the future ends that. The mirror begins with up to [`HISTORY`] older revisions, so that
    /// clients of another replica, or of this one before its restart, resume instead of reading everything again.
    pub async fn open(dial: impl Dial, options: StoreOptions) -> Result<(Self, Follower), StoreReplaced> {
        follow::open(Box::new(dial), options).await
    }

    /// The mirror: what to read and watch.
    pub fn mirror(&self) -> &Store {
        &self.shared.mirror
    }

    /// The name of the endpoint in use; `None` without contact.
    pub fn endpoint(&self) -> Option<String> {
        self.shared.contact.borrow().as_ref().map(|contact| contact.endpoint.clone())
    }

    /// Time since the mirror was last known to hold everything that etcd held. Below about two seconds with contact.
    pub fn age(&self) -> Duration {
        self.shared.current.borrow().elapsed()
    }

    /// Waits until the mirror was known to hold everything that etcd held, less than this long ago. Cancel safe.
    pub async fn current_within(&self, age: Duration) {
        let mut current = self.shared.current.subscribe();
        // The sender lives as long as this.
        drop(current.wait_for(|at| at.elapsed() < age).await);
    }

    /// Waits until the mirror has reached a revision, at most this long. Returns whether it has.
    pub async fn reached(&self, revision: u64, within: Duration) -> bool {
        let mut progress = self.mirror().progress();
        let reached = progress.wait_for(|latest| *latest >= revision);
        matches!(tokio::time::timeout(within, reached).await, Ok(Ok(_)))
    }
}
