//! `nodes/v1`: a node with its addresses and pod ranges, from a core/v1 Node.
//!
//! Stock exports CiliumNode objects. A core/v1 Node has no address of Cilium's router, no health and no ingress
//! address, so those members stay empty. All else is as Cilium's `pkg/k8s/node.go` has it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use topology::block::{parse_address, parse_block};
use topology::record::key;
use topology::record::node::{GoIpNet, NodeAddress, NodeValue};

use super::{Cluster, Output};
use crate::finding::{Finding, Reason};

/// A node's WireGuard key, and the older name of the annotation.
pub(super) const WIREGUARD_KEY: [&str; 2] = ["network.cilium.io/wg-pub-key", "io.cilium.network.wg-pub-key"];

/// The record of a node. Nodes are published whatever their namespaces say.
pub fn record(cluster: &Cluster, name: &str, node: &Node) -> Output {
    let mut output = Output::default();
    let object = format!("Node {name}");
    let Ok(node_name) = name.parse() else { return output };
    let addresses = published_addresses(node, &object, &mut output.findings);
    if addresses.is_empty() {
        output.findings.push(
            Finding::warning(Reason::NodeWithoutAddress, &object)
                .found("status.addresses holds no InternalIP or ExternalIP")
                .expected("at least an InternalIP")
                .so("other clusters cannot reach or probe this node"),
        );
    }
    let mut v4 = Vec::new();
    let mut v6 = Vec::new();
    for text in pod_cidrs(node) {
        match parse_block(text) {
            Ok(IpNet::V4(net)) => v4.push(GoIpNet::from(IpNet::V4(net))),
            Ok(IpNet::V6(net)) => v6.push(GoIpNet::from(IpNet::V6(net))),
            Err(error) => output.findings.push(
                Finding::warning(Reason::BlockInvalid, &object)
                    .found(format_args!("spec.podCIDRs has {text:?}"))
                    .expected(error)
                    .so("left out"),
            ),
        }
    }
    let annotations = filled(node.metadata.annotations.as_ref());
    let key_of = |annotations: &BTreeMap<String, String>| {
        WIREGUARD_KEY.iter().find_map(|name| annotations.get(*name).cloned())
    };
    let secondary = |blocks: Vec<GoIpNet>| (!blocks.is_empty()).then_some(blocks);
    let (first_v4, first_v6) = (take_first(&mut v4), take_first(&mut v6));
    let boot_id =
        node.status.as_ref().and_then(|status| status.node_info.as_ref()).map(|info| info.boot_id.clone());
    let value = NodeValue {
        name: name.to_owned(),
        cluster: cluster.name.to_string(),
        ip_addresses: (!addresses.is_empty()).then_some(addresses),
        ipv4_alloc_cidr: first_v4,
        ipv4_secondary_alloc_cidrs: secondary(v4),
        ipv6_alloc_cidr: first_v6,
        ipv6_secondary_alloc_cidrs: secondary(v6),
        cluster_id: cluster.id.into(),
        source: "custom-resource".to_owned(),
        labels: filled(node.metadata.labels.as_ref()),
        wireguard_pub_key: annotations.as_ref().and_then(key_of).unwrap_or_default(),
        annotations,
        boot_id: boot_id.unwrap_or_default(),
        ..NodeValue::default()
    };
    output.publish(key::node(&cluster.name, &node_name), value.encode());
    output
}

/// A node's addresses of one type, in the order of its status.
pub fn addresses<'a>(node: &'a Node, kind: &'a str) -> impl Iterator<Item = IpAddr> + 'a {
    let all = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    all.filter(move |address| address.type_ == kind).filter_map(|address| parse_address(&address.address))
}

fn published_addresses(node: &Node, object: &str, findings: &mut Vec<Finding>) -> Vec<NodeAddress> {
    let all = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let with_ip = all.filter(|address| matches!(address.type_.as_str(), "InternalIP" | "ExternalIP"));
    let mut published = Vec::new();
    for address in with_ip {
        match parse_address(&address.address) {
            Some(ip) => published.push(NodeAddress { kind: address.type_.clone(), ip: ip.to_string() }),
            None => findings.push(
                Finding::warning(Reason::AddressInvalid, object)
                    .found(format_args!("{} is {:?}", address.type_, address.address))
                    .expected("an IPv4 or IPv6 address without a zone")
                    .so("left out"),
            ),
        }
    }
    published
}

fn pod_cidrs(node: &Node) -> impl Iterator<Item = &str> {
    let spec = node.spec.as_ref();
    let many = spec.and_then(|spec| spec.pod_cidrs.as_ref()).filter(|list| !list.is_empty());
    let one =
        spec.and_then(|spec| spec.pod_cidr.as_deref()).filter(|text| many.is_none() && !text.is_empty());
    many.into_iter().flatten().map(String::as_str).chain(one)
}

/// A map that is not empty: stock writes `null` for an empty one here.
pub(super) fn filled(map: Option<&BTreeMap<String, String>>) -> Option<BTreeMap<String, String>> {
    map.filter(|map| !map.is_empty()).cloned()
}

pub(super) fn take_first<T>(list: &mut Vec<T>) -> Option<T> {
    (!list.is_empty()).then(|| list.remove(0))
}
