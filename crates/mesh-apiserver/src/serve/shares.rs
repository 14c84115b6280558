//! A share of the places for each client, so that none takes those of the others.
//!
//! A member of the mesh signs its own certificates: names of nodes cost it nothing. So the connections of a cluster
//! are counted together, whatever names they bear. They are not counted by node: stock agents of a whole cluster share one
//! certificate.

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
    /// Of all certificates of the own cluster's agents that name the same node; stock agents all do.
    pub own_node: usize,
    /// Of all whom our rules refuse, who are only told why.
    pub refused: usize,
}

/// Places that a connection holds until this is dropped.
#[derive(Debug)]
pub struct Share {
    shares: Shares,
    holder: Option<Holder>,
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
    OwnNode(String),
    Stock(String),
    Refused,
}

#[derive(Debug)]
struct Held {
    connections: usize,
    room: SharedRoom,
}

impl Default for Caps {
    fn default() -> Self {
        Self { cluster: 8192, own_node: 8192, refused: 256 }
    }
}

impl Shares {
    /// No connections yet.
    pub fn new(caps: Caps) -> Self {
        Self { caps, held: Arc::default() }
    }

    /// A place for a connection of this peer. Administrators of the own cluster are not counted. Fails if it has all it
    /// may have.
    pub fn enter(&self, peer: &PeerIdentity) -> Result<Share, Full> {
        self.take(holder(peer))
    }

    /// A place for a connection that is only told why it is refused.
    pub fn enter_refused(&self) -> Result<Share, Full> {
        self.take(Some(Holder::Refused))
    }

    fn take(&self, holder: Option<Holder>) -> Result<Share, Full> {
        let mut room = SharedRoom::default();
        if let Some(holder) = &holder {
            let most = self.caps.of(holder);
            let mut all = self.held();
            let held = all.entry(holder.clone()).or_insert_with(|| Held::of(holder));
            if held.connections >= most {
                return Err(Full { holder: holder.clone(), most });
            }
            held.connections += 1;
            room = held.room.clone();
        }
        Ok(Share { shares: self.clone(), holder, room })
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
        let Some(holder) = &self.holder else { return };
        let mut all = self.shares.held();
        if let Some(held) = all.get_mut(holder) {
            held.connections -= 1;
            if held.connections == 0 {
                all.remove(holder);
            }
        }
    }
}

impl Held {
    fn of(holder: &Holder) -> Self {
        let room = match holder {
            Holder::OwnNode(_) => SharedRoom::default(),
            Holder::Cluster(_) | Holder::Stock(_) | Holder::Refused => SharedRoom::of_another_cluster(),
        };
        Self { connections: 0, room }
    }
}

impl Caps {
    fn of(&self, holder: &Holder) -> usize {
        match holder {
            Holder::Cluster(_) | Holder::Stock(_) => self.cluster,
            Holder::OwnNode(_) => self.own_node,
            Holder::Refused => self.refused,
        }
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cluster(cluster) => write!(f, "cluster {cluster}"),
            Self::OwnNode(node) => write!(f, "own node {node}"),
            Self::Stock(name) => write!(f, "stock clients named {name}"),
            Self::Refused => f.write_str("refused clients together"),
        }
    }
}

/// Who is counted; nobody for administrators.
fn holder(peer: &PeerIdentity) -> Option<Holder> {
    let Outcome::Accepted(accepted) = &peer.outcome else { return Some(Holder::Refused) };
    match &accepted.role {
        Role::Remote { peer: cluster, .. } | Role::Hub { cluster, .. } => {
            Some(Holder::Cluster(cluster.to_string()))
        }
        Role::Local { node } => Some(Holder::OwnNode(node.to_string())),
        Role::Admin { .. } => None,
        Role::Unattested { common_name } | Role::Store { common_name } => {
            Some(Holder::Stock(common_name.clone()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(cluster: &str) -> Option<Holder> {
        Some(Holder::Cluster(cluster.to_owned()))
    }

    #[test]
    fn a_cluster_takes_its_own_places_alone() {
        let shares = Shares::new(Caps { cluster: 2, ..Caps::default() });
        let mut held =
            vec![shares.take(of("berlin")).expect("free"), shares.take(of("berlin")).expect("free")];
        let full = shares.take(of("berlin")).expect_err("it has two").to_string();
        assert_eq!(full, "too many connections: cluster berlin may have 2 at a time; close some");
        held.push(shares.take(of("tokyo")).expect("another cluster"));
        drop(held.remove(0));
        held.push(shares.take(of("berlin")).expect("one has left"));
        drop(held);
        assert!(shares.held().is_empty(), "{shares:?}");
    }

    #[test]
    fn connections_of_one_cluster_share_their_room() {
        let shares = Shares::default();
        let [one, two, other] =
            ["berlin", "berlin", "tokyo"].map(|cluster| shares.take(of(cluster)).expect("a place"));
        assert!(one.room().is_same(two.room()) && !one.room().is_same(other.room()));
    }
}
