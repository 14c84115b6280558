//! Records of a cluster that runs Cilium: what its own clustermesh-apiserver makes of the same objects.
//! Cilium `clustermesh-apiserver/clustermesh/converters.go`, `pkg/node/types/node.go` (`ParseCiliumNode`).

use std::net::IpAddr;

use ipnet::IpNet;
use topology::Identity;
use topology::block::{parse_address, parse_block};
use topology::record::ip::IpValue;
use topology::record::key;
use topology::record::node::{GoIpNet, NodeAddress, NodeValue};

use super::node::{WIREGUARD_KEY, filled, take_first};
use super::{Cluster, Output};
use crate::object::cilium::key as key_index;
use crate::object::{CiliumEndpoint, CiliumNode};

/// The record of an address of an endpoint.
pub fn address_record(cluster: &Cluster, address: IpAddr, endpoint: &CiliumEndpoint) -> Output {
    let value = IpValue {
        ip: address.to_string(),
        host_ip: endpoint.host.map(|host| host.to_string()).unwrap_or_default(),
        id: endpoint.identity.unwrap_or(Identity::UNKNOWN.0),
        key: endpoint.key,
        k8s_namespace: endpoint.namespace.to_string(),
        k8s_pod_name: endpoint.name.to_string(),
        k8s_service_account: endpoint.service_account.as_deref().unwrap_or_default().to_owned(),
        named_ports: endpoint.named_ports.to_vec(),
        ..IpValue::default()
    };
    let mut output = Output::default();
    output.publish(format!("{}{address}", key::Kind::Ip.state_prefix(&cluster.name)), value.encode());
    output
}

/// The record of a node. What is no address or block is left out without a word, as in stock.
pub fn node_record(cluster: &Cluster, name: &str, node: &CiliumNode) -> Output {
    let mut output = Output::default();
    let Ok(node_name) = name.parse() else { return output };
    let spec = &node.spec;
    let addresses = spec.addresses.iter().filter_map(|address| {
        let ip = parse_address(&address.ip)?;
        Some(NodeAddress { kind: address.kind.clone(), ip: ip.to_string() })
    });
    let addresses: Vec<NodeAddress> = addresses.collect();
    let pools = spec.ipam.pools.allocated.iter().flat_map(|pool| &pool.cidrs);
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for block in spec.ipam.pod_cidrs.iter().chain(pools).filter_map(|text| block(text)) {
        match block {
            IpNet::V4(_) => v4.push(GoIpNet::from(block)),
            IpNet::V6(_) => v6.push(GoIpNet::from(block)),
        }
    }
    let (first_v4, first_v6) = (take_first(&mut v4), take_first(&mut v6));
    let others = |blocks: Vec<GoIpNet>| (!blocks.is_empty()).then_some(blocks);
    let text = |address: &str| parse_address(address).map(|ip| ip.to_string()).unwrap_or_default();
    let annotations = filled(node.metadata.annotations.as_ref());
    let mut wireguard =
        annotations.iter().flat_map(|all| WIREGUARD_KEY.iter().find_map(|name| all.get(*name)));
    let value = NodeValue {
        name: name.to_owned(),
        cluster: cluster.name.to_string(),
        ip_addresses: (!addresses.is_empty()).then_some(addresses),
        ipv4_alloc_cidr: first_v4,
        ipv4_secondary_alloc_cidrs: others(v4),
        ipv6_alloc_cidr: first_v6,
        ipv6_secondary_alloc_cidrs: others(v6),
        ipv4_health_ip: text(&spec.health.ipv4),
        ipv6_health_ip: text(&spec.health.ipv6),
        ipv4_ingress_ip: text(&spec.ingress.ipv4),
        ipv6_ingress_ip: text(&spec.ingress.ipv6),
        cluster_id: cluster.id.into(),
        source: "custom-resource".to_owned(),
        encryption_key: key_index(&spec.encryption),
        labels: filled(node.metadata.labels.as_ref()),
        wireguard_pub_key: wireguard.next().cloned().unwrap_or_default(),
        annotations,
        boot_id: spec.boot_id.clone(),
    };
    output.publish(key::node(&cluster.name, &node_name), value.encode());
    output
}

/// A block with its host bits cut off, as Go's `net.ParseCIDR` gives it.
fn block(text: &str) -> Option<IpNet> {
    parse_block(text).ok().or_else(|| text.parse::<IpNet>().ok().map(|net| net.trunc()))
}
