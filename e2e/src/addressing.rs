//! Who has which address in a lab. Pure arithmetic on cluster id, node number and pod number.
//!
//! | block | IPv4 | IPv6 |
//! |---|---|---|
//! | nodes of cluster `c` | `172.20.c.0/24`, node n at `.10+n` | `fd00:20:c::/64` |
//! | pods of cluster `c` | `10.c.0.0/16`, node n has `10.c.n.0/24` | `fd00:10:c::/48`, node n has `fd00:10:c:n::/64` |
//! | services, equal in all clusters | `10.96.0.0/16` | `fd00:96::/108` |
//!
//! Numbers are decimal digits in IPv6 too (`fd00:20:12::` is cluster 12), so that an address can be read.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Result, ensure};

/// The IPv4 service block of every cluster. Equal everywhere on purpose: that is the usual case in the field.
pub const SERVICE_CIDR_4: &str = "10.96.0.0/16";
/// The IPv6 service block of every cluster.
pub const SERVICE_CIDR_6: &str = "fd00:96::/108";

/// Holds the numbers of one node: cluster id 1..=95 (10.96 is the service block) and node number 1..=99.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeNumber {
    cluster: u8,
    node: u8,
}

/// Holds both addresses of a node, a gateway or a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressPair {
    /// The IPv4 address.
    pub v4: Ipv4Addr,
    /// The IPv6 address.
    pub v6: Ipv6Addr,
}

/// Holds both address blocks of a cluster or node, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockPair {
    /// The IPv4 block.
    pub v4: String,
    /// The IPv6 block.
    pub v6: String,
}

impl NodeNumber {
    /// Numbers node `node` (from 1) of the cluster with this id. Fails outside 1..=95 and 1..=99.
    pub fn new(cluster: u8, node: u8) -> Result<Self> {
        ensure!((1..=95).contains(&cluster), "cluster id {cluster}: the lab has addresses for 1 to 95");
        ensure!((1..=99).contains(&node), "node number {node}: the lab has addresses for 1 to 99");
        Ok(Self { cluster, node })
    }

    /// The name of the node's interface in the `wan` namespace: `c<cluster>n<node>`.
    pub fn wan_interface(self) -> String {
        format!("c{}n{}", self.cluster, self.node)
    }

    /// The node's own addresses (its InternalIPs).
    pub fn addresses(self) -> AddressPair {
        AddressPair {
            v4: Ipv4Addr::new(172, 20, self.cluster, 10 + self.node),
            v6: segments([0xfd00, 0x20, digits(self.cluster), 0, 0, 0, 0, digits(10 + self.node)]),
        }
    }

    /// The router of the cluster's node network, in `wan`.
    pub fn gateway(self) -> AddressPair {
        AddressPair {
            v4: Ipv4Addr::new(172, 20, self.cluster, 1),
            v6: segments([0xfd00, 0x20, digits(self.cluster), 0, 0, 0, 0, 1]),
        }
    }

    /// The node's slice of the cluster's pod block.
    pub fn pod_slice(self) -> BlockPair {
        let Self { cluster, node } = self;
        BlockPair { v4: format!("10.{cluster}.{node}.0/24"), v6: format!("fd00:10:{cluster}:{node}::/64") }
    }

    /// The addresses of the pod with this number on the node.
    pub fn pod(self, number: u8) -> AddressPair {
        AddressPair {
            v4: Ipv4Addr::new(10, self.cluster, self.node, number),
            v6: segments([0xfd00, 0x10, digits(self.cluster), digits(self.node), 0, 0, 0, digits(number)]),
        }
    }
}

/// The block that all pods of a cluster are in.
pub fn pod_block(cluster: u8) -> BlockPair {
    BlockPair { v4: format!("10.{cluster}.0.0/16"), v6: format!("fd00:10:{cluster}::/48") }
}

/// The block that all nodes of a cluster are in.
pub fn node_block(cluster: u8) -> BlockPair {
    BlockPair { v4: format!("172.20.{cluster}.0/24"), v6: format!("fd00:20:{cluster}::/64") }
}

/// The decimal digits of a number read as hexadecimal: 12 becomes 0x12.
fn digits(number: u8) -> u16 {
    let number = u16::from(number);
    ((number / 100) << 8) | ((number / 10 % 10) << 4) | (number % 10)
}

fn segments(parts: [u16; 8]) -> Ipv6Addr {
    Ipv6Addr::from(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_their_numbers() {
        let node = NodeNumber::new(12, 3).expect("in range");
        assert_eq!(node.addresses().v4.to_string(), "172.20.12.13");
        assert_eq!(node.addresses().v6.to_string(), "fd00:20:12::13");
        assert_eq!(node.pod(105).v4.to_string(), "10.12.3.105");
        assert_eq!(node.pod(105).v6.to_string(), "fd00:10:12:3::105");
        assert_eq!(node.pod_slice().v6, "fd00:10:12:3::/64");
        assert_eq!(node.wan_interface(), "c12n3");
    }

    #[test]
    fn the_service_block_is_nobodys_pod_block() {
        assert!(NodeNumber::new(96, 1).is_err());
        assert!(NodeNumber::new(0, 1).is_err());
        assert!(NodeNumber::new(1, 0).is_err());
    }
}
