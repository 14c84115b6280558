//! `isthmus/v1/local/services/<ns>/<name>`: a service of the own cluster as its agents need it.
//!
//! Stock agents read their own services from Kubernetes; ours know no Kubernetes, so the hub tells them, over
//! the same protocol. Every service is published, global or not: policy and status need the others too.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Protocol, Rejected, from_json, to_json};
use crate::name::{NodeName, ServiceName};

/// A service of the own cluster. STABLE FORMAT: members are added, never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalService {
    /// Namespace and name.
    pub name: ServiceName,
    /// The service's own addresses, of both families; none if it is headless.
    pub cluster_ips: Vec<IpAddr>,
    /// The ports that clients use.
    pub ports: Vec<ServicePort>,
    /// Backends of other clusters are used too.
    #[serde(default)]
    pub global: bool,
    /// Own backends are offered to other clusters.
    #[serde(default)]
    pub shared: bool,
    /// Which backends are preferred.
    #[serde(default)]
    pub affinity: Affinity,
    /// Only backends on the client's node are used (`internalTrafficPolicy: Local`).
    #[serde(default)]
    pub node_local: bool,
    /// Own backends that are ready or terminating.
    #[serde(default)]
    pub backends: Vec<LocalBackend>,
}

/// A port that clients of a service use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// Empty if it has no name.
    #[serde(default)]
    pub name: String,
    /// The protocol.
    pub protocol: Protocol,
    /// The number, host order.
    pub port: u16,
}

/// Which backends a global service prefers (`service.cilium.io/affinity`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Affinity {
    /// All alike.
    #[default]
    None,
    /// The own cluster's.
    Local,
    /// Those of other clusters.
    Remote,
}

/// One address and port of the own cluster that serves a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalBackend {
    /// The pod's address.
    pub address: IpAddr,
    /// The port, host order.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// The names under which this port is offered, sorted.
    #[serde(default)]
    pub port_names: Vec<String>,
    /// The node that it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// The zone that it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// It still answers, but is about to go: new connections avoid it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub terminating: bool,
}

impl LocalService {
    /// The value as a hub writes it.
    pub fn encode(&self) -> Vec<u8> {
        to_json(self)
    }

    /// Reads the record with key suffix `suffix`. Fails if it is not JSON or names another service.
    pub fn decode(suffix: &str, value: &[u8]) -> Result<Self, Rejected> {
        let service: Self = from_json(value)?;
        super::expect_equal("name", &service.name.to_string(), suffix)?;
        Ok(service)
    }
}
