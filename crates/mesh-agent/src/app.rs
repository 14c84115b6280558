//! The process: arguments, wiring, life cycle.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use axum::routing::get;
use clap::Parser;
use ebpf_loader::{Capacities, Config, DataPlane, Maps};
use mesh_runtime::{Admin, AdminPages, LogFormat, Readiness, Shutdown, TaskSet};
use peering::config::HubConfig;
use peering::directory::Directory;
use peering::follow::{Relation, Subject, follow, unknown};
use peering::ids::Ids;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio::sync::{Notify, watch};
use topology::cluster::MaxClusters;
use topology::{ClusterName, NodeName};
use tracing::info;

use crate::metrics::AgentCollector;
use crate::probe::prober::{Prober, Timing};
use crate::probe::responder::respond;
use crate::reconcile::Reconciler;
use crate::sources::Sources;
use crate::status::Shown;

/// Follows the hubs of the mesh and keeps this node's BPF maps as they say: global services answered by the
/// backends of all clusters, and the identity behind each address.
#[derive(Clone, Debug, Parser)]
#[command(version, name = "mesh-agent")]
pub struct Args {
    /// Name of the cluster that this node belongs to.
    #[arg(long, env = "MESH_AGENT_CLUSTER_NAME")]
    pub cluster_name: ClusterName,
    /// Name of this node, as its cluster knows it.
    #[arg(long, env = "MESH_AGENT_NODE_NAME")]
    pub node_name: NodeName,
    /// Client configuration for the own cluster's hub, in ClusterMesh's format.
    #[arg(long, env = "MESH_AGENT_HUB_CONFIG")]
    pub hub_config: PathBuf,
    /// Folder with a client configuration for each peer, named as its cluster; watched for changes.
    #[arg(long, env = "MESH_AGENT_PEERS_DIR")]
    pub peers_dir: PathBuf,
    /// Cgroup (version 2) whose processes are balanced, with all below it and nothing else.
    #[arg(long, env = "MESH_AGENT_CGROUP")]
    pub cgroup: PathBuf,
    /// Folder on a bpffs where maps and programs are pinned, so that traffic outlives the agent.
    #[arg(long, env = "MESH_AGENT_PIN_DIR", default_value = "/sys/fs/bpf/isthmus")]
    pub pin_dir: PathBuf,
    /// Where /livez, /readyz, /status, /services, /image and /metrics are served.
    #[arg(long, env = "MESH_AGENT_ADMIN_LISTEN", default_value = "127.0.0.1:9970")]
    pub admin_listen: SocketAddr,
    /// Where probes of other agents are answered; its port is also the one on which other agents are asked.
    #[arg(long, env = "MESH_AGENT_PROBE_LISTEN", default_value = "[::]:9971")]
    pub probe_listen: SocketAddr,
    /// Time between two probes of one remote node.
    #[arg(long, env = "MESH_AGENT_PROBE_INTERVAL", default_value = "200ms", value_parser = duration)]
    pub probe_interval: Duration,
    /// How long an answer to a probe may take: more than the slowest link's round trip.
    #[arg(long, env = "MESH_AGENT_PROBE_TIMEOUT", default_value = "500ms", value_parser = duration)]
    pub probe_timeout: Duration,
    /// Unanswered probes in a row that make the backends behind a node last choice.
    #[arg(long, env = "MESH_AGENT_PROBE_MISSES", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub probe_misses: u32,
    /// How log lines look.
    #[arg(long, env = "MESH_AGENT_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

/// An agent that holds its sockets and its maps, ready to run.
#[derive(Debug)]
pub struct Bound {
    admin: Admin,
    responder: UdpSocket,
    directory: Directory,
    own: (Subject, HubConfig, watch::Sender<peering::view::View>),
    prober: Prober,
    reconciler: Reconciler<DataPlane>,
    readiness: Readiness,
    registry: Arc<Registry>,
    cluster: ClusterName,
    node: NodeName,
}

/// Opens everything that can fail at the start: configuration, sockets, maps, programs.
pub async fn build(args: Args) -> anyhow::Result<Bound> {
    let hub = HubConfig::load(&args.hub_config)?.with_context(|| {
        format!("{} has no endpoints: it is no client configuration", args.hub_config.display())
    })?;
    if !args.peers_dir.is_dir() {
        bail!("--peers-dir {}: not a folder; make it, it may be empty", args.peers_dir.display());
    }
    let admin = Admin::bind(args.admin_listen)
        .await
        .with_context(|| format!("bind the admin port {}", args.admin_listen))?;
    let responder = UdpSocket::bind(args.probe_listen)
        .await
        .with_context(|| format!("bind the probe port {}", args.probe_listen))?;
    let changed = Arc::new(Notify::new());
    let timing =
        Timing { interval: args.probe_interval, timeout: args.probe_timeout, misses: args.probe_misses };
    let port = responder.local_addr().context("read the probe port")?.port();
    let prober =
        Prober::bind(port, timing, Arc::clone(&changed)).await.context("open a socket for probes")?;

    let pin_dir = args.pin_dir;
    let config = Config { pin_dir: pin_dir.clone(), cgroup: args.cgroup, capacities: Capacities::default() };
    let data_plane = tokio::task::spawn_blocking(move || DataPlane::open(&config))
        .await
        .context("open the data plane")??;

    // A second handle on the maps: the counters are read at each scrape, beside the loop that owns them.
    let counters = Maps::open_pinned(&pin_dir).context("open the maps for their counters")?;

    let ids = Ids::new(args.cluster_name.clone());
    let max = MaxClusters::default();
    let (view, own) = watch::channel(unknown(&args.cluster_name));
    let subject = Subject {
        cluster: args.cluster_name.clone(),
        relation: Relation::Own,
        max,
        ids: ids.clone(),
        changed: Arc::clone(&changed),
    };
    let (directory, peers) =
        Directory::new(args.peers_dir, args.cluster_name.clone(), max, ids, Arc::clone(&changed));

    let mut registry = Registry::with_prefix("mesh_agent");
    let readiness = Readiness::new();
    let sources = Sources { node: args.node_name.clone(), own, peers, health: prober.health() };
    let first_sync = readiness.block("first complete lists of the own hub in the maps");
    let reconciler = Reconciler::new(sources, changed, data_plane, first_sync)?;
    AgentCollector::register(&mut registry, reconciler.shown(), prober.reports(), counters);
    Ok(Bound {
        admin,
        responder,
        directory,
        own: (subject, hub, view),
        prober,
        reconciler,
        readiness,
        registry: Arc::new(registry),
        cluster: args.cluster_name,
        node: args.node_name,
    })
}

impl Bound {
    /// Where the admin pages are served.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.address()
    }

    /// Runs until `shutdown` is requested. Maps and programs stay as they are.
    pub async fn run(self, shutdown: Shutdown) -> anyhow::Result<()> {
        info!(cluster = %self.cluster, node = %self.node, admin = %self.admin.address(), "agent started");
        let shown = self.reconciler.shown();
        let targets = self.reconciler.targets();
        let reports = self.prober.reports();
        let pages = AdminPages {
            readiness: self.readiness,
            registry: self.registry,
            status: Arc::new({
                let shown = shown.clone();
                move || page(&shown, |shown| shown.status(&reports.borrow()))
            }),
            extra: pages(&shown),
        };
        let (subject, hub, view) = self.own;
        let mut tasks = TaskSet::new(shutdown.clone());
        tasks.spawn("admin", self.admin.serve(pages, shutdown.clone()));
        tasks.spawn(
            "own hub",
            until(shutdown.clone(), async move {
                follow(subject, hub, view).await;
                Err(anyhow!("following the own hub ended"))
            }),
        );
        let directory = self.directory;
        tasks.spawn("peers", until(shutdown.clone(), async move { Ok(directory.run().await?) }));
        let prober = self.prober;
        tasks.spawn("probes", until(shutdown.clone(), async move { match prober.run(targets).await {} }));
        let responder = self.responder;
        tasks.spawn(
            "probe answers",
            until(shutdown.clone(), async move { match respond(responder).await {} }),
        );
        let reconciler = self.reconciler;
        tasks.spawn("reconcile", until(shutdown, async move { match reconciler.run().await? {} }));
        tasks.run(DRAIN).await?;
        info!("agent stopped; maps and programs stay, traffic goes on");
        Ok(())
    }
}

/// Runs `task` until the shutdown is requested: each is dropped where it stands, which loses nothing.
async fn until(shutdown: Shutdown, task: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::select! {
        outcome = task => outcome,
        () = shutdown.requested() => Ok(()),
    }
}

fn pages(shown: &watch::Receiver<Option<Arc<Shown>>>) -> axum::Router {
    let (services, image) = (shown.clone(), shown.clone());
    axum::Router::new()
        .route("/services", get(async move || axum::Json(page(&services, Shown::services))))
        .route("/image", get(async move || axum::Json(page(&image, Shown::image))))
}

fn page(shown: &watch::Receiver<Option<Arc<Shown>>>, page: impl Fn(&Shown) -> Value) -> Value {
    let shown = shown.borrow().clone();
    shown.map_or_else(
        || json!({ "reconcile": { "state": "inert", "waitingFor": "the first run" } }),
        |s| page(&s),
    )
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_no_number: std::num::ParseIntError| EXPECTED.to_owned())?;
    match &text[digits.len()..] {
        _ if number == 0 => Err(EXPECTED.to_owned()),
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        _ => Err(EXPECTED.to_owned()),
    }
}

const EXPECTED: &str = "expected a positive whole number and ms or s, such as 200ms";
const DRAIN: Duration = Duration::from_secs(5);
