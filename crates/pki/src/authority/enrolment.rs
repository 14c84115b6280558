//! What a cluster asks for when it is enrolled.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use rustls::pki_types::DnsName;
use serde::{Deserialize, Serialize};
use topology::block::{InvalidBlock, overlap, parse_block};
use topology::{ClusterId, ClusterName};

use crate::blocks::{Blocks, MAX_RANGES};
use crate::profile::{HUBBLE_SUFFIX, MESH_SUFFIX, SHARED_NAMES};

/// Holds a cluster's claim: its name, its id, its addresses. STABLE FORMAT: a part of the ledger's lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolRequest {
    /// The cluster's name.
    pub cluster: ClusterName,
    /// Its id.
    pub id: ClusterId,
    /// Addresses of its pods.
    #[serde(default)]
    pub pod_cidrs: Vec<IpNet>,
    /// Addresses of its nodes.
    #[serde(default)]
    pub node_cidrs: Vec<IpNet>,
    /// Addresses of its nodes in a subnet that it shares with nodes of other clusters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared_node_cidrs: Vec<IpNet>,
    /// Addresses of its services; not in the passport, checked against others' pods and nodes.
    #[serde(default)]
    pub service_cidrs: Vec<IpNet>,
    /// Names and addresses of its hub, beside `<cluster>.mesh.cilium.io`.
    #[serde(default)]
    pub hub_addresses: Vec<HubAddress>,
}

/// A DNS name or an address under which a hub is reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HubAddress {
    /// A DNS name, lower case, at least two labels, no wildcard.
    Name(String),
    /// An address.
    Address(IpAddr),
}

/// Why a text is not a [`HubAddress`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "hub address {found:?}: expected an address or a whole DNS name such as hub.paris.example, without port or wildcard"
)]
pub struct InvalidHubAddress {
    found: String,
}

/// Why a request cannot be granted to anyone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRequest {
    /// A block is none.
    #[error("cluster {cluster}: its {block}")]
    Block {
        /// The cluster.
        cluster: ClusterName,
        /// What is wrong.
        #[source]
        block: InvalidBlock,
    },
    /// No pods.
    #[error("cluster {cluster}: no pod block given; expected at least one (--pod-cidr)")]
    NoPods {
        /// The cluster.
        cluster: ClusterName,
    },
    /// An IPv6 block reaches into the mapped range.
    #[error(
        "cluster {cluster}: its address space {space} reaches into ::ffff:0:0/96; write IPv4 blocks as IPv4"
    )]
    Mapped {
        /// The cluster.
        cluster: ClusterName,
        /// The address space.
        space: String,
    },
    /// A block holds addresses that no pod, node or service of a cluster can have.
    #[error(
        "cluster {cluster}: its block {block} reaches into {special}, whose addresses mean something else on every machine; give blocks without it"
    )]
    Special {
        /// The cluster.
        cluster: ClusterName,
        /// The block.
        block: IpNet,
        /// The special-purpose block.
        special: IpNet,
    },
    /// Too many.
    #[error("cluster {cluster}: {found} separate address ranges, expected at most {MAX_RANGES}")]
    TooMany {
        /// The cluster.
        cluster: ClusterName,
        /// How many.
        found: usize,
    },
    /// A hub name that belongs to the mesh as a whole.
    #[error(
        "cluster {cluster}: hub name {name} lies in {reserved}, where every cluster has its names by itself"
    )]
    Reserved {
        /// The cluster.
        cluster: ClusterName,
        /// The name.
        name: String,
        /// The reserved suffix.
        reserved: &'static str,
    },
}

impl EnrolRequest {
    /// The request with every block in canonical form, or what is wrong with it.
    pub fn canonical(&self) -> Result<Self, InvalidRequest> {
        let cluster = || self.cluster.clone();
        let canonical = |nets: &[IpNet]| {
            let mut nets = nets
                .iter()
                .map(|net| parse_block(&net.to_string()))
                .collect::<Result<Vec<_>, _>>()
                .map_err(|block| InvalidRequest::Block { cluster: cluster(), block })?;
            nets.sort_unstable();
            nets.dedup();
            Ok(nets)
        };
        let request = Self {
            pod_cidrs: canonical(&self.pod_cidrs)?,
            node_cidrs: canonical(&self.node_cidrs)?,
            shared_node_cidrs: canonical(&self.shared_node_cidrs)?,
            service_cidrs: canonical(&self.service_cidrs)?,
            ..self.clone()
        };
        if request.pod_cidrs.is_empty() {
            return Err(InvalidRequest::NoPods { cluster: cluster() });
        }
        let space = request.address_space();
        if space.reaches_mapped() {
            return Err(InvalidRequest::Mapped { cluster: cluster(), space: space.to_string() });
        }
        if let Some((block, special)) = request.special_purpose() {
            return Err(InvalidRequest::Special { cluster: cluster(), block, special });
        }
        let found = space.ranges().max(request.service_cidrs.len()).max(request.hub_addresses.len());
        if found > MAX_RANGES {
            return Err(InvalidRequest::TooMany { cluster: cluster(), found });
        }
        for name in request.dns_names() {
            let reserved = [MESH_SUFFIX, HUBBLE_SUFFIX].into_iter().chain(SHARED_NAMES);
            if let Some(reserved) = reserved.into_iter().find(|suffix| names_meet(&name, suffix)) {
                return Err(InvalidRequest::Reserved { cluster: cluster(), name, reserved });
            }
        }
        Ok(request)
    }

    /// A block of the request, and the special-purpose block that it reaches into.
    fn special_purpose(&self) -> Option<(IpNet, IpNet)> {
        let special = || SPECIAL.iter().filter_map(|text| parse_block(text).ok());
        let nodes = self.node_cidrs.iter().chain(&self.shared_node_cidrs);
        let all = self.pod_cidrs.iter().chain(nodes).chain(&self.service_cidrs);
        all.flat_map(|block| special().map(move |special| (*block, special)))
            .find(|(block, special)| overlap(*block, *special).is_some())
    }

    /// The addresses that go into the passport: pods and nodes.
    pub fn address_space(&self) -> Blocks {
        self.passport_cidrs().copied().collect()
    }

    /// The same, as they were asked for.
    pub(super) fn passport_cidrs(&self) -> impl Iterator<Item = &IpNet> {
        self.pod_cidrs.iter().chain(&self.node_cidrs).chain(&self.shared_node_cidrs)
    }

    /// The hub's own DNS names.
    pub fn dns_names(&self) -> Vec<String> {
        let name = |address: &HubAddress| match address {
            HubAddress::Name(name) => Some(name.clone()),
            HubAddress::Address(_) => None,
        };
        self.hub_addresses.iter().filter_map(name).collect()
    }

    /// The hub's own addresses.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let address = |address: &HubAddress| match address {
            HubAddress::Name(_) => None,
            HubAddress::Address(address) => Some(*address),
        };
        self.hub_addresses.iter().filter_map(address).collect()
    }
}

/// True if one of two names is the other, or lies below it: a permitted name stands for all names below it.
pub(super) fn names_meet(a: &str, b: &str) -> bool {
    let below = |name: &str, parent: &str| {
        name.strip_suffix(parent).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    below(a, b) || below(b, a)
}

/// "This network", loopback, link-local and multicast (RFC 6890, RFC 4291). A passport that holds them would let a
/// cluster give identities to other machines' own addresses. Class E is not among them: some clouds use it for pods.
const SPECIAL: [&str; 8] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/4",
    "::/128",
    "::1/128",
    "fe80::/10",
    "ff00::/8",
];

impl FromStr for HubAddress {
    type Err = InvalidHubAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Address(address.to_canonical()));
        }
        let name = text.to_ascii_lowercase();
        let sound = DnsName::try_from(name.as_str()).is_ok()
            && name.contains('.')
            && !name.ends_with('.')
            // A last label of digits would be an address somewhere.
            && !name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
        if sound {
            Ok(Self::Name(name))
        } else {
            Err(InvalidHubAddress { found: text.chars().take(80).collect() })
        }
    }
}

impl fmt::Display for HubAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl TryFrom<String> for HubAddress {
    type Error = InvalidHubAddress;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<HubAddress> for String {
    fn from(address: HubAddress) -> Self {
        address.to_string()
    }
}
