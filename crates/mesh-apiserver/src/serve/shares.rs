//! A share of the places for each client, so that none takes those of the others.
//!
//! A member of the mesh signs its own certificates: names of nodes cost it nothing. So the connections of a cluster
//! are counted together, whatever names they bear, and for each of its nodes, which catches an honest client that
//! forgets to close what it opens.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pki::{Outcome, PeerIdentity, Role};

use crate::etcd_api::SharedRoom;

/// Who holds how many connections. Clones share the count.
#[derive(Clone, Debug, Default)]
pub struct Shares {
    caps: Caps,
    held: Arc<Mutex<HashMap<Holder, Held>>>,
}

/// Most connections at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Of one cluster: its agents, where they follow this hub themselves, and its hubs. Also of one stock name.
    pub cluster: usize,
    /// Of one node of another cluster.
    pub cluster_node: usize,
    /// Of one node of the own cluster.
    pub own_node: usize,
    /// Of all whom our rules refuse, who are only told why.
    pub refused: usize,
}

/// Places that a connection holds until this is dropped.
#[derive(Debug)]
pub struct Share {
    shares: Shares,
    holders: Vec<Holder>,
    room: SharedRoom,
}

/// Somebody has all the connections that it may have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many connections: {holder} may have {most} at a time; close some")]
pub struct Full {
    holder: Holder,
    most: usize,
}

/// Whose connections are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Holder {
    Cluster(String),
    ClusterNode { cluster: String, node: String },
    OwnNode(String),
    Stock(String),
    Refused,
}

#[derive(Debug, Default)]
struct Held {
    connections: usize,
    room: SharedRoom,
}

impl Default for Caps {
    fn default() -> Self {
        Self { cluster: 4096, cluster_node: 64, own_node: 16, refused: 256 }
    }
}

impl Shares {
    /// No connections yet.
    pub fn new(caps: Caps) -> Self {
        Self { caps, held: Arc::default() }
    }

    /// Places for a connection of this peer. Administrators of the own cluster are not counted. Fails if one of its
    /// holders has all it may have.
    pub fn enter(&self, peer: &PeerIdentity) -> Result<Share, Full> {
        self.take(holders(peer))
    }

    /// A place for a connection that is only told why it is refused.
    pub fn enter_refused(&self) -> Result<Share, Full> {
        self.take(vec![Holder::Refused])
    }

    fn take(&self, holders: Vec<Holder>) -> Result<Share, Full> {
        let mut held = self.held();
        for holder in &holders {
            let most = self.caps.of(holder);
            if held.get(holder).is_some_and(|held| held.connections >= most) {
                return Err(Full { holder: holder.clone(), most });
            }
        }
        // The first holder is the widest one.
        let mut room = None;
        for holder in &holders {
            let held = held.entry(holder.clone()).or_default();
            held.connections += 1;
            room.get_or_insert_with(|| held.room.clone());
        }
        drop(held);
        Ok(Share { shares: self.clone(), holders, room: room.unwrap_or_default() })
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Holder, Held>> {
        // Each change is whole, so a panic elsewhere leaves nothing half done.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// What all connections of the same holder may have asked for and not read.
    pub fn room(&self) -> &SharedRoom {
        &self.room
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut all = self.shares.held();
        for holder in &self.holders {
            if let Some(held) = all.get_mut(holder) {
                held.connections -= 1;
                if held.connections == 0 {
                    all.remove(holder);
                }
            }
        }
    }
}

impl Caps {
    fn of(&self, holder: &Holder) -> usize {
        match holder {
            Holder::Cluster(_) | Holder::Stock(_) => self.cluster,
            Holder::ClusterNode { .. } => self.cluster_node,
            Holder::OwnNode(_) => self.own_node,
            Holder::Refused => self.refused,
        }
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cluster(cluster) => write!(f, "cluster {cluster}"),
            Self::ClusterNode { cluster, node } => write!(f, "node {node} of cluster {cluster}"),
            Self::OwnNode(node) => write!(f, "own node {node}"),
            Self::Stock(name) => write!(f, "stock clients named {name}"),
            Self::Refused => f.write_str("refused clients together"),
        }
    }
}

/// The widest first.
fn holders(peer: &PeerIdentity) -> Vec<Holder> {
    let Outcome::Accepted(accepted) = &peer.outcome else { return vec![Holder::Refused] };
    match &accepted.role {
        Role::Remote { peer: cluster, node, .. } | Role::Hub { cluster, node, .. } => {
            let (cluster, node) = (cluster.to_string(), node.to_string());
            vec![Holder::Cluster(cluster.clone()), Holder::ClusterNode { cluster, node }]
        }
        Role::Local { node } => vec![Holder::OwnNode(node.to_string())],
        Role::Admin { .. } => Vec::new(),
        Role::Unattested { common_name } => vec![Holder::Stock(common_name.clone())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(cluster: &str, node: &str) -> Vec<Holder> {
        let cluster = cluster.to_owned();
        vec![Holder::Cluster(cluster.clone()), Holder::ClusterNode { cluster, node: node.to_owned() }]
    }

    #[test]
    fn a_cluster_with_many_node_names_takes_its_own_places() {
        let shares = Shares::new(Caps { cluster: 3, cluster_node: 2, ..Caps::default() });
        let take = |cluster, node| shares.take(of(cluster, node));
        let mut held = vec![take("berlin", "n1").expect("free"), take("berlin", "n1").expect("free")];
        let full = take("berlin", "n1").expect_err("the node has two").to_string();
        assert_eq!(full, "too many connections: node n1 of cluster berlin may have 2 at a time; close some");
        held.push(take("berlin", "n2").expect("another node"));
        let full = take("berlin", "n3").expect_err("the cluster has three").to_string();
        assert!(full.contains("cluster berlin may have 3"), "{full}");
        held.push(take("tokyo", "n1").expect("another cluster"));
        // What could not be taken whole was not taken in part.
        drop(held.remove(0));
        held.push(take("berlin", "n3").expect("one has left"));
        drop(held);
        assert!(shares.held().is_empty(), "{shares:?}");
    }

    #[test]
    fn connections_of_one_cluster_share_their_room() {
        let shares = Shares::default();
        let [one, two, other] = [("berlin", "n1"), ("berlin", "n2"), ("tokyo", "n1")]
            .map(|(cluster, node)| shares.take(of(cluster, node)).expect("a place"));
        assert!(one.room().is_same(two.room()) && !one.room().is_same(other.room()));
    }
}
