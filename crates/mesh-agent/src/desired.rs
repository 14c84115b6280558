//! From what a node knows to what its maps should hold, and why. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ebpf_types::{Backend, FrontendKey, IpcacheEntry, IpcacheKey, Protocol};
use ipnet::IpNet;
use topology::record::Protocol as ServiceProtocol;
use topology::selection::{Candidate, Frontend, Reason, candidates, select};
use topology::snapshot::{Member, Snapshot};
use topology::{Identity, ServiceName};

use crate::image::Image;

/// What the maps should hold, with the reasons.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// The content of the maps.
    pub image: Image,
    /// For each frontend, whose it is and what was decided about each candidate.
    pub decisions: BTreeMap<FrontendKey, Decision>,
    /// What could not be done as asked.
    pub conflicts: Vec<Conflict>,
}

/// What was decided about a frontend's candidates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The service.
    pub service: ServiceName,
    /// Each candidate and why it gets connections, or none.
    pub candidates: Vec<(Candidate, Reason)>,
}

/// Two claims to one thing: the first stays.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Conflict {
    /// What both claim.
    pub object: String,
    /// Who has it.
    pub holder: String,
    /// Who claims it too, and is ignored.
    pub claimant: String,
}

/// Decides what the maps of a node should hold. O(services × backends + addresses).
pub fn desired(snapshot: &Snapshot) -> Desired {
    let mut desired = Desired::default();
    for service in snapshot.services.values().filter(|service| service.global) {
        for (address, port) in
            service.cluster_ips.iter().flat_map(|a| service.ports.iter().map(move |p| (*a, p)))
        {
            let Some(protocol) = protocol(port.protocol) else { continue };
            let key = FrontendKey::new(SocketAddr::new(address, port.port), protocol);
            if let Some(holder) = desired.decisions.get(&key) {
                desired.conflicts.push(Conflict {
                    object: format!("frontend {}/{}", key.socket_addr(), protocol),
                    holder: holder.service.to_string(),
                    claimant: service.name.to_string(),
                });
                continue;
            }
            let candidates = candidates(snapshot, service, Frontend { address, port });
            let reasons = select(service.affinity, &candidates);
            let decided: Vec<(Candidate, Reason)> = candidates.into_iter().zip(reasons).collect();
            let mut backends: Vec<Backend> = decided
                .iter()
                .filter(|(_, reason)| reason.is_in())
                .map(|(c, _)| {
                    Backend::new(SocketAddr::new(c.address, c.port), protocol, cluster_id(snapshot, c))
                })
                .collect();
            backends.sort_unstable();
            backends.dedup();
            desired.image.frontends.insert(key, backends);
            desired.decisions.insert(key, Decision { service: service.name.clone(), candidates: decided });
        }
    }
    // The own cluster first: a peer's claim never displaces it (Cilium `pkg/source/source.go`).
    let members = std::iter::once(&snapshot.own).chain(snapshot.peers.values());
    for member in members {
        let cluster = member.id.map_or(0, topology::ClusterId::get);
        for (block, identity, node) in addresses(member, snapshot) {
            if let Some(key) = IpcacheKey::new(block.addr(), block.prefix_len()) {
                claim(&mut desired, key, IpcacheEntry::new(identity.0, cluster, node), member);
            }
        }
    }
    desired
}

/// Who is where in a cluster: its nodes, which send with their own addresses too, and its endpoints. A record of an
/// endpoint says more than that its address is a node's, so it comes last.
fn addresses(
    member: &Member,
    snapshot: &Snapshot,
) -> impl Iterator<Item = (IpNet, Identity, Option<IpAddr>)> {
    let own = member.name == snapshot.own.name;
    let nodes = member.nodes.values().flat_map(move |node| {
        let here = own && node.name == snapshot.node;
        let identity = if here { Identity::HOST } else { Identity::REMOTE_NODE };
        node.addresses.iter().map(move |address| (IpNet::from(*address), identity, Some(*address)))
    });
    nodes.chain(member.addresses.values().map(|entry| (entry.block, entry.identity, entry.host)))
}

/// Gives an address to a cluster, unless another has it already.
fn claim(desired: &mut Desired, key: IpcacheKey, entry: IpcacheEntry, member: &Member) {
    match desired.image.ipcache.get(&key) {
        Some(held) if held.cluster_id != entry.cluster_id => {
            let (address, length) = key.prefix();
            desired.conflicts.push(Conflict {
                object: format!("address {address}/{length}"),
                holder: format!("cluster id {}", held.cluster_id),
                claimant: format!("cluster {}", member.name),
            });
        }
        _ => {
            desired.image.ipcache.insert(key, entry);
        }
    }
}

fn cluster_id(snapshot: &Snapshot, candidate: &Candidate) -> u16 {
    let member = match &candidate.cluster {
        None => Some(&snapshot.own),
        Some(name) => snapshot.peers.get(name),
    };
    member.and_then(|m| m.id).map_or(0, topology::ClusterId::get)
}

/// The data path balances TCP and UDP.
fn protocol(protocol: ServiceProtocol) -> Option<Protocol> {
    match protocol {
        ServiceProtocol::Tcp => Some(Protocol::Tcp),
        ServiceProtocol::Udp => Some(Protocol::Udp),
        ServiceProtocol::Sctp => None,
    }
}

/// Nodes of other clusters that probes should reach, by cluster.
pub fn probe_targets(snapshot: &Snapshot) -> BTreeMap<topology::ClusterName, Vec<IpAddr>> {
    let nodes = |peer: &Member| peer.nodes.values().flat_map(|n| n.addresses.clone()).collect();
    snapshot.peers.values().map(|peer| (peer.name.clone(), nodes(peer))).collect()
}
