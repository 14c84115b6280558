//! `cilium/state/nodes/v1/<cluster>/<node>`: a node, its addresses and its pod ranges.
//! Cilium `pkg/node/types/node.go`; the Go struct has no JSON tags and omits nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Origin, Rejected, address, expect_equal, expect_id, from_json, to_json};
use crate::name::NodeName;

/// A node in its wire form. STABLE FORMAT: member order and names are the stock ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[expect(missing_docs, reason = "members are named and meant as in Cilium's Node")]
pub struct NodeValue {
    pub name: String,
    pub cluster: String,
    #[serde(rename = "IPAddresses")]
    pub ip_addresses: Option<Vec<NodeAddress>>,
    #[serde(rename = "IPv4AllocCIDR")]
    pub ipv4_alloc_cidr: Option<GoIpNet>,
    #[serde(rename = "IPv4SecondaryAllocCIDRs")]
    pub ipv4_secondary_alloc_cidrs: Option<Vec<GoIpNet>>,
    #[serde(rename = "IPv6AllocCIDR")]
    pub ipv6_alloc_cidr: Option<GoIpNet>,
    #[serde(rename = "IPv6SecondaryAllocCIDRs")]
    pub ipv6_secondary_alloc_cidrs: Option<Vec<GoIpNet>>,
    #[serde(rename = "IPv4HealthIP")]
    pub ipv4_health_ip: String,
    #[serde(rename = "IPv6HealthIP")]
    pub ipv6_health_ip: String,
    #[serde(rename = "IPv4IngressIP")]
    pub ipv4_ingress_ip: String,
    #[serde(rename = "IPv6IngressIP")]
    pub ipv6_ingress_ip: String,
    #[serde(rename = "ClusterID")]
    pub cluster_id: u32,
    pub source: String,
    pub encryption_key: u8,
    pub labels: Option<BTreeMap<String, String>>,
    pub annotations: Option<BTreeMap<String, String>>,
    pub wireguard_pub_key: String,
    #[serde(rename = "BootID")]
    pub boot_id: String,
}

/// One address of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAddress {
    /// `InternalIP`, `ExternalIP`, `CiliumInternalIP`, …
    #[serde(rename = "Type")]
    pub kind: String,
    /// The address as text.
    #[serde(rename = "IP")]
    pub ip: String,
}

/// Go's `net.IPNet` in JSON: the mask is the base64 of its 4 or 16 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoIpNet {
    /// The network's address as text.
    #[serde(rename = "IP")]
    pub ip: String,
    /// The mask's bytes in base64.
    #[serde(rename = "Mask")]
    pub mask: String,
}

/// A node of some cluster, as far as this project uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The node's name.
    pub name: NodeName,
    /// Its internal addresses, in the order published: those that other clusters send to.
    pub addresses: Vec<IpAddr>,
    /// The ranges that its pods have addresses from.
    pub pod_blocks: Vec<IpNet>,
    /// The value of the label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    /// The value of the label `topology.kubernetes.io/region`.
    pub region: Option<String>,
}

impl NodeValue {
    /// The value as a stock apiserver writes it.
    pub fn encode(&self) -> Vec<u8> {
        to_json(self)
    }
}

impl Node {
    /// Reads the record with key suffix `suffix` of the cluster `origin`.
    ///
    /// Fails if the value is not JSON, or names another node, cluster or id. Addresses that do not parse are
    /// left out, as Cilium leaves them out.
    pub fn decode(origin: &Origin, suffix: &str, value: &[u8]) -> Result<Self, Rejected> {
        let value: NodeValue = from_json(value)?;
        expect_equal("Cluster", &value.cluster, origin.cluster.as_str())?;
        expect_equal("Name", &value.name, suffix)?;
        expect_id("ClusterID", value.cluster_id, origin)?;
        let Ok(name) = value.name.parse() else {
            return Err(Rejected::malformed("Name", value.name, "a node name"));
        };
        let usable = |a: &&NodeAddress| a.kind == "InternalIP";
        let addresses = value.ip_addresses.iter().flatten().filter(usable);
        let blocks = [&value.ipv4_alloc_cidr, &value.ipv6_alloc_cidr].into_iter().flatten();
        let secondary = [&value.ipv4_secondary_alloc_cidrs, &value.ipv6_secondary_alloc_cidrs];
        let blocks = blocks.chain(secondary.into_iter().flatten().flatten());
        let label = |key: &str| value.labels.as_ref().and_then(|labels| labels.get(key).cloned());
        Ok(Self {
            name,
            addresses: addresses.filter_map(|a| address("IP", &a.ip).ok()).collect(),
            pod_blocks: blocks.filter_map(GoIpNet::block).collect(),
            zone: label("topology.kubernetes.io/zone"),
            region: label("topology.kubernetes.io/region"),
        })
    }
}

impl GoIpNet {
    /// The block that this stands for, if address and mask are sound.
    pub fn block(&self) -> Option<IpNet> {
        let address: IpAddr = self.ip.parse().ok()?;
        let mask = STANDARD.decode(&self.mask).ok()?;
        block_of(address, &mask).map(|net| net.trunc())
    }
}

/// The block of an address and a mask of its family, host bits kept; `None` if the mask has a hole.
pub(super) fn block_of(address: IpAddr, mask: &[u8]) -> Option<IpNet> {
    let bits: u32 = mask.iter().map(|byte| byte.leading_ones()).sum();
    let contiguous = mask.iter().map(|byte| byte.count_ones()).sum::<u32>() == bits
        && mask.iter().skip_while(|byte| **byte == 0xff).skip(1).all(|byte| *byte == 0);
    let sized = matches!((address, mask.len()), (IpAddr::V4(_), 4) | (IpAddr::V6(_), 16));
    let length = u8::try_from(bits).ok().filter(|_| contiguous && sized)?;
    IpNet::new(address, length).ok()
}

impl From<IpNet> for GoIpNet {
    fn from(net: IpNet) -> Self {
        let mask = match net.netmask() {
            IpAddr::V4(mask) => STANDARD.encode(mask.octets()),
            IpAddr::V6(mask) => STANDARD.encode(mask.octets()),
        };
        Self { ip: net.network().to_string(), mask }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_base64() {
        let v4: IpNet = "10.244.0.0/24".parse().expect("a block");
        assert_eq!(GoIpNet::from(v4).mask, "////AA==");
        let v6: IpNet = "fd00:10:244::/64".parse().expect("a block");
        assert_eq!(GoIpNet::from(v6).mask, "//////////8AAAAAAAAAAA==");
        assert_eq!(GoIpNet::from(v4).block(), Some(v4));
        assert_eq!(GoIpNet::from(v6).block(), Some(v6));
    }

    #[test]
    fn a_mask_with_a_hole_is_no_block() {
        for mask in [[255, 0, 255, 0], [255, 1, 0, 0], [0, 255, 0, 0]] {
            let net = GoIpNet { ip: "10.0.0.0".to_owned(), mask: STANDARD.encode(mask) };
            assert_eq!(net.block(), None, "{mask:?}");
        }
    }
}
