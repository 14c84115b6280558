//! The process: command line, wiring, status page.

pub mod args;
pub mod leader_elect;
mod mirroring;
mod passport;
pub mod status;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::Router;
use kvstore::etcd::Follower;
use kvstore::{Store, StoreOptions};
use mesh_runtime::{Admin, AdminPages, Readiness, Shutdown, TaskSet};
use pki::server::Acceptor;
use pki::{Files, LiveCredentials, Reloader};
use prometheus_client::registry::Registry;
use tracing::{info, warn};

pub use self::args::Args;
use self::mirroring::{Mirroring, PeersAndSlices};
use self::passport::check_passport;
use self::status::Status;
use crate::election::{self, Campaign, Election};
use crate::etcd_api::{Calls, Limits, Views};
use crate::export::Cluster;
use crate::hub::{self, Hub};
use crate::identity;
use crate::peer_filters::{self, file::FilterFile};
use crate::resources::Resources;
use crate::serve::clients::Clients;
use crate::serve::notices::Notices;
use crate::serve::shares::{Caps, Shares};
use crate::serve::{self, Server, Service};
use crate::source::kubernetes::access::Access;
use crate::source::{Origin, Source, SourceSpec};
use crate::store::owner::check_owner;
use crate::store::replica::Replica;
use crate::store::{self, EtcdStore, StoreSpec};

/// A hub that has bound its ports and is ready to run.
pub struct Bound {
    /// Where the API is served.
    pub hub_address: SocketAddr,
    /// Where the admin pages are served.
    pub admin_address: SocketAddr,
    parts: Parts,
    shutdown: Shutdown,
}

/// Holds what the tasks will own.
struct Parts {
    feed: Feed,
    mirroring: Option<PeersAndSlices>,
    store: Store,
    server: Server,
    service: Service,
    reloader: Reloader,
    admin: Admin,
    registry: Registry,
    readiness: Readiness,
    status: Status,
}

/// Who fills the store.
enum Feed {
    /// This process alone.
    Hub { hub: Box<Hub>, source: Source, filters: Box<FilterFile> },
    /// The replica that leads, which may be this one.
    Replica {
        replica: Box<Replica>,
        follower: Box<Follower>,
        reloader: Option<Box<Reloader>>,
        campaign: Option<Box<Campaign>>,
    },
}

/// Opens the store, reads the certificates and binds the ports. Nothing is served yet.
///
/// Fails with what is wrong and where; nothing is left behind.
pub async fn build(args: Args, shutdown: Shutdown) -> anyhow::Result<Bound> {
    let cluster = Cluster {
        name: args.cluster_name.clone(),
        id: args.cluster_id,
        max: args.max_connected_clusters,
        global_namespaces: args.global_namespaces_by_default,
    };
    if u32::from(cluster.id) > cluster.max.get() {
        bail!("cluster id {} is above --max-connected-clusters {}", cluster.id, cluster.max.get());
    }
    let files = Files::in_dir(&args.tls_dir);
    let (credentials, reloader) = LiveCredentials::watch(files)
        .with_context(|| format!("load certificates from {}", args.tls_dir.display()))?;
    check_passport(&cluster, &credentials.current()).map_err(anyhow::Error::msg)?;
    let own = cluster.clone();
    let reloader = reloader.only_if(move |credentials| check_passport(&own, credentials));

    let mut registry = Registry::with_prefix("mesh_apiserver");
    let metrics = peer_filters::metrics::Metrics::register(&mut registry);
    let filters = FilterFile::open(args.peer_filters.clone(), metrics)?;
    let (kubeconfig, context) = (args.kubeconfig.clone(), args.kube_context.clone());
    let access = Access { kubeconfig, context, permit: leader_elect::permit(&args) };
    let mirroring = Mirroring::of(&args, &cluster, &access, &mut registry).await?;
    let resources = (args.source == SourceSpec::Kubernetes)
        .then(|| Resources::new(access.clone(), &cluster, args.agent_peers()));
    let resources = resources.map(|resources| resources.beside(mirroring.as_ref().map(Mirroring::following)));
    let filters = filters.beside(resources.clone());
    let teller = mirroring.as_ref().map(|mirroring| mirroring.teller.clone());
    let origin = Origin::new(&args.source, access.clone(), &mut registry).with_cilium(args.cilium);
    let identities = identity::Options {
        labels: args.identity_labels.clone(),
        unused_after: Duration::from_secs(args.identity_gc_after),
    };
    let source = origin.open().await?;
    let server =
        Server::bind(args.listen).await.with_context(|| format!("bind the API to {}", args.listen))?;
    let admin = Admin::bind(args.admin_listen).await;
    let admin = admin.with_context(|| format!("bind the admin port to {}", args.admin_listen))?;

    let views = Arc::new(Views::default());
    views.register(&mut registry);
    let clients = Clients::default();
    let metrics = hub::metrics::Metrics::register(&mut registry);
    let filter_problem = filters.problem();
    // Last, so that whatever else is wrong leaves nothing behind.
    let (store, feed, report, shared) = match &args.store {
        StoreSpec::Embedded => {
            let directory = args.data_dir.as_deref().context("--store embedded needs --data-dir")?;
            let store = open_embedded(directory).await?;
            let mut filters = filters;
            filters.publish(store.clone()).await?;
            let hub = Hub::new(cluster.clone(), store.clone(), metrics);
            let hub = hub.with_identities(identities).telling(teller);
            let report = hub.report();
            (store, Feed::Hub { hub: Box::new(hub), source, filters: Box::new(filters) }, report, None)
        }
        StoreSpec::Etcd(endpoints) => {
            // A leader opens the source anew; here it has shown that it can be opened.
            drop(source);
            let opened = store::open(endpoints, args.store_tls_dir.as_deref(), &shutdown).await?;
            let EtcdStore { etcd, follower, reloader } = opened.context("stopped before etcd answered")?;
            check_owner(etcd.mirror(), &cluster)?;
            kvstore::etcd::register(&etcd, &mut registry);
            let name = args.replica_name.clone();
            let name = name.unwrap_or_else(|| replica_name(server.address()));
            let (election, campaign) = leader_elect::prepare(&args, &access, &name).await?.unzip();
            let replica = Replica::new(cluster.clone(), origin, etcd.clone(), &name, metrics, filters);
            let standing = election.as_ref().map(Election::standing);
            let replica = replica.elected_by(election, access.permit.clone());
            let replica = replica.with_identities(identities).telling(teller);
            let (report, shared) = (replica.report(), replica.shared(&name));
            election::metrics::register(&mut registry, shared.leads.clone(), standing);
            let feed = Feed::Replica {
                replica: Box::new(replica),
                follower: Box::new(follower),
                reloader: reloader.map(Box::new),
                campaign: campaign.map(Box::new),
            };
            (etcd.mirror().clone(), feed, report, Some(shared))
        }
    };
    let leads = shared.as_ref().map(|shared| shared.leads.clone());
    let mirroring = mirroring.map(|mirroring| mirroring.begin(leads));
    kvstore::metrics::register(&store, &mut registry);
    let service = Service {
        cluster: cluster.name.clone(),
        acceptor: Acceptor::new(credentials.clone()),
        calls: match &shared {
            Some(shared) => Calls::shared(shared.etcd.clone(), Limits::default(), views),
            None => Calls::with_views(store.clone(), Limits::default(), views),
        },
        limits: Limits::default(),
        clients: clients.clone(),
        shares: Shares::new(Caps { cluster: args.max_connections_per_peer.get(), ..Caps::default() }),
        notices: Notices::default(),
        metrics: serve::metrics::Metrics::register(&mut registry, &clients),
    };
    let status = Status {
        cluster,
        region: args.region,
        store: store.clone(),
        shared,
        report,
        credentials,
        clients,
        peer_filters: filter_problem,
        resources: resources.map(|resources| resources.findings()),
        remote_slices: mirroring.as_ref().map(|mirroring| mirroring.slices.report()),
        started: jiff::Timestamp::now(),
    };
    let readiness = Readiness::new();
    Ok(Bound {
        hub_address: server.address(),
        admin_address: admin.address(),
        parts: Parts {
            feed,
            mirroring,
            store,
            server,
            service,
            reloader,
            admin,
            registry,
            readiness,
            status,
        },
        shutdown,
    })
}

impl Bound {
    /// Runs until the shutdown is requested. Fails if a task does.
    pub async fn run(self) -> anyhow::Result<()> {
        let Parts { feed, mirroring, store, server, service, reloader, admin, registry, readiness, status } =
            self.parts;
        let shutdown = self.shutdown;
        info!(
            cluster = %status.cluster.name,
            id = %status.cluster.id,
            hub = %self.hub_address,
            admin = %self.admin_address,
            certificate = status.credentials.current().subject(),
            "hub started"
        );
        let ready = readiness.block("first complete set of records");
        let pages = AdminPages {
            readiness,
            registry: Arc::new(registry),
            status: Arc::new(move || status.show()),
            extra: Router::new(),
        };
        let mut tasks = TaskSet::new(shutdown.clone());
        let until = shutdown.clone();
        match feed {
            Feed::Hub { hub, source, mut filters } => {
                let (over, target) = (shutdown.clone(), store.clone());
                tasks.spawn("peer filters", async move {
                    // A file that was read is in force or not yet, and then the next start sees to it.
                    tokio::select! {
                        ended = filters.run(target) => ended.context("follow the peer filters"),
                        () = over.requested() => Ok(()),
                    }
                });
                tasks.spawn("hub", async move { Ok(hub.run(source, ready, until).await?) });
            }
            Feed::Replica { replica, mut follower, reloader, campaign } => {
                // The follower holds the connection over which a leader resigns: it ends after it, and so does the campaign.
                let resigned = Shutdown::new();
                let (over, released) = (resigned.clone(), resigned.clone());
                if let Some(campaign) = campaign {
                    tasks.spawn("election", async move {
                        // It may be dropped between any two steps.
                        tokio::select! {
                            never = campaign.run() => match never {},
                            () = released.requested() => Ok(()),
                        }
                    });
                }
                tasks.spawn("replica", async move {
                    replica.run(ready, until).await;
                    resigned.request();
                    Ok(())
                });
                tasks.spawn("etcd", async move {
                    // The follower may be dropped between any two steps.
                    tokio::select! {
                        failed = follower.run() => failed.map(|never| match never {}).context("follow the store at etcd"),
                        () = over.requested() => Ok(()),
                    }
                });
                if let Some(reloader) = reloader {
                    let until = shutdown.clone();
                    tasks.spawn("store certificates", follow_files(*reloader, until));
                }
            }
        }
        if let Some(PeersAndSlices { peers, client, slices }) = mirroring {
            let (until, over) = (shutdown.clone(), shutdown.clone());
            tasks.spawn("peers", async move {
                // Dropping it ends the connections.
                tokio::select! {
                    ended = peers.run(client) => ended.map(|never| match never {}).context("follow the peers"),
                    () = until.requested() => Ok(()),
                }
            });
            tasks.spawn("endpoint slices", async move {
                slices.run(over).await;
                Ok(())
            });
        }
        tasks.spawn("api", server.serve(service, shutdown.clone()));
        tasks.spawn("admin", admin.serve(pages, shutdown.clone()));
        let (until, maintained) = (shutdown.clone(), store.clone());
        tasks.spawn("store", async move {
            // Both arms may be dropped between two steps of theirs.
            tokio::select! {
                never = maintained.maintain() => match never {},
                () = until.requested() => Ok(()),
            }
        });
        tasks.spawn("certificates", follow_files(reloader, shutdown));
        let outcome = tasks.run(DRAIN).await;
        // Also after a failure: what is written is to be on disk.
        if let Err(error) = store.close().await {
            warn!(error = %mesh_runtime::Chain(&error), "close the store");
        }
        Ok(outcome?)
    }
}

async fn open_embedded(directory: &Path) -> anyhow::Result<Store> {
    let path = directory.to_owned();
    let opened = tokio::task::spawn_blocking(move || {
        pki::durable::private_dir(&path)?;
        anyhow::Ok(Store::open(&path, StoreOptions::default())?)
    });
    opened.await?.with_context(|| format!("open the store in {}", directory.display()))
}

async fn follow_files(reloader: Reloader, shutdown: Shutdown) -> anyhow::Result<()> {
    // A reload that is under way is lost, and the process ends anyway.
    tokio::select! {
        ended = reloader.run() => ended.context("follow the certificate files"),
        () = shutdown.requested() => Ok(()),
    }
}

/// The name of this machine, or pod, and the port of its API.
fn replica_name(api: SocketAddr) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "hub" } else { host.trim() };
    format!("{host}:{}", api.port())
}

/// Time for tasks to end after the shutdown was requested.
const DRAIN: Duration = Duration::from_secs(5);
