//! `services/v1`: a global service with its frontends and backends, as peers see it.
//! Cilium `clustermesh-apiserver/clustermesh/service_sync.go`, `pkg/clustermesh/store/store.go`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use topology::block::parse_address;
use topology::record::Protocol;
use topology::record::local::ServicePort;
use topology::record::service::{ForZone, PortValue, Ports, ServiceValue, ZoneValue};

use super::Cluster;
use crate::finding::{Finding, Reason};
use crate::object::Pod;

/// The label that marks a service as headless, with any value.
pub const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// The label that says who writes a slice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// The controller that writes slices for remote backends: those are other clusters' to publish.
pub const MESH_CONTROLLER: &str = "endpointslice-mesh-controller.cilium.io";

/// The value that peers read. It is written for a service that is global and shared, in a namespace that takes
/// part; `internalTrafficPolicy: Local` does not keep it back, as in stock: it speaks of clients in this cluster.
pub fn value<'a>(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    service: &Service,
    slices: impl Iterator<Item = (&'a str, &'a EndpointSlice)>,
) -> ServiceValue {
    let ports: Ports = ports(service, "", &mut Vec::new())
        .into_iter()
        .map(|port| (port.name, PortValue { protocol: port.protocol, port: port.port }))
        .collect();
    let frontends = cluster_ips(service, "", &mut Vec::new());
    let mut value = ServiceValue {
        cluster: cluster.name.to_string(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        frontends: frontends.into_iter().map(|address| (address.to_string(), ports.clone())).collect(),
        labels: service.metadata.labels.clone().unwrap_or_default(),
        selector: service.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default(),
        include_external: true,
        shared: true,
        cluster_id: cluster.id.into(),
        ..ServiceValue::default()
    };
    for (_, slice) in slices.filter(|(_, slice)| is_exported(slice)) {
        let ports = slice_ports(slice, &mut Vec::new());
        for endpoint in slice.endpoints.iter().flatten().filter(|endpoint| takes_traffic(endpoint)) {
            for address in endpoint.addresses.iter().filter_map(|text| parse_address(text)) {
                add_backend(&mut value, address, endpoint, &ports);
            }
        }
    }
    value
}

/// The service's own addresses; none if it is headless or has none yet.
pub fn cluster_ips(service: &Service, object: &str, findings: &mut Vec<Finding>) -> Vec<IpAddr> {
    let Some(spec) = service.spec.as_ref() else { return Vec::new() };
    if is_headless(service) {
        return Vec::new();
    }
    let many = spec.cluster_ips.as_ref().filter(|list| !list.is_empty());
    let one = spec.cluster_ip.as_ref().filter(|text| many.is_none() && !text.is_empty());
    let mut addresses = Vec::new();
    for text in many.into_iter().flatten().chain(one) {
        match parse_address(text) {
            Some(address) if !addresses.contains(&address) => addresses.push(address),
            Some(_) => {}
            None => findings.push(
                Finding::warning(Reason::AddressInvalid, object)
                    .found(format_args!("spec.clusterIPs has {text:?}"))
                    .expected("None or IPv4 and IPv6 addresses")
                    .so("left out"),
            ),
        }
    }
    addresses
}

/// The ports that clients use.
pub fn ports(service: &Service, object: &str, findings: &mut Vec<Finding>) -> Vec<ServicePort> {
    let mut ports = Vec::new();
    for port in service.spec.iter().flat_map(|spec| spec.ports.iter().flatten()) {
        let number = u16::try_from(port.port).ok().filter(|number| *number > 0);
        let protocol = Protocol::from_kubernetes(port.protocol.as_deref().unwrap_or("TCP"));
        match (number, protocol) {
            (Some(number), Some(protocol)) => {
                ports.push(ServicePort {
                    name: port.name.clone().unwrap_or_default(),
                    protocol,
                    port: number,
                });
            }
            _ => findings.push(
                Finding::warning(Reason::PortInvalid, object)
                    .found(format_args!(
                        "port {} of protocol {:?}",
                        port.port,
                        port.protocol.as_deref().unwrap_or("TCP")
                    ))
                    .expected("1 to 65535 of TCP, UDP or SCTP")
                    .so("left out"),
            ),
        }
    }
    ports
}

/// Whether a service has no address of its own.
pub fn is_headless(service: &Service) -> bool {
    let labelled = service.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(HEADLESS_LABEL));
    let spec = service.spec.as_ref();
    let none = |text: &String| text.eq_ignore_ascii_case("none");
    let listed = spec.and_then(|spec| spec.cluster_ips.as_ref()).is_some_and(|list| list.iter().any(none));
    labelled || listed || spec.and_then(|spec| spec.cluster_ip.as_ref()).is_some_and(none)
}

/// Whether a service stands for a name elsewhere: such a service has no backends and is never published.
pub fn is_external_name(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("ExternalName")
}

/// Whether a slice holds the own cluster's backends.
pub fn is_exported(slice: &EndpointSlice) -> bool {
    !is_of_mesh(&slice.metadata)
}

/// Whether a slice holds backends of other clusters, by the metadata of the slice.
pub fn is_of_mesh(metadata: &ObjectMeta) -> bool {
    let label = metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY));
    label.is_some_and(|controller| controller == MESH_CONTROLLER)
}

/// The ports of a slice, by name. One without a number stands for all ports and is not published.
pub fn slice_ports(slice: &EndpointSlice, findings: &mut Vec<Finding>) -> Ports {
    let mut ports = Ports::new();
    for port in slice.ports.iter().flatten() {
        let Some(found) = port.port else { continue };
        let number = u16::try_from(found).ok().filter(|number| *number > 0);
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        match (number, Protocol::from_kubernetes(protocol)) {
            (Some(port_number), Some(protocol)) => {
                let value = PortValue { protocol, port: port_number };
                ports.insert(port.name.clone().unwrap_or_default(), value);
            }
            _ => findings.push(
                Finding::warning(Reason::PortInvalid, slice_label(slice))
                    .found(format_args!("port {found} of protocol {protocol:?}"))
                    .expected("1 to 65535 of TCP, UDP or SCTP")
                    .so("left out"),
            ),
        }
    }
    ports
}

/// A slice as findings name it.
pub fn slice_label(slice: &EndpointSlice) -> String {
    let (namespace, name) = (slice.metadata.namespace.as_deref(), slice.metadata.name.as_deref());
    format!("EndpointSlice {}/{}", namespace.unwrap_or("default"), name.unwrap_or_default())
}

/// The rule of stock: ready or serving, where unset means true. A slice that says only `ready: false` is therefore
/// published; controllers always set both.
fn takes_traffic(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    let is = |condition: Option<bool>| condition.unwrap_or(true);
    is(conditions.and_then(|c| c.ready)) || is(conditions.and_then(|c| c.serving))
}

/// Adds an address. One that occurs in several slices has the ports of the last of them, as in stock.
fn add_backend(value: &mut ServiceValue, address: IpAddr, endpoint: &Endpoint, ports: &Ports) {
    let text = address.to_string();
    if let Some(zone) = endpoint.zone.as_ref().filter(|zone| !zone.is_empty()) {
        let hints = endpoint.hints.as_ref().and_then(|hints| hints.for_zones.as_ref());
        let for_zones = hints.into_iter().flatten().map(|zone| ForZone { name: zone.name.clone() }).collect();
        value.zones.insert(text.clone(), ZoneValue { zone: zone.clone(), for_zones });
    }
    if let Some(hostname) = endpoint.hostname.as_ref().filter(|hostname| !hostname.is_empty()) {
        value.hostnames.insert(text.clone(), hostname.clone());
    }
    value.backends.insert(text, ports.clone());
}

/// Whether the labels of a pod are what a service's selector asks for.
pub fn selects(selector: &BTreeMap<String, String>, labels: Option<&BTreeMap<String, String>>) -> bool {
    selector.iter().all(|(key, value)| labels.is_some_and(|labels| labels.get(key) == Some(value)))
}

/// Whether any of these pods is selected.
pub fn selects_any<'a>(selector: &BTreeMap<String, String>, mut pods: impl Iterator<Item = &'a Pod>) -> bool {
    pods.any(|pod| selects(selector, Some(&pod.labels)))
}

/// The selector of a service, if it selects by labels.
pub fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    service.spec.as_ref()?.selector.as_ref().filter(|selector| !selector.is_empty())
}

/// A selector as kubectl writes it.
pub fn selector_text(selector: &BTreeMap<String, String>) -> String {
    selector.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}
