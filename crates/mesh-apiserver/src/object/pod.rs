//! Pods as the hub keeps them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use topology::record::Protocol;
use topology::record::ip::NamedPort;

/// A pod with what the hub uses of it, and nothing else: a cluster has many, and a `core/v1` Pod takes kilobytes even when
/// most of it is empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pod {
    /// `metadata.namespace`.
    pub namespace: Option<Box<str>>,
    /// `metadata.name`.
    pub name: Option<Box<str>>,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.creationTimestamp`.
    pub created: Option<Timestamp>,
    /// `spec.nodeName`; none until it is placed.
    pub node: Option<Box<str>>,
    /// `spec.hostNetwork`.
    pub on_host: bool,
    /// `spec.serviceAccountName`.
    pub service_account: Option<Box<str>>,
    /// Ports of containers that have a name, and that are ports, in their order.
    pub named_ports: Box<[NamedPort]>,
    /// Whether `status.phase` is `Succeeded` or `Failed`.
    pub finished: bool,
    /// `status.podIPs`, else `status.podIP`, as they are.
    pub addresses: Box<[Box<str>]>,
    /// `status.hostIPs`, then `status.hostIP`, as they are.
    pub host_addresses: Box<[Box<str>]>,
}

impl From<core::Pod> for Pod {
    fn from(pod: core::Pod) -> Self {
        let core::Pod { metadata, spec, status } = pod;
        let (spec, status) = (spec.unwrap_or_default(), status.unwrap_or_default());
        let boxed = |text: Option<String>| text.filter(|text| !text.is_empty()).map(String::into_boxed_str);
        let many = status.pod_ips.unwrap_or_default().into_iter().map(|address| address.ip);
        let many: Vec<String> = many.collect();
        let addresses = match many.is_empty() {
            true => status.pod_ip.into_iter().filter(|text| !text.is_empty()).collect(),
            false => many,
        };
        let hosts = status.host_ips.unwrap_or_default().into_iter().map(|address| address.ip);
        Self {
            namespace: metadata.namespace.map(String::into_boxed_str),
            name: metadata.name.map(String::into_boxed_str),
            labels: metadata.labels.unwrap_or_default(),
            created: metadata.creation_timestamp.map(|time| time.0),
            node: boxed(spec.node_name),
            on_host: spec.host_network.unwrap_or(false),
            service_account: boxed(spec.service_account_name),
            named_ports: named_ports(&spec.containers),
            finished: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
            addresses: addresses.into_iter().map(String::into_boxed_str).collect(),
            host_addresses: hosts.chain(status.host_ip).map(String::into_boxed_str).collect(),
        }
    }
}

fn named_ports(containers: &[core::Container]) -> Box<[NamedPort]> {
    let ports = containers.iter().flat_map(|container| container.ports.iter().flatten());
    let named = ports.filter_map(|port| {
        let name = port.name.clone().filter(|name| !name.is_empty())?;
        let number = u16::try_from(port.container_port).ok().filter(|number| *number > 0)?;
        let protocol = Protocol::from_kubernetes(port.protocol.as_deref().unwrap_or("TCP"))?;
        Some(NamedPort { name, port: number, protocol: protocol.as_str().to_owned() })
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_small() {
        let size = size_of::<Pod>();
        assert!(size <= 256, "{size} bytes; a core/v1 Pod has {}", size_of::<core::Pod>());
    }
}
