//! `cilium/state/services/v1/<cluster>/<ns>/<name>`: a global service of one cluster with its backends.
//! Cilium `pkg/clustermesh/store/store.go`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Origin, Protocol, Rejected, address, expect_equal, expect_id, from_json, to_json};
use crate::name::ServiceName;

/// Ports by name; an unnamed port has the key `""`.
pub type Ports = BTreeMap<String, PortValue>;

/// A service in its wire form. STABLE FORMAT.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "members are named and meant as in Cilium's ClusterService")]
pub struct ServiceValue {
    pub cluster: String,
    pub namespace: String,
    pub name: String,
    #[serde(deserialize_with = "null_is_default")]
    pub frontends: BTreeMap<String, Ports>,
    #[serde(deserialize_with = "null_is_default")]
    pub backends: BTreeMap<String, Ports>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub hostnames: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub zones: BTreeMap<String, ZoneValue>,
    #[serde(deserialize_with = "null_is_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_is_default")]
    pub selector: BTreeMap<String, String>,
    pub include_external: bool,
    pub shared: bool,
    #[serde(rename = "clusterID")]
    pub cluster_id: u32,
}

/// A port in the wire form: the member names are capitalised, as the Go struct has no tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PortValue {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Protocol,
    /// The number.
    pub port: u16,
}

/// The zone of a backend in the wire form; both members are always present.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ZoneValue {
    /// The zone that the backend is in.
    pub zone: String,
    /// The zones that it is meant for.
    #[serde(deserialize_with = "null_is_default")]
    pub for_zones: Vec<ForZone>,
}

/// One zone that a backend is meant for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForZone {
    /// The zone's name.
    pub name: String,
}

/// The backends that a remote cluster offers for a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteService {
    /// Namespace and name.
    pub name: ServiceName,
    /// Each backend address with its ports; sorted by address, port and protocol.
    pub backends: Vec<RemoteBackend>,
}

/// One address and port of another cluster that serves a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RemoteBackend {
    /// The pod's address.
    pub address: IpAddr,
    /// The port, host order.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// The names under which this port is offered, sorted; the unnamed port adds no name
    /// (Cilium collapses several names of one port into one backend).
    pub port_names: Vec<String>,
    /// The zone that it is in, if known.
    pub zone: Option<String>,
    /// The name that it has within the service, if it has one: pods of headless services do.
    pub hostname: Option<String>,
}

impl ServiceValue {
    /// The value as a stock apiserver writes it.
    pub fn encode(&self) -> Vec<u8> {
        to_json(self)
    }
}

impl RemoteService {
    /// Reads the record with key suffix `suffix` of the cluster `origin`; `None` if the value says that the
    /// service is not shared, which readers treat as a deletion.
    ///
    /// Fails if the value is not JSON, if it names another service, cluster or id, or if an address does not
    /// parse.
    pub fn decode(origin: &Origin, suffix: &str, value: &[u8]) -> Result<Option<Self>, Rejected> {
        let value: ServiceValue = from_json(value)?;
        expect_equal("cluster", &value.cluster, origin.cluster.as_str())?;
        expect_equal("namespace/name", &format!("{}/{}", value.namespace, value.name), suffix)?;
        expect_id("clusterID", value.cluster_id, origin)?;
        let Ok(name) = ServiceName::new(value.namespace, value.name) else {
            return Err(Rejected::malformed("namespace/name", suffix, "<namespace>/<name>"));
        };
        for text in value.frontends.keys() {
            address("frontends", text)?;
        }
        let mut backends: BTreeMap<(IpAddr, u16, Protocol), RemoteBackend> = BTreeMap::new();
        for (text, ports) in &value.backends {
            let address = address("backends", text)?;
            let zone = value.zones.get(text).map(|z| z.zone.clone()).filter(|z| !z.is_empty());
            let hostname = value.hostnames.get(text).filter(|name| !name.is_empty());
            for (port_name, port) in ports {
                let backend =
                    backends.entry((address, port.port, port.protocol)).or_insert_with(|| RemoteBackend {
                        address,
                        port: port.port,
                        protocol: port.protocol,
                        port_names: Vec::new(),
                        zone: zone.clone(),
                        hostname: hostname.cloned(),
                    });
                if !port_name.is_empty() {
                    backend.port_names.push(port_name.clone());
                }
            }
        }
        Ok(value.shared.then(|| Self { name, backends: backends.into_values().collect() }))
    }
}

fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
