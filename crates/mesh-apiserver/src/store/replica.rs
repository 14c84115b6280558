//! One of several hubs on one etcd: it serves always, and feeds the store while it leads.

use std::time::Duration;

use bytes::Bytes;
use kvstore::etcd::{Contender, Leadership};
use kvstore::{Etcd, KeyRange, Publisher, Store};
use mesh_runtime::{BlockReady, Chain, Shutdown};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep};
use topology::record::Kind;
use tracing::{info, warn};

use crate::export::Cluster;
use crate::hub::Hub;
use crate::hub::metrics::Metrics;
use crate::hub::report::Report;
use crate::identity;
use crate::peer_filters::file::FilterFile;
use crate::remote_slices::own::Teller;
use crate::source::Origin;

/// The key that the leader holds; its value names the replica. STABLE FORMAT: replicas of two versions must agree.
pub const LEADER: &str = "isthmus/v1/hub/leader";

/// The key that says whose records these are: `<cluster>/<id>`. STABLE FORMAT. The first leader writes it.
pub const OWNER: &str = "isthmus/v1/hub/cluster";

/// An etcd that this hub must not write to: it would take away what is another's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOurs {
    /// It holds the records of another cluster.
    #[error(
        "etcd holds the records of cluster {found}, this is the hub of {expected}: each cluster needs an etcd of its own (if \
         the cluster was renamed, delete the key {OWNER})"
    )]
    Cluster {
        /// Name and id.
        found: String,
        /// Ours.
        expected: String,
    },
    /// It is the etcd of a Kubernetes API server.
    #[error(
        "etcd holds keys below /registry/: it belongs to a Kubernetes API server; give the hub an etcd of its own"
    )]
    Kubernetes,
}

/// Fails if what etcd holds is not this cluster's to write.
pub fn check_owner(mirror: &Store, cluster: &Cluster) -> Result<(), NotOurs> {
    let snapshot = mirror.snapshot();
    if snapshot.range(&KeyRange::prefix("/registry/")).next().is_some() {
        return Err(NotOurs::Kubernetes);
    }
    let expected = owner(cluster);
    match snapshot.get(OWNER.as_bytes()) {
        Some(entry) if entry.value != expected => {
            let found = String::from_utf8_lossy(&entry.value).chars().take(80).collect();
            Err(NotOurs::Cluster { found, expected })
        }
        _ => Ok(()),
    }
}

fn owner(cluster: &Cluster) -> String {
    format!("{}/{}", cluster.name, cluster.id)
}

/// A hub that may become the one that writes.
#[derive(Debug)]
pub struct Replica {
    cluster: Cluster,
    origin: Origin,
    identities: identity::Options,
    etcd: Etcd,
    contender: Contender,
    metrics: Metrics,
    /// Used while this replica leads.
    filters: Mutex<FilterFile>,
    report: watch::Sender<Report>,
    leads: watch::Sender<bool>,
    teller: Option<Teller>,
}

/// What the status page shows of the etcd behind the store.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The connection and the mirror.
    pub etcd: Etcd,
    /// Knows who leads.
    pub contender: Contender,
    /// The name of this replica.
    pub name: String,
    /// Whether it is this one.
    pub leads: watch::Receiver<bool>,
}

impl Replica {
    /// A replica under a name of its own.
    pub fn new(
        cluster: Cluster,
        origin: Origin,
        etcd: Etcd,
        name: &str,
        metrics: Metrics,
        filters: FilterFile,
    ) -> Self {
        let contender = Contender::new(etcd.clone(), Bytes::from_static(LEADER.as_bytes()), name);
        let (report, leads) = (watch::Sender::new(Report::default()), watch::Sender::new(false));
        let identities = identity::Options::default();
        let filters = Mutex::new(filters);
        Self { cluster, origin, identities, etcd, contender, metrics, filters, report, leads, teller: None }
    }

    /// Tells of the own services while it leads.
    #[must_use]
    pub fn telling(self, teller: Option<Teller>) -> Self {
        Self { teller, ..self }
    }

    /// Does with identities as an operator says.
    #[must_use]
    pub fn with_identities(self, identities: identity::Options) -> Self {
        Self { identities, ..self }
    }

    /// What the status page shows of the hub; of one that has never led, nothing.
    pub fn report(&self) -> watch::Receiver<Report> {
        self.report.subscribe()
    }

    /// What the status page shows of the store.
    pub fn shared(&self, name: &str) -> Shared {
        let (etcd, contender) = (self.etcd.clone(), self.contender.clone());
        Shared { etcd, contender, name: name.to_owned(), leads: self.leads.subscribe() }
    }

    /// Stands for election, leads while it lasts, and stands again, until the shutdown is requested; then it resigns.
    ///
    /// Drops `ready` when the mirror shows a complete set of records of this cluster, whoever wrote them.
    pub async fn run(self, ready: BlockReady, shutdown: Shutdown) {
        let complete = async {
            self.complete().await;
            drop(ready);
            std::future::pending::<()>().await;
        };
        // Ends by the second arm alone.
        tokio::select! {
            () = complete => {}
            () = self.lead(&shutdown) => {}
        }
    }

    async fn lead(&self, shutdown: &Shutdown) {
        let mut pause = SHORTEST_PAUSE;
        loop {
            // A campaign may be dropped; a lease without a key runs out by itself.
            let mut leadership = tokio::select! {
                leadership = self.contender.elected() => leadership,
                () = shutdown.requested() => return,
            };
            let begun = Instant::now();
            self.leads.send_replace(true);
            let ended = self.term(&mut leadership, shutdown).await;
            self.leads.send_replace(false);
            // What was known is of this term.
            self.teller.iter().for_each(Teller::begin);
            // Also after a failure: what was under way can then be made no more.
            leadership.resign().await;
            let Err(reason) = ended else { return };
            pause = if begun.elapsed() > LONG_TERM { SHORTEST_PAUSE } else { pause };
            warn!(cluster = %self.cluster.name, reason, pause = ?pause, "this replica writes no longer");
            tokio::select! {
                () = sleep(pause) => {}
                () = shutdown.requested() => return,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Feeds the store until the term is over, and says why; `Ok` if the shutdown was requested.
    async fn term(&self, leadership: &mut Leadership, shutdown: &Shutdown) -> Result<(), String> {
        let source = self.origin.open().await;
        let source = source.map_err(|error| Chain(&error).to_string())?;
        let fence = leadership.fence().clone();
        check_owner(self.etcd.mirror(), &self.cluster).map_err(|error| error.to_string())?;
        let publisher = Publisher::new(fence.clone(), [OWNER]);
        let owned = publisher.announce([(OWNER.into(), owner(&self.cluster).into())]).await;
        owned.map_err(|error| Chain(&error).to_string())?;
        // Before any record, so that nobody is shown one that is to be hidden.
        let mut filters = self.filters.lock().await;
        filters.publish(fence.clone()).await.map_err(|error| Chain(&error).to_string())?;
        // It takes the allocations of identities from the mirror, which holds all that earlier leaders wrote.
        let hub = Hub::new(self.cluster.clone(), fence.clone(), self.metrics.clone());
        let hub = hub.with_identities(self.identities.clone()).telling(self.teller.clone());
        let hub = hub.reporting(self.report.clone());
        // What is dropped here may leave a transaction under way; it counts only while the term lasts.
        tokio::select! {
            ended = hub.run(source, None, shutdown.clone()) => ended.map_err(|error| Chain(&error).to_string()),
            reason = leadership.lost() => Err(reason),
            ended = filters.run(fence.clone()) => ended.map_err(|error| Chain(&error).to_string()),
            never = fence.compact_along() => match never {},
        }
    }

    /// Waits until the canaries of the cluster are all there.
    async fn complete(&self) {
        let mirror = self.etcd.mirror();
        let mut progress = mirror.progress();
        loop {
            progress.mark_unchanged();
            let snapshot = mirror.snapshot();
            let there = |kind: &Kind| snapshot.get(kind.canary(&self.cluster.name).as_bytes()).is_some();
            if Kind::ALL.iter().all(there) {
                info!(cluster = %self.cluster.name, revision = snapshot.revision(), "complete set in the mirror");
                return;
            }
            // The sender lives as long as the mirror, which we hold.
            progress.changed().await.expect("the mirror is alive");
        }
    }
}

/// Waits between two terms that did not last.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// After a term of this length the next failure is a new one.
const LONG_TERM: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use kvstore::StoreOptions;
    use topology::cluster::{ClusterId, MaxClusters};

    use super::*;

    #[test]
    fn what_is_anothers_is_left_alone() {
        let cluster = Cluster {
            name: "paris".parse().expect("a name"),
            id: ClusterId::try_from(1).expect("an id"),
            max: MaxClusters::N255,
            global_namespaces: true,
        };
        let store = Store::in_memory(StoreOptions::default());
        assert_eq!(check_owner(&store, &cluster), Ok(()), "a new etcd is anybody's");
        store.put(OWNER, "paris/1").expect("put");
        assert_eq!(check_owner(&store, &cluster), Ok(()));
        for found in ["paris/2", "tokyo/1", ""] {
            store.put(OWNER, found).expect("put");
            let expected = NotOurs::Cluster { found: found.to_owned(), expected: "paris/1".to_owned() };
            assert_eq!(check_owner(&store, &cluster), Err(expected));
        }
        store.put("/registry/pods/default/a", "").expect("put");
        assert_eq!(check_owner(&store, &cluster), Err(NotOurs::Kubernetes));
    }
}
