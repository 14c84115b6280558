//! One of several hubs on one etcd: it serves always, and feeds the store while it leads.

use std::time::Duration;

use bytes::Bytes;
use kvstore::etcd::Contender;
use kvstore::{Etcd, Publisher};
use mesh_runtime::{BlockReady, Chain, Shutdown};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep};
use topology::record::Kind;
use tracing::{info, warn};

use super::candidacy::{Candidacy, Term};
use super::owner::{OWNER, check_owner, owner};
use crate::election::{Election, Permit};
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

/// A hub that may become the one that writes.
#[derive(Debug)]
pub struct Replica {
    cluster: Cluster,
    origin: Origin,
    identities: identity::Options,
    etcd: Etcd,
    candidacy: Candidacy,
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
    pub candidacy: Candidacy,
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
        let candidacy = Candidacy::new(contender);
        let (report, leads) = (watch::Sender::new(Report::default()), watch::Sender::new(false));
        let identities = identity::Options::default();
        let filters = Mutex::new(filters);
        Self { cluster, origin, identities, etcd, candidacy, metrics, filters, report, leads, teller: None }
    }

    /// Leads only with the Lease, where there is to be one. `permit`: that of all clients which write to the API server.
    #[must_use]
    pub fn elected_by(self, election: Option<Election>, permit: Permit) -> Self {
        Self { candidacy: self.candidacy.by(election, permit), ..self }
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
        let (etcd, candidacy) = (self.etcd.clone(), self.candidacy.clone());
        Shared { etcd, candidacy, name: name.to_owned(), leads: self.leads.subscribe() }
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
            // A candidacy may be dropped.
            let mut term = tokio::select! {
                term = self.candidacy.elected() => term,
                () = shutdown.requested() => return self.candidacy.withdraw().await,
            };
            let begun = Instant::now();
            self.leads.send_replace(true);
            let ended = self.feed(&mut term, shutdown).await;
            self.leads.send_replace(false);
            // What was known is of this term.
            self.teller.iter().for_each(Teller::begin);
            // Also after a failure: what was under way can then be made no more.
            self.candidacy.resign(term).await;
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
    async fn feed(&self, term: &mut Term, shutdown: &Shutdown) -> Result<(), String> {
        let source = self.origin.open().await;
        let source = source.map_err(|error| Chain(&error).to_string())?;
        let (fence, kept) = (term.leadership().fence().clone(), term.leadership().kept_until());
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
            reason = self.candidacy.lost(term) => Err(reason),
            never = self.candidacy.keep_permit(kept) => match never {},
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
