//! `isthmus/v1/local/services`: every service as the own agents need it, global or not.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use topology::ServiceName;
use topology::block::parse_address;
use topology::record::Protocol;
use topology::record::local::{LocalBackend, LocalService};

use super::annotation::Sharing;
use super::service;
use crate::finding::{Finding, Reason};

/// The value that agents read. `published` says whether peers see the service.
///
/// A backend here is ready, or terminating but still serving, as kube-proxy has it: where `serving` is unset it
/// follows `ready`. `internalTrafficPolicy: Local` becomes `nodeLocal`, and agents then use no other backends.
pub fn value<'a>(
    name: ServiceName,
    service: &Service,
    sharing: Sharing,
    published: bool,
    slices: impl Iterator<Item = (&'a str, &'a EndpointSlice)>,
    findings: &mut Vec<Finding>,
) -> LocalService {
    let object = format!("Service {name}");
    LocalService {
        cluster_ips: service::cluster_ips(service, &object, findings),
        ports: service::ports(service, &object, findings),
        global: sharing.global,
        shared: published,
        affinity: sharing.affinity,
        node_local: is_node_local(service),
        backends: backends(slices, findings),
        name,
    }
}

/// Whether only backends on the client's own node are used.
pub fn is_node_local(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.internal_traffic_policy.as_deref()) == Some("Local")
}

/// Backends by address, port and protocol. Where two slices give one backend, it is terminating only if both say so.
fn backends<'a>(
    slices: impl Iterator<Item = (&'a str, &'a EndpointSlice)>,
    findings: &mut Vec<Finding>,
) -> Vec<LocalBackend> {
    let mut backends: BTreeMap<(IpAddr, u16, Protocol), LocalBackend> = BTreeMap::new();
    for (_, slice) in slices.filter(|(_, slice)| service::is_exported(slice)) {
        let ports = service::slice_ports(slice, findings);
        for endpoint in slice.endpoints.iter().flatten() {
            let Some(terminating) = is_terminating(endpoint) else { continue };
            for text in &endpoint.addresses {
                let Some(address) = parse_address(text) else {
                    if slice.address_type != "FQDN" {
                        findings.push(invalid_address(slice, text));
                    }
                    continue;
                };
                for (port_name, port) in &ports {
                    let backend =
                        backends.entry((address, port.port, port.protocol)).or_insert_with(|| LocalBackend {
                            address,
                            port: port.port,
                            protocol: port.protocol,
                            port_names: Vec::new(),
                            node: endpoint.node_name.as_deref().and_then(|name| name.parse().ok()),
                            zone: endpoint.zone.clone().filter(|zone| !zone.is_empty()),
                            terminating,
                        });
                    backend.terminating &= terminating;
                    if !port_name.is_empty() && !backend.port_names.contains(port_name) {
                        backend.port_names.push(port_name.clone());
                        backend.port_names.sort_unstable();
                    }
                }
            }
        }
    }
    backends.into_values().collect()
}

/// Whether a backend is about to go; `None` if it takes no traffic.
fn is_terminating(endpoint: &Endpoint) -> Option<bool> {
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
    let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
    let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
    match (ready, serving && terminating) {
        (true, _) => Some(false),
        (false, true) => Some(true),
        (false, false) => None,
    }
}

fn invalid_address(slice: &EndpointSlice, text: &str) -> Finding {
    Finding::warning(Reason::AddressInvalid, service::slice_label(slice))
        .found(format_args!("an endpoint has address {text:?}"))
        .expected("an IPv4 or IPv6 address without a zone")
        .so("left out")
}
