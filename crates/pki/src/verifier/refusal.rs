//! Why a chain that is sound as such is refused; the peer is told in these words.

use topology::{ClusterId, ClusterName};

use crate::blocks::InvalidBlocks;
use crate::certificate::Unreadable;
use crate::deny::Denial;
use crate::passport::NotAPassport;
use crate::profile::LeafRole;
use crate::spiffe::InvalidUri;

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
    #[error(
        "the accepted root {root} carries no address blocks, and no accepted root has signed a statement about those of this passport"
    )]
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
    /// What is stated about the passport's blocks does not count now.
    #[error("the statement about its passport's address blocks counts from {from} to {until}")]
    StatementDates {
        /// Start.
        from: String,
        /// End.
        until: String,
    },
    /// What is stated about the passport's key is for another cluster.
    #[error("the statement about its passport's address blocks is for {stated}, the passport is {found}'s")]
    StatementOfAnother {
        /// The URI in the statement.
        stated: String,
        /// The URI in the passport.
        found: String,
    },
    /// Its passport or its leaf is on a deny list.
    #[error("{whose} {denial}")]
    Revoked {
        /// "it was" or "its passport, that of tokyo, was".
        whose: String,
        /// What the list says.
        denial: Box<Denial>,
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

impl From<InvalidBlocks> for Refusal {
    fn from(error: InvalidBlocks) -> Self {
        Self::Unreadable(Unreadable::Blocks(error))
    }
}
