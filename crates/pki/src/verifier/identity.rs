//! The result of a verification, as it travels with the connection.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use topology::{ClusterId, ClusterName, NodeName};

use super::refusal::Refusal;
use crate::deny::CertificateId;
use crate::passport::Passport;
use crate::trust::AnchorId;

/// Who the peer of a connection is, and whether our rules accept it.
#[derive(Clone, Debug)]
pub struct PeerIdentity {
    /// The peer's certificate in words: subject, issuer, serial; safe to log.
    pub subject: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// What our rules say about a sound chain.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The peer is who it says.
    Accepted(Accepted),
    /// The chain is sound, the peer is refused; every call is to be answered with this.
    Refused(Refusal),
}

/// Holds what is known about an accepted peer.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// What the peer is.
    pub role: Role,
    /// The passport it came with; none for stock peers.
    pub passport: Option<Arc<Passport>>,
    /// When its leaf, passport or root ends, whichever is first.
    pub expires: SystemTime,
    /// The accepted authority at the end of its chain; [`Trust::still_accepts`](crate::trust::Trust::still_accepts)
    /// says whether it counts under newer files, too.
    pub anchor: AnchorId,
    /// Its leaf, as deny lists name it.
    pub leaf: CertificateId,
}

/// What a peer is, as far as its certificates prove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Another cluster's client (`remote-<peer>`), or this one's.
    Remote {
        /// The cluster.
        peer: ClusterName,
        /// Its id.
        id: ClusterId,
        /// The node that holds the key.
        node: NodeName,
    },
    /// An agent of this cluster (`local-<cluster>` under this cluster's own passport).
    Local {
        /// Its node.
        node: NodeName,
    },
    /// An administrator of this cluster (`admin-<cluster>` under this cluster's own passport).
    Admin {
        /// The machine that holds the key.
        node: NodeName,
    },
    /// A hub.
    Hub {
        /// Its cluster.
        cluster: ClusterName,
        /// That cluster's id.
        id: ClusterId,
        /// The node it runs on.
        node: NodeName,
    },
    /// A stock peer: an authority that the operator listed vouches for the name, nothing proves the cluster.
    Unattested {
        /// The common name, safe to log.
        common_name: String,
    },
    /// The etcd behind a hub's store, or a hub as its client. Nobody at a hub.
    Store {
        /// The common name, safe to log.
        common_name: String,
    },
}

/// What a client expects of the server it dials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The hub of the own cluster: its passport must be ours, by key.
    OwnHub,
    /// The hub of this cluster.
    Peer(ClusterName),
    /// A stock server: chain and name only.
    Unattested,
    /// The etcd behind a hub's store: below a passport one of the role `etcd`, or one below an authority of its own; never
    /// one below a mesh root.
    Store,
}

impl PeerIdentity {
    /// What is known about the peer, if it was accepted.
    pub fn accepted(&self) -> Option<&Accepted> {
        match &self.outcome {
            Outcome::Accepted(accepted) => Some(accepted),
            Outcome::Refused(_) => None,
        }
    }

    /// Why the peer was refused, if it was.
    pub fn refusal(&self) -> Option<&Refusal> {
        match &self.outcome {
            Outcome::Accepted(_) => None,
            Outcome::Refused(refusal) => Some(refusal),
        }
    }
}

impl Accepted {
    /// The cluster that the peer belongs to, if a passport proves it.
    pub fn cluster(&self) -> Option<&ClusterName> {
        self.passport.as_ref().map(|passport| &passport.uri.cluster)
    }
}

impl fmt::Display for PeerIdentity {
    /// One line for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outcome {
            Outcome::Accepted(accepted) => write!(f, "{} ({})", accepted.role, self.subject),
            Outcome::Refused(refusal) => write!(f, "{}: {refusal}", self.subject),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remote { peer, node, .. } => write!(f, "client of cluster {peer} on {node}"),
            Self::Local { node } => write!(f, "own agent on {node}"),
            Self::Admin { node } => write!(f, "own administrator on {node}"),
            Self::Hub { cluster, node, .. } => write!(f, "hub of cluster {cluster} on {node}"),
            Self::Unattested { common_name } => write!(f, "unattested {common_name}"),
            Self::Store { common_name } => write!(f, "store {common_name}"),
        }
    }
}
