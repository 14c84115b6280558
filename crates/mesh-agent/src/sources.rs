//! Own hub, peers and probes into one snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use peering::directory::Peers;
use peering::view::View;
use tokio::sync::watch;
use topology::health::NodeHealth;
use topology::record::Kind;
use topology::snapshot::Snapshot;
use topology::{ClusterName, NodeName};

/// Everything that the agent listens to.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The node that this agent is for.
    pub node: NodeName,
    /// The own hub.
    pub own: watch::Receiver<View>,
    /// The peers, as configured.
    pub peers: watch::Receiver<Peers>,
    /// What the probes say.
    pub health: watch::Receiver<Arc<NodeHealth>>,
}

/// What the sources say at one moment.
#[derive(Clone, Debug)]
pub struct Heard {
    /// What is known.
    pub snapshot: Snapshot,
    /// The own hub has told everything at least once. Before that, nothing is decided.
    pub own_synced: bool,
    /// Ids of the clusters, the own one included, that have told everything at least once: what the maps hold of
    /// them beyond that is out of date.
    pub synced_ids: BTreeSet<u16>,
    /// It is known who the peers are. Before that, nothing that the maps hold can be said to be nobody's.
    pub peers_known: bool,
    /// Configured peers that have not told everything yet, and why.
    pub unheard: BTreeMap<ClusterName, String>,
    /// How each hub's connection is, the own one first.
    pub views: Vec<(ClusterName, View)>,
    /// Peer configurations that cannot be used.
    pub problems: BTreeMap<String, String>,
}

/// What a peer must have told before its silence about a thing means that the thing is gone.
const PEER_KINDS: [Kind; 4] = [Kind::Nodes, Kind::Services, Kind::Identities, Kind::Ip];
const OWN_KINDS: [Kind; 3] = [Kind::Nodes, Kind::Identities, Kind::Ip];

impl Sources {
    /// What the sources say now. O(peers): records are shared, not copied.
    pub fn heard(&self) -> Heard {
        let own = self.own.borrow().clone();
        let peers = self.peers.borrow().clone();
        let own_synced = own.member.is_synced(&OWN_KINDS) && own.local_services_synced;
        let mut synced_ids = BTreeSet::new();
        synced_ids.extend(own.member.id.filter(|_| own_synced).map(topology::ClusterId::get));
        let mut unheard = BTreeMap::new();
        let mut views = vec![(own.member.name.clone(), own.clone())];
        let mut members = BTreeMap::new();
        for (name, receiver) in &peers.followed {
            let view = receiver.borrow().clone();
            if view.member.is_synced(&PEER_KINDS) {
                synced_ids.extend(view.member.id.map(topology::ClusterId::get));
            } else {
                unheard
                    .insert(name.clone(), view.link.reason().unwrap_or("first lists under way").to_owned());
            }
            members.insert(name.clone(), Arc::clone(&view.member));
            views.push((name.clone(), view));
        }
        // A file that cannot be used is a peer too: what the maps hold of it is kept until it can.
        for (file, problem) in &peers.problems {
            if let Some(name) = file.parse::<ClusterName>().ok().filter(|name| !members.contains_key(name)) {
                unheard.insert(name, problem.clone());
            }
        }
        let snapshot = Snapshot {
            node: self.node.clone(),
            own: own.member,
            services: own.local_services,
            peers: members,
            health: Arc::clone(&self.health.borrow()),
        };
        Heard {
            snapshot,
            own_synced,
            synced_ids,
            peers_known: peers.known,
            unheard,
            views,
            problems: peers.problems,
        }
    }
}
