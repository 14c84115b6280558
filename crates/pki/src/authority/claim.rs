//! Where the claims of two clusters meet, and whether that is allowed. Pure.
//!
//! | | pod | node | service |
//! |---|---|---|---|
//! | **pod** | refused | refused | refused |
//! | **node** | refused | refused, unless both say `shared` | refused |
//! | **service** | refused | refused | allowed, reported |
//!
//! A service address is translated on the node of the client, so equal service blocks of two clusters never meet on a
//! wire; but a remote pod or node inside the own service block cannot be reached.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use topology::block::overlap;
use topology::{ClusterId, ClusterName};

use super::enrolment::{EnrolRequest, names_meet};
use crate::moment::Moment;

/// What a block of a cluster is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlockKind {
    /// Pods.
    Pod,
    /// Nodes.
    Node,
    /// Nodes, in a subnet with nodes of other clusters.
    SharedNode,
    /// Services.
    Service,
}

/// A block and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockRef {
    /// The cluster.
    pub cluster: ClusterName,
    /// What the block is for.
    pub kind: BlockKind,
    /// The block.
    pub block: IpNet,
}

/// Two blocks that share addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The one asked for.
    pub wanted: BlockRef,
    /// The one that is there.
    pub present: BlockRef,
    /// What they share.
    pub shared: IpNet,
}

/// Why a claim is refused; each names both parties.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// The name is another's: it is enrolled with another id.
    #[error(
        "cluster {name} is already enrolled with id {present}, not {wanted}; a renewal keeps the id, a new cluster takes a new name"
    )]
    Name {
        /// The name.
        name: ClusterName,
        /// The id asked for.
        wanted: ClusterId,
        /// The id it has.
        present: ClusterId,
    },
    /// The id is another's.
    #[error("id {id} wanted by cluster {wanted} is cluster {present}'s; give {wanted} a free id")]
    Id {
        /// The id.
        id: ClusterId,
        /// Who asks.
        wanted: ClusterName,
        /// Who has it.
        present: ClusterName,
    },
    /// Two blocks overlap that must not.
    #[error("{overlap}; {}", overlap.remedy())]
    Blocks {
        /// Which, whose, and what they share.
        overlap: Overlap,
    },
    /// A hub name could be minted by both.
    #[error(
        "hub name {wanted} of cluster {cluster} meets {present} of cluster {owner}: each could issue certificates for the other's hub; use a name of its own"
    )]
    HubName {
        /// Who asks.
        cluster: ClusterName,
        /// The name asked for.
        wanted: String,
        /// Who has the other.
        owner: ClusterName,
        /// The name that is there.
        present: String,
    },
    /// A hub address is another's.
    #[error(
        "hub address {address} of cluster {cluster} is also cluster {owner}'s; use an address of its own"
    )]
    HubAddress {
        /// Who asks.
        cluster: ClusterName,
        /// The address.
        address: IpAddr,
        /// Who has it.
        owner: ClusterName,
    },
    /// The key was certified before.
    #[error(
        "the key was already enrolled, for cluster {cluster} at {at}; of two passports of one key the holder could choose: make a new key"
    )]
    Key {
        /// For whom.
        cluster: ClusterName,
        /// When.
        at: Moment,
    },
}

/// Holds what comparing two claims gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    pub(super) refusals: Vec<Conflict>,
    pub(super) notes: Vec<Overlap>,
}

/// Compares what is wanted with what every enrolled cluster has.
pub(super) fn compare_all<'a>(
    wanted: &EnrolRequest,
    present: impl IntoIterator<Item = &'a EnrolRequest>,
) -> Findings {
    let mut all = Findings::default();
    for present in present {
        let Findings { refusals, notes } = compare(wanted, present);
        all.refusals.extend(refusals);
        all.notes.extend(notes);
    }
    all
}

/// Compares what is wanted with what one enrolled cluster has. O(blocks of one × blocks of the other).
///
/// A cluster of the same name and id is the same cluster, whatever else it asks for.
fn compare(wanted: &EnrolRequest, present: &EnrolRequest) -> Findings {
    let mut findings = Findings::default();
    if wanted.cluster == present.cluster {
        if wanted.id != present.id {
            findings.refusals.push(Conflict::Name {
                name: wanted.cluster.clone(),
                wanted: wanted.id,
                present: present.id,
            });
        }
        return findings;
    }
    if wanted.id == present.id {
        let (id, wanted, present) = (wanted.id, wanted.cluster.clone(), present.cluster.clone());
        findings.refusals.push(Conflict::Id { id, wanted, present });
    }
    for ours in block_refs(wanted) {
        for theirs in block_refs(present) {
            let Some(shared) = overlap(ours.block, theirs.block) else { continue };
            let (wanted, present) = (ours.clone(), theirs);
            let found = Overlap { wanted, present, shared };
            match allowed(found.wanted.kind, found.present.kind) {
                Verdict::Refused => findings.refusals.push(Conflict::Blocks { overlap: found }),
                Verdict::Reported => findings.notes.push(found),
            }
        }
    }
    hub_conflicts(wanted, present, &mut findings.refusals);
    findings
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Refused,
    Reported,
}

fn allowed(wanted: BlockKind, present: BlockKind) -> Verdict {
    match (wanted, present) {
        (BlockKind::Service, BlockKind::Service) | (BlockKind::SharedNode, BlockKind::SharedNode) => {
            Verdict::Reported
        }
        _ => Verdict::Refused,
    }
}

fn block_refs(request: &EnrolRequest) -> impl Iterator<Item = BlockRef> {
    [
        (BlockKind::Pod, &request.pod_cidrs),
        (BlockKind::Node, &request.node_cidrs),
        (BlockKind::SharedNode, &request.shared_node_cidrs),
        (BlockKind::Service, &request.service_cidrs),
    ]
    .into_iter()
    .flat_map(move |(kind, blocks)| {
        blocks.iter().map(move |block| BlockRef { cluster: request.cluster.clone(), kind, block: *block })
    })
}

fn hub_conflicts(wanted: &EnrolRequest, present: &EnrolRequest, refusals: &mut Vec<Conflict>) {
    for name in wanted.dns_names() {
        for other in present.dns_names() {
            if names_meet(&name, &other) {
                refusals.push(Conflict::HubName {
                    cluster: wanted.cluster.clone(),
                    wanted: name.clone(),
                    owner: present.cluster.clone(),
                    present: other,
                });
            }
        }
    }
    let others = present.addresses();
    for address in wanted.addresses().into_iter().filter(|address| others.contains(address)) {
        let (cluster, owner) = (wanted.cluster.clone(), present.cluster.clone());
        refusals.push(Conflict::HubAddress { cluster, address, owner });
    }
}

impl Overlap {
    /// What an operator can do about it.
    fn remedy(&self) -> String {
        let Self { wanted, present, shared } = self;
        let nodes = [BlockKind::Node, BlockKind::SharedNode];
        if nodes.contains(&wanted.kind) && nodes.contains(&present.kind) {
            return format!(
                "if {} and {} have nodes in one subnet, enrol both with --shared-node-cidr for it",
                wanted.cluster, present.cluster
            );
        }
        format!(
            "give {} a {} block that does not contain {shared}, or renumber {}",
            wanted.cluster, wanted.kind, present.cluster
        )
    }
}

impl fmt::Display for BlockKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pod => "pod",
            Self::Node => "node",
            Self::SharedNode => "shared node",
            Self::Service => "service",
        })
    }
}

impl fmt::Display for BlockRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cluster {}'s {} block {}", self.cluster, self.kind, self.block)
    }
}

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} overlaps {} (shared part {})", self.wanted, self.present, self.shared)
    }
}

#[cfg(test)]
mod tests;
