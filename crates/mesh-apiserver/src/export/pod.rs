//! Pods: which identity they have (`identities/v1`) and which addresses (`ip/v1`).
//!
//! Stock exports CiliumEndpoint objects, which its agents make from the same pods.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use topology::block::parse_address;
use topology::record::ip::{IpValue, NamedPort};
use topology::record::{Protocol, key};
use topology::{Identity, Labels};

use super::{Cluster, Output, namespace, node};
use crate::finding::{Finding, Reason};
use crate::identity::filter::{is_label_text, security_labels};

/// What a pod brings into the mesh. A pod that brings nothing has no facts: one on its node's network, one that
/// has finished, one of a namespace that takes no part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFacts {
    /// The labels that make its identity.
    pub labels: Labels,
    /// Its addresses; empty until it has one.
    pub addresses: Vec<IpAddr>,
    /// The node that it runs on.
    pub node: Option<String>,
    /// Where it stands among pods that claim the same address.
    pub claim: Claim,
}

/// Who comes first where several pods claim one address: the older one, then the one whose name comes first. A
/// pod without a creation time, as in a manifest, comes after those that have one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    without_time: bool,
    created_nanoseconds: i128,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
}

/// What a pod brings into the mesh, and what is odd about it.
pub fn facts(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    pod: &Pod,
    space: Option<&Namespace>,
) -> (Option<PodFacts>, Vec<Finding>) {
    let mut findings = Vec::new();
    let spec = pod.spec.as_ref();
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let on_host = spec.and_then(|spec| spec.host_network).unwrap_or(false);
    let finished = matches!(phase, Some("Succeeded" | "Failed"));
    if on_host || finished || !namespace::is_global(cluster, space) {
        return (None, findings);
    }
    let object = format!("Pod {namespace}/{name}");
    for (key, value) in pod.metadata.labels.iter().flatten() {
        if key.is_empty() || !is_label_text(key) || !is_label_text(value) {
            findings.push(
                Finding::warning(Reason::LabelInvalid, &object)
                    .found(format_args!("label {key:?} is {value:?}"))
                    .expected("letters, digits and -_./ as in any Kubernetes label")
                    .so("left out of its identity"),
            );
        }
    }
    let mut addresses = Vec::new();
    for text in address_texts(pod) {
        match parse_address(text) {
            Some(address) if !addresses.contains(&address) => addresses.push(address),
            Some(_) => {}
            None => findings.push(
                Finding::warning(Reason::AddressInvalid, &object)
                    .found(format_args!("status.podIPs has {text:?}"))
                    .expected("an IPv4 or IPv6 address without a zone")
                    .so("left out"),
            ),
        }
    }
    let created = pod.metadata.creation_timestamp.as_ref();
    let facts = PodFacts {
        labels: security_labels(
            &cluster.name,
            namespace,
            space.and_then(|space| space.metadata.labels.as_ref()),
            spec.and_then(|spec| spec.service_account_name.as_deref()),
            pod.metadata.labels.as_ref(),
        ),
        addresses,
        node: spec.and_then(|spec| spec.node_name.clone()).filter(|node| !node.is_empty()),
        claim: Claim {
            without_time: created.is_none(),
            created_nanoseconds: created.map_or(0, |time| time.0.as_nanosecond()),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        },
    };
    (Some(facts), findings)
}

/// The record of an identity.
pub fn identity_record(cluster: &Cluster, identity: Identity, labels: &Labels) -> Output {
    let mut output = Output::default();
    output.publish(key::identity(&cluster.name, identity), labels.to_string().into_bytes());
    output
}

/// The record of an address: who has it and where. `node` is the Node object of the pod's node.
pub fn address_record(
    cluster: &Cluster,
    address: IpAddr,
    identity: Option<Identity>,
    claim: &Claim,
    pod: &Pod,
    node: Option<&Node>,
) -> Output {
    let value = IpValue {
        ip: address.to_string(),
        host_ip: host_address(address, pod, node).map(|ip| ip.to_string()).unwrap_or_default(),
        // Stock publishes an endpoint without an identity with 0, "unknown".
        id: identity.unwrap_or(Identity::UNKNOWN).0,
        k8s_namespace: claim.namespace.clone(),
        k8s_pod_name: claim.name.clone(),
        k8s_service_account: pod
            .spec
            .as_ref()
            .and_then(|s| s.service_account_name.clone())
            .unwrap_or_default(),
        named_ports: named_ports(pod),
        ..IpValue::default()
    };
    let mut output = Output::default();
    let prefix = key::Kind::Ip.state_prefix(&cluster.name);
    output.publish(format!("{prefix}{address}"), value.encode());
    output
}

/// The address of the node behind which a pod's address is: what the pod's status says, else the node's first
/// InternalIP; of the pod's own family if there is one, else of the other.
fn host_address(address: IpAddr, pod: &Pod, node: Option<&Node>) -> Option<IpAddr> {
    let status = pod.status.as_ref();
    let many = status.iter().flat_map(|status| status.host_ips.iter().flatten()).map(|host| host.ip.as_str());
    let one = status.and_then(|status| status.host_ip.as_deref());
    let said = many.chain(one).filter_map(parse_address);
    let known = node.into_iter().flat_map(|node| node::addresses(node, "InternalIP"));
    let candidates: Vec<IpAddr> = said.chain(known).collect();
    let same_family = candidates.iter().find(|host| host.is_ipv4() == address.is_ipv4());
    same_family.or_else(|| candidates.first()).copied()
}

fn address_texts(pod: &Pod) -> impl Iterator<Item = &str> {
    let status = pod.status.as_ref();
    let many = status.and_then(|status| status.pod_ips.as_ref()).filter(|list| !list.is_empty());
    let one =
        status.and_then(|status| status.pod_ip.as_deref()).filter(|text| many.is_none() && !text.is_empty());
    many.into_iter().flatten().map(|ip| ip.ip.as_str()).chain(one)
}

/// Ports of a pod's containers that have a name, in the order of the pod.
fn named_ports(pod: &Pod) -> Vec<NamedPort> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let named = ports.filter_map(|port| {
        let name = port.name.clone().filter(|name| !name.is_empty())?;
        let number = u16::try_from(port.container_port).ok().filter(|number| *number > 0)?;
        let protocol = Protocol::from_kubernetes(port.protocol.as_deref().unwrap_or("TCP"))?;
        Some(NamedPort { name, port: number, protocol: protocol.as_str().to_owned() })
    });
    named.collect()
}
