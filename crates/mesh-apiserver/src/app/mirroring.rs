//! Following the peers, and writing their backends into slices of the own cluster: the parts put together.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use super::Args;
use crate::export::Cluster;
use crate::peers::secret::PeersSecret;
use crate::peers::{self, FromObjects, PeerTask};
use crate::remote_slices::metrics::Metrics;
use crate::remote_slices::own::{Own, Teller};
use crate::remote_slices::plan::Settings;
use crate::remote_slices::sync::Sources;
use crate::remote_slices::write::Writer;
use crate::remote_slices::{Profile, RemoteSlices};
use crate::resources::following::Following;
use crate::source::SourceSpec;
use crate::source::kubernetes::access::{self, Access};

/// Holds the parts before it is known who tells of the own services, and whether there are other replicas.
pub(super) struct Mirroring {
    /// To be told of the own services.
    pub(super) teller: Teller,
    peers: PeerTask,
    client: Client,
    /// By which custom resources are told, and where the certificate for those peers is.
    said: Arc<watch::Sender<FromObjects>>,
    peers_tls_dir: Option<PathBuf>,
    own: watch::Receiver<Own>,
    settings: Settings,
    metrics: Metrics,
}

/// Holds the tasks.
pub(super) struct PeersAndSlices {
    /// Follows the peers.
    pub(super) peers: PeerTask,
    /// What the Secret of peers is read with.
    pub(super) client: Client,
    /// Writes their backends.
    pub(super) slices: RemoteSlices,
}

impl Mirroring {
    /// Prepares it; `None` if nobody is to be followed. The API server is not asked.
    ///
    /// Fails if there is no API server to write to, or the profile needs peers and there are none.
    pub(super) async fn of(
        args: &Args,
        cluster: &Cluster,
        access: &Access,
        registry: &mut Registry,
    ) -> anyhow::Result<Option<Self>> {
        let peers_tls_dir = args.peers_tls_dir.clone().filter(|_| args.peers_objects);
        if args.peers.is_none() && args.peers_secret.is_none() && peers_tls_dir.is_none() {
            if args.profile == Profile::Agentless {
                bail!(
                    "--profile agentless writes endpoint slices of peers' backends and needs --peers, --peers-secret or --peers-objects"
                );
            }
            return Ok(None);
        }
        if args.source != SourceSpec::Kubernetes {
            bail!(
                "--peers, --peers-secret and --peers-objects are for writing endpoint slices into an API server and need \
                 --source kubernetes"
            );
        }
        let config = access.read().await.context("reach the API server")?;
        let client = access::writer(&config, &access.permit)?;
        let secret = args.peers_secret.clone().map(|name| PeersSecret::new(name, cluster.name.clone()));
        let (said, objects) = watch::channel(FromObjects::unread(peers_tls_dir.is_some()));
        let peer_metrics = peers::metrics::Metrics::register(registry);
        let peers = PeerTask::new(cluster.clone(), args.peers.clone(), secret, objects, peer_metrics);
        let (teller, own) = Teller::new();
        Ok(Some(Self {
            teller,
            peers,
            client,
            said: Arc::new(said),
            peers_tls_dir,
            own,
            settings: Settings { profile: args.profile, per_slice: usize::from(args.endpoints_per_slice) },
            metrics: Metrics::register(registry),
        }))
    }

    /// By which custom resources tell of peers, and hear how they are followed.
    pub(super) fn following(&self) -> Following {
        Following::new(self.peers_tls_dir.clone(), Arc::clone(&self.said), self.peers.standings())
    }

    /// The tasks. `leads`: whether this replica writes.
    pub(super) fn begin(self, leads: Option<watch::Receiver<bool>>) -> PeersAndSlices {
        let Self { peers, client, own, settings, metrics, .. } = self;
        let sources = Sources { own, peers: peers.peers(), changed: peers.changed(), leads };
        let slices = RemoteSlices::new(settings, sources, Writer::new(client.clone()), metrics);
        PeersAndSlices { peers, client, slices }
    }
}
