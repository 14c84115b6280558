//! The result of a verification, as it travels with the connection.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use topology::{ClusterId, ClusterName, NodeName};

use crate::blocks::InvalidBlocks;
use crate::certificate::Unreadable;
use crate::passport::{NotAPassport, Passport};
use crate::profile::LeafRole;
use crate::spiffe::InvalidUri;
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

/// Why a sound chain is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The path is not root, passport, leaf.
    #[error("{between} certificates between leaf and {anchor}, expected exactly the passport of a cluster")]
    Shape {
        /// How many.
        between: usize,
        /// The authority at the end of the path.
        anchor: String,
    },
    /// The authority has no blocks to hold the passport against.
    #[error("the accepted root {root} carries no address blocks, so its passports cannot be held to any")]
    RootWithoutBlocks {
        /// The root.
        root: String,
    },
    /// The issuer of the leaf is no passport.
    #[error("its issuer is no passport: {0}")]
    NotAPassport(#[from] NotAPassport),
    /// The passport claims more than its root has.
    #[error("its passport claims {claimed}, the root has {allowed}")]
    BeyondRoot {
        /// The passport's blocks.
        claimed: String,
        /// The root's.
        allowed: String,
    },
    /// The leaf cannot be read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// The leaf has no URI, or several.
    #[error(
        "the leaf has {found} URIs, expected exactly one, spiffe://<trust-domain>/cluster/<name>/node/<node>/<role>"
    )]
    Uris {
        /// How many.
        found: usize,
    },
    /// The leaf's URI is not a leaf's.
    #[error("the leaf's {0}")]
    Uri(#[from] InvalidUri),
    /// The leaf's URI names another cluster or trust domain than the passport's.
    #[error("its URI names {leaf}, its passport is {passport}'s")]
    UriOfAnother {
        /// Cluster and trust domain in the leaf.
        leaf: String,
        /// Cluster and trust domain in the passport.
        passport: String,
    },
    /// The leaf has a wildcard name.
    #[error("it has the wildcard name {name}, expected whole names")]
    Wildcard {
        /// The name.
        name: String,
    },
    /// The leaf has an address that its passport does not permit.
    #[error("it has the address {address}, which its passport does not permit")]
    Address {
        /// The address, as text if it is one.
        address: String,
    },
    /// The common name names another cluster.
    #[error("common name names {named}, passport is {passport}'s")]
    NamesAnother {
        /// The cluster in the common name.
        named: String,
        /// The cluster of the passport.
        passport: ClusterName,
    },
    /// `local-` or `admin-` under another key than the own passport's.
    #[error(
        "common name {common_name} counts only under this cluster's own passport, presented was that of {passport}"
    )]
    NotOwn {
        /// The common name.
        common_name: String,
        /// The cluster of the passport.
        passport: ClusterName,
    },
    /// A common name that no rule knows.
    #[error(
        "common name {found}, expected remote-<cluster>, local-<cluster>, admin-<cluster> or that of a hub"
    )]
    UnknownName {
        /// The common name.
        found: String,
    },
    /// The common name and the URI disagree on the role.
    #[error("common name {common_name} is not that of the role {role} in its URI")]
    RoleMismatch {
        /// The common name.
        common_name: String,
        /// The role in the URI.
        role: LeafRole,
    },
    /// Another cluster bears our name.
    #[error(
        "its passport bears this cluster's own name {name} with another key (renewed, or two clusters of one name)"
    )]
    OwnName {
        /// The name.
        name: ClusterName,
    },
    /// Another cluster bears our id.
    #[error(
        "its passport gives cluster {peer} this cluster's own id {id}; one of the two must be enrolled again"
    )]
    OwnId {
        /// The peer.
        peer: ClusterName,
        /// The id.
        id: ClusterId,
    },
    /// The server is another cluster's.
    #[error("the server is cluster {found}'s, expected {expected}'s")]
    WrongCluster {
        /// The cluster of the passport.
        found: ClusterName,
        /// The one that was dialled.
        expected: ClusterName,
    },
    /// The server is not the own hub.
    #[error(
        "the server's passport (cluster {found}) is not this cluster's own, as found in the client's chain"
    )]
    NotOwnHub {
        /// The cluster of the server's passport.
        found: ClusterName,
    },
    /// The own chain has no passport to compare with.
    #[error(
        "the own certificate file has no passport after the leaf, so the own hub cannot be told from others"
    )]
    NoOwnPassport,
    /// What is trusted for the store is trusted by many.
    #[error(
        "it is below {anchor}, under which every member of the mesh could be the store; expected this cluster's own \
         passport in ca.crt, or an authority for this etcd alone"
    )]
    StoreOfAnyone {
        /// The authority at the end of the path.
        anchor: String,
    },
    /// A certificate of this cluster, but for something else.
    #[error("common name {common_name} with the role {role} in its URI, expected one of the role {expected}")]
    NotStore {
        /// The common name.
        common_name: String,
        /// The role in the URI.
        role: LeafRole,
        /// The role that it should have.
        expected: LeafRole,
    },
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

impl From<InvalidBlocks> for Refusal {
    fn from(error: InvalidBlocks) -> Self {
        Self::Unreadable(Unreadable::Blocks(error))
    }
}
