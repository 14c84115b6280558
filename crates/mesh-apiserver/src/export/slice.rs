//! `endpointslices/v1`: one slice of a global service ("v2").
//! Cilium `operator/watchers/endpointslice_export_sync.go`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::discovery::v1 as discovery;
use topology::record::slice::{Conditions, Endpoint, EndpointPort, ForZone, Hints, MapEntry, SliceValue};
use topology::record::{Protocol, key};

use super::{Cluster, Output, service};
use crate::finding::{Finding, Reason};

/// The record of a slice whose service is published. Endpoints that are not ready are in it, with their
/// conditions: that is what the kind is for.
///
/// A slice that is neither IPv4 nor IPv6 is left out, with a finding: stock writes it, and readers reject it.
pub fn record(cluster: &Cluster, namespace: &str, name: &str, slice: &discovery::EndpointSlice) -> Output {
    let mut output = Output::default();
    if !matches!(slice.address_type.as_str(), "IPv4" | "IPv6") {
        output.findings.push(
            Finding::info(Reason::AddressType, format_args!("EndpointSlice {namespace}/{name}"))
                .found(format_args!("addressType is {:?}", slice.address_type))
                .expected("IPv4 or IPv6")
                .so("not published"),
        );
        return output;
    }
    let all = slice.endpoints.iter().flatten();
    let endpoints: Vec<Endpoint> =
        all.filter_map(|found| endpoint(found, slice, &mut output.findings)).collect();
    let value = SliceValue {
        cluster: cluster.name.to_string(),
        cluster_id: cluster.id.into(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        labels: entries(slice.metadata.labels.as_ref()),
        annotations: entries(slice.metadata.annotations.as_ref()),
        address_type: slice.address_type.clone(),
        endpoints,
        ports: slice.ports.iter().flatten().filter(|port| is_port(port)).map(port).collect(),
    };
    if let Some(key) = key::slice(&cluster.name, namespace, name) {
        output.publish(key, value.encode());
    }
    output
}

/// An endpoint with those of its addresses that are of the slice's type: readers refuse a whole slice for one that is
/// not, and a kube-apiserver lets none in. `None` if it has no other.
fn endpoint(
    endpoint: &discovery::Endpoint,
    slice: &discovery::EndpointSlice,
    findings: &mut Vec<Finding>,
) -> Option<Endpoint> {
    let mut addresses = Vec::new();
    for text in &endpoint.addresses {
        match text.parse::<IpAddr>() {
            Ok(address) if address.is_ipv4() == (slice.address_type == "IPv4") => {
                addresses.push(text.clone())
            }
            Ok(_) => findings.push(
                Finding::warning(Reason::AddressInvalid, service::slice_label(slice))
                    .found(format_args!("an endpoint has address {text:?}"))
                    .expected(format_args!("{} addresses, as addressType says", slice.address_type))
                    .so("left out of the published slice"),
            ),
            // A finding of the service.
            Err(_) => {}
        }
    }
    if addresses.is_empty() && !endpoint.addresses.is_empty() {
        return None;
    }
    let conditions = endpoint.conditions.as_ref();
    Some(Endpoint {
        addresses,
        conditions: Conditions {
            ready: conditions.and_then(|c| c.ready),
            serving: conditions.and_then(|c| c.serving),
            terminating: conditions.and_then(|c| c.terminating),
        },
        hostname: endpoint.hostname.clone(),
        deprecated_topology: entries(endpoint.deprecated_topology.as_ref()),
        node_name: endpoint.node_name.clone(),
        zone: endpoint.zone.clone(),
        hints: endpoint.hints.as_ref().map(|hints| Hints {
            for_zones: hints
                .for_zones
                .iter()
                .flatten()
                .map(|zone| ForZone { name: zone.name.clone() })
                .collect(),
        }),
    })
}

/// Whether a port is one, or stands for all of them. What is left out is a finding of the service.
fn is_port(port: &discovery::EndpointPort) -> bool {
    let number = port.port.is_none_or(|number| u16::try_from(number).is_ok_and(|number| number > 0));
    number && Protocol::from_kubernetes(port.protocol.as_deref().unwrap_or("TCP")).is_some()
}

/// A port with the defaults that a kube-apiserver fills in (`pkg/apis/discovery/v1/defaults.go`), for objects that
/// have not been through one.
fn port(port: &discovery::EndpointPort) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        port: port.port,
        app_protocol: port.app_protocol.clone(),
    }
}

fn entries(map: Option<&BTreeMap<String, String>>) -> Vec<MapEntry> {
    let entries = map.into_iter().flatten();
    entries.map(|(key, value)| MapEntry { key: key.clone(), value: value.clone() }).collect()
}
