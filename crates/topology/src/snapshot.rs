//! Everything that one node knows: its own cluster, the peers, and how they are. Immutable and structurally
//! shared: a new version costs what changed, and readers keep the version that they have.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use ipnet::IpNet;

use crate::cluster::{ClusterId, ClusterName};
use crate::health::{NodeHealth, Reachability};
use crate::identity::Identity;
use crate::labels::Labels;
use crate::name::{NodeName, ServiceName};
use crate::record::Kind;
use crate::record::ip::IpEntry;
use crate::record::local::LocalService;
use crate::record::node::Node;
use crate::record::service::RemoteService;

/// What one node knows at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The node that this is about.
    pub node: NodeName,
    /// The own cluster.
    pub own: Arc<Member>,
    /// Services of the own cluster, by name.
    pub services: OrdMap<ServiceName, Arc<LocalService>>,
    /// The other clusters, by name.
    pub peers: BTreeMap<ClusterName, Arc<Member>>,
    /// What this node's own probes say about nodes of other clusters.
    pub health: Arc<NodeHealth>,
}

/// One cluster as its records describe it.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name.
    pub name: ClusterName,
    /// Its id; `None` until its configuration has been read.
    pub id: Option<ClusterId>,
    /// Kinds of records of which a first complete list has been read.
    pub synced: Vec<Kind>,
    /// Its nodes, by name.
    pub nodes: OrdMap<NodeName, Arc<Node>>,
    /// The backends that it offers, by service. Empty for the own cluster, whose services are in
    /// [`Snapshot::services`].
    pub services: OrdMap<ServiceName, Arc<RemoteService>>,
    /// Its addresses and their identities.
    pub addresses: OrdMap<IpNet, Arc<IpEntry>>,
    /// Its identities and the labels they stand for.
    pub identities: OrdMap<Identity, Arc<Labels>>,
}

impl Member {
    /// A cluster of which nothing is known yet.
    pub fn unknown(name: ClusterName) -> Self {
        Self {
            name,
            id: None,
            synced: Vec::new(),
            nodes: OrdMap::new(),
            services: OrdMap::new(),
            addresses: OrdMap::new(),
            identities: OrdMap::new(),
        }
    }

    /// True if a first complete list of every one of `kinds` has been read.
    pub fn is_synced(&self, kinds: &[Kind]) -> bool {
        kinds.iter().all(|kind| self.synced.contains(kind))
    }

    /// The address of the node behind which `backend` is, if the cluster has published it. O(log addresses).
    pub fn host_of(&self, backend: IpAddr) -> Option<IpAddr> {
        self.addresses.get(&IpNet::from(backend)).and_then(|entry| entry.host)
    }
}

impl Snapshot {
    /// What this node thinks of the way to `backend` of `peer`: what its probes of the node behind which the
    /// backend is say, or [`Reachability::Unprobed`] if that node is not known.
    pub fn reachability(&self, peer: &Member, backend: IpAddr) -> Reachability {
        peer.host_of(backend).map_or(Reachability::Unprobed, |host| self.health.of(host))
    }
}
