//! Pods: which identity they have (`identities/v1`) and which addresses (`ip/v1`).
//!
//! Stock exports CiliumEndpoint objects, which its agents make from the same pods.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Node};
use topology::block::parse_address;
use topology::record::ip::IpValue;
use topology::record::key;
use topology::{Identity, Labels};

use super::{Cluster, Output, namespace, node};
use crate::finding::{Finding, Reason};
use crate::identity::filter::{LabelFilter, is_label_text, security_labels};
use crate::object::Pod;

/// What a pod brings into the mesh. A pod that brings nothing has no facts: one on its node's network, one that
/// has finished, one of a namespace that takes no part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFacts {
    /// The labels that make its identity.
    pub labels: Arc<Labels>,
    /// Its addresses; empty until it has one.
    pub addresses: Box<[IpAddr]>,
    /// The node that it runs on.
    pub node: Option<String>,
    /// Where it stands among pods that claim the same address.
    pub claim: Arc<Claim>,
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

impl Claim {
    /// The claim of a pod that was created then.
    pub fn new(created: Option<Timestamp>, namespace: &str, name: &str) -> Self {
        Self {
            without_time: created.is_none(),
            created_nanoseconds: created.map_or(0, |time| time.as_nanosecond()),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

/// What a pod brings into the mesh, and what is odd about it.
pub fn facts(
    cluster: &Cluster,
    filter: &LabelFilter,
    namespace: &str,
    name: &str,
    pod: &Pod,
    space: Option<&Namespace>,
) -> (Option<PodFacts>, Vec<Finding>) {
    let mut findings = Vec::new();
    if pod.on_host || pod.finished || !namespace::is_global(cluster, space) {
        return (None, findings);
    }
    let object = format!("Pod {namespace}/{name}");
    for (key, value) in &pod.labels {
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
    for text in &pod.addresses {
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
    let facts = PodFacts {
        labels: Arc::new(security_labels(
            filter,
            &cluster.name,
            namespace,
            space.and_then(|space| space.metadata.labels.as_ref()),
            pod.service_account.as_deref(),
            Some(&pod.labels),
        )),
        addresses: addresses.into(),
        node: pod.node.as_deref().map(str::to_owned),
        claim: Arc::new(Claim::new(pod.created, namespace, name)),
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
        k8s_service_account: pod.service_account.as_deref().unwrap_or_default().to_owned(),
        named_ports: pod.named_ports.to_vec(),
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
    let said = pod.host_addresses.iter().filter_map(|text| parse_address(text));
    let known = node.into_iter().flat_map(|node| node::addresses(node, "InternalIP"));
    let candidates: Vec<IpAddr> = said.chain(known).collect();
    let same_family = candidates.iter().find(|host| host.is_ipv4() == address.is_ipv4());
    same_family.or_else(|| candidates.first()).copied()
}
