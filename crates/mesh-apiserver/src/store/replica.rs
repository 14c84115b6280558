//! One of several hubs on one etcd: it serves always, and feeds the store while it leads.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use kvstore::Etcd;
use kvstore::etcd::{Candidate, Leadership};
use mesh_runtime::{BlockReady, Chain, Shutdown};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep};
use topology::record::Kind;
use tracing::{info, warn};

use crate::export::Cluster;
use crate::hub::Hub;
use crate::hub::metrics::Metrics;
use crate::hub::report::Report;
use crate::peer_filters::file::FilterFile;
use crate::source::ManifestSource;

/// The key that the leader holds; its value names the replica. STABLE FORMAT: replicas of two versions must agree.
pub const LEADER: &str = "isthmus/v1/hub/leader";

/// A hub that may become the one that writes.
#[derive(Debug)]
pub struct Replica {
    cluster: Cluster,
    folder: PathBuf,
    etcd: Etcd,
    candidate: Candidate,
    metrics: Metrics,
    /// Used while this replica leads.
    filters: Mutex<FilterFile>,
    report: watch::Sender<Report>,
    leads: watch::Sender<bool>,
}

/// What the status page shows of the etcd behind the store.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The connection and the mirror.
    pub etcd: Etcd,
    /// Knows who leads.
    pub candidate: Candidate,
    /// The name of this replica.
    pub name: String,
    /// Whether it is this one.
    pub leads: watch::Receiver<bool>,
}

impl Replica {
    /// A replica under a name of its own.
    pub fn new(
        cluster: Cluster,
        folder: PathBuf,
        etcd: Etcd,
        name: &str,
        metrics: Metrics,
        filters: FilterFile,
    ) -> Self {
        let candidate = Candidate::new(etcd.clone(), Bytes::from_static(LEADER.as_bytes()), name);
        let (report, leads) = (watch::Sender::new(Report::default()), watch::Sender::new(false));
        Self { cluster, folder, etcd, candidate, metrics, filters: Mutex::new(filters), report, leads }
    }

    /// What the status page shows of the hub; of one that has never led, nothing.
    pub fn report(&self) -> watch::Receiver<Report> {
        self.report.subscribe()
    }

    /// What the status page shows of the store.
    pub fn shared(&self, name: &str) -> Shared {
        let (etcd, candidate) = (self.etcd.clone(), self.candidate.clone());
        Shared { etcd, candidate, name: name.to_owned(), leads: self.leads.subscribe() }
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
                leadership = self.candidate.elected() => leadership,
                () = shutdown.requested() => return,
            };
            let begun = Instant::now();
            self.leads.send_replace(true);
            let ended = self.term(&mut leadership, shutdown).await;
            self.leads.send_replace(false);
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
        let source = ManifestSource::open(self.folder.clone()).await;
        let source = source.map_err(|error| Chain(&error).to_string())?;
        let fence = leadership.fence().clone();
        // Before any record, so that nobody is shown one that is to be hidden.
        let mut filters = self.filters.lock().await;
        filters.publish(fence.clone()).await.map_err(|error| Chain(&error).to_string())?;
        // It takes the allocations of identities from the mirror, which holds all that earlier leaders wrote.
        let hub = Hub::new(self.cluster.clone(), fence.clone(), self.metrics.clone());
        let hub = hub.reporting(self.report.clone());
        // What is dropped here may leave a transaction under way; it counts only while the term lasts.
        tokio::select! {
            ended = hub.run(source, None, shutdown.clone()) => ended.map_err(|error| Chain(&error).to_string()),
            reason = leadership.lost() => Err(reason),
            ended = filters.run(fence.clone()) => ended.map_err(|error| Chain(&error).to_string()),
            () = fence.compact_along() => Ok(()),
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
