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
use super::ledger::Moment;

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

/// Compares what is wanted with what one enrolled cluster has. O(blocks of one × blocks of the other).
///
/// A cluster of the same name and id is the same cluster, whatever else it asks for.
pub(super) fn compare(wanted: &EnrolRequest, present: &EnrolRequest) -> Findings {
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
mod tests {
    use super::*;
    use ipnet::Ipv4Net;
    use proptest::prelude::*;
    use topology::block::parse_block;

    fn request(cluster: &str, id: u32, blocks: [&[&str]; 4]) -> EnrolRequest {
        let [pod_cidrs, node_cidrs, shared_node_cidrs, service_cidrs] =
            blocks.map(|texts| texts.iter().map(|text| parse_block(text).expect("a block")).collect());
        EnrolRequest {
            cluster: cluster.parse().expect("a name"),
            id: id.try_into().expect("an id"),
            pod_cidrs,
            node_cidrs,
            shared_node_cidrs,
            service_cidrs,
            hub_addresses: Vec::new(),
        }
    }

    fn refusals(wanted: &EnrolRequest, present: &EnrolRequest) -> Vec<String> {
        compare(wanted, present).refusals.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn refusals_name_parties_kinds_and_prefixes() {
        let paris = request("paris", 1, [&["10.1.0.0/17"], &["192.168.1.0/24"], &[], &["10.96.0.0/12"]]);
        let tokyo = request("tokyo", 2, [&["10.1.0.0/16"], &["192.168.2.0/24"], &[], &["10.96.0.0/12"]]);
        let found = compare(&tokyo, &paris);
        let texts: Vec<String> = found.refusals.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "cluster tokyo's pod block 10.1.0.0/16 overlaps cluster paris's pod block 10.1.0.0/17 (shared part 10.1.0.0/17); \
              give tokyo a pod block that does not contain 10.1.0.0/17, or renumber paris"
            ]
        );
        let notes: Vec<String> = found.notes.iter().map(ToString::to_string).collect();
        assert_eq!(
            notes,
            [
                "cluster tokyo's service block 10.96.0.0/12 overlaps cluster paris's service block 10.96.0.0/12 \
              (shared part 10.96.0.0/12)"
            ]
        );
    }

    #[test]
    fn every_pair_of_kinds() {
        let kinds = [BlockKind::Pod, BlockKind::Node, BlockKind::SharedNode, BlockKind::Service];
        for (i, ours) in kinds.into_iter().enumerate() {
            for (j, theirs) in kinds.into_iter().enumerate() {
                let mut blocks: [[&[&str]; 4]; 2] = [[&[]; 4]; 2];
                blocks[0][i] = &["fd00:1::/48"];
                blocks[1][j] = &["fd00:1:0:7::/64"];
                let [a, b] = [request("a", 1, blocks[0]), request("b", 2, blocks[1])];
                let refused = !compare(&a, &b).refusals.is_empty();
                assert_eq!(refused, !compare(&b, &a).refusals.is_empty(), "{ours} {theirs} both ways");
                let same = ours == theirs && matches!(ours, BlockKind::Service | BlockKind::SharedNode);
                assert_eq!(refused, !same, "{ours} against {theirs}");
            }
        }
    }

    #[test]
    fn names_and_ids_are_unique_and_a_renewal_is_not_a_collision() {
        let paris = request("paris", 1, [&["10.1.0.0/16"], &[], &[], &[]]);
        assert_eq!(compare(&paris, &paris), Findings::default());
        let wider = request("paris", 1, [&["10.0.0.0/8"], &[], &[], &[]]);
        assert_eq!(compare(&wider, &paris), Findings::default());
        let other_id = request("paris", 3, [&["10.3.0.0/16"], &[], &[], &[]]);
        assert_eq!(refusals(&other_id, &paris).len(), 1);
        assert!(refusals(&other_id, &paris)[0].contains("already enrolled with id 1, not 3"));
        let same_id = request("tokyo", 1, [&["10.2.0.0/16"], &[], &[], &[]]);
        assert!(refusals(&same_id, &paris)[0].starts_with("id 1 wanted by cluster tokyo is cluster paris's"));
    }

    #[test]
    fn hub_names_stand_for_all_below_them() {
        let hub = |cluster: &str, id, names: &[&str]| EnrolRequest {
            hub_addresses: names.iter().map(|name| name.parse().expect("a hub address")).collect(),
            ..request(cluster, id, [&[], &[], &[], &[]])
        };
        let paris = hub("paris", 1, &["hub.example.com", "192.0.2.1"]);
        for (name, meets) in [
            ("hub.example.com", true),
            ("a.hub.example.com", true),
            ("example.com", true),
            ("bhub.example.com", false),
            ("192.0.2.1", true),
            ("::ffff:192.0.2.1", true),
            ("192.0.2.2", false),
        ] {
            assert_eq!(!refusals(&hub("tokyo", 2, &[name]), &paris).is_empty(), meets, "{name}");
        }
    }

    fn net() -> impl Strategy<Value = IpNet> {
        (0_u32..64, 26_u8..=32).prop_map(|(host, len)| {
            IpNet::V4(Ipv4Net::new((0x0a00_0000 | host).into(), len).expect("at most 32").trunc())
        })
    }

    fn nets() -> impl Strategy<Value = Vec<IpNet>> {
        proptest::collection::vec(net(), 0..3)
    }

    proptest! {
        /// Over 64 addresses: refused exactly if some address is in two blocks whose kinds must not meet.
        #[test]
        fn equals_brute_force(a in [nets(), nets(), nets(), nets()], b in [nets(), nets(), nets(), nets()]) {
            let make = |cluster: &str, id, [pod, node, shared, service]: [Vec<IpNet>; 4]| EnrolRequest {
                pod_cidrs: pod, node_cidrs: node, shared_node_cidrs: shared, service_cidrs: service,
                ..request(cluster, id, [&[], &[], &[], &[]])
            };
            let (first, second) = (make("a", 1, a.clone()), make("b", 2, b.clone()));
            let mut expected = false;
            for host in 0_u32..64 {
                let address = IpAddr::V4((0x0a00_0000 | host).into());
                let held = |nets: &[Vec<IpNet>; 4]| nets.each_ref().map(|nets| nets.iter().any(|net| net.contains(&address)));
                let (by_a, by_b) = (held(&a), held(&b));
                // pod, node, shared node, service: only shared with shared and service with service may meet.
                for (i, ours) in by_a.into_iter().enumerate() {
                    for (j, theirs) in by_b.into_iter().enumerate() {
                        expected |= ours && theirs && !(i == j && i >= 2);
                    }
                }
            }
            prop_assert_eq!(!compare(&first, &second).refusals.is_empty(), expected);
            prop_assert_eq!(!compare(&second, &first).refusals.is_empty(), expected);
        }
    }
}
