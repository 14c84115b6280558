//! Following the peers, and writing their backends into slices of the own cluster: the parts put together.

use std::sync::Arc;

use anyhow::{Context, bail};
use peering::directory::{self, Directory};
use peering::ids::Ids;
use prometheus_client::registry::Registry;
use tokio::sync::{Notify, watch};

use super::Args;
use crate::remote_slices::metrics::Metrics;
use crate::remote_slices::own::{Own, Teller};
use crate::remote_slices::plan::Settings;
use crate::remote_slices::sync::Sources;
use crate::remote_slices::write::Writer;
use crate::remote_slices::{Profile, RemoteSlices};
use crate::source::SourceSpec;
use crate::source::kubernetes::access::{self, Access};

/// Holds the parts before it is known who tells of the own services, and whether there are other replicas.
pub(super) struct Mirroring {
    /// To be told of the own services.
    pub(super) teller: Teller,
    directory: Directory,
    peers: watch::Receiver<directory::Peers>,
    changed: Arc<Notify>,
    own: watch::Receiver<Own>,
    settings: Settings,
    writer: Writer,
    metrics: Metrics,
}

impl Mirroring {
    /// Prepares it; `None` without `--peers`. The API server is not asked.
    ///
    /// Fails if there is no API server to write to, or the profile needs peers and there are none.
    pub(super) async fn of(
        args: &Args,
        access: &Access,
        registry: &mut Registry,
    ) -> anyhow::Result<Option<Self>> {
        let Some(folder) = args.peers.clone() else {
            if args.profile == Profile::Agentless {
                bail!(
                    "--profile agentless writes endpoint slices of peers' backends and needs --peers FOLDER"
                );
            }
            return Ok(None);
        };
        if args.source != SourceSpec::Kubernetes {
            bail!("--peers is for writing endpoint slices into an API server and needs --source kubernetes");
        }
        let config = access.read().await.context("reach the API server")?;
        let client = access::writer(&config, &access.permit)?;
        let ids = Ids::new(args.cluster_name.clone());
        // The own cluster always gets its id.
        ids.take(&args.cluster_name, args.cluster_id)?;
        let changed = Arc::new(Notify::new());
        let (max, own_name) = (args.max_connected_clusters, args.cluster_name.clone());
        let (directory, peers) = Directory::new(folder, own_name, max, ids, Arc::clone(&changed));
        let (teller, own) = Teller::new();
        Ok(Some(Self {
            teller,
            directory,
            peers,
            changed,
            own,
            settings: Settings { profile: args.profile, per_slice: usize::from(args.endpoints_per_slice) },
            writer: Writer::new(client),
            metrics: Metrics::register(registry),
        }))
    }

    /// The tasks. `leads`: whether this replica writes.
    pub(super) fn begin(self, leads: Option<watch::Receiver<bool>>) -> (Directory, RemoteSlices) {
        let sources = Sources { own: self.own, peers: self.peers, changed: self.changed, leads };
        (self.directory, RemoteSlices::new(self.settings, sources, self.writer, self.metrics))
    }
}
