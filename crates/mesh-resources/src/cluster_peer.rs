//! A remote cluster.

mod export;
mod import;
mod parsed;
mod trust;

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::export::{Export, Expression, Labels, Operator, Patterns};
pub use self::import::{Import, Preset};
pub use self::parsed::{Endpoint, InvalidPeer, Peer};
pub use self::trust::{Problem, SecretReference, Trust, Unattested};
use crate::schema;

/// What the operator says about a remote cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "isthmus.dev",
    version = "v1alpha1",
    kind = "ClusterPeer",
    plural = "clusterpeers",
    shortname = "cpeer",
    category = "isthmus",
    status = "ClusterPeerStatus",
    derive = "PartialEq",
    doc = "A remote cluster: how its hub is reached, whom to believe that it is that cluster, what it is shown of this one, and what it may offer here.",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".status.cluster"),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".spec.endpoints[0]"),
    printcolumn(name = "Paused", type_ = "boolean", json_path = ".spec.paused"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].reason"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterPeerSpec {
    /// Which cluster it is. Without it, the cluster whose name is that of the object, with whatever id it proves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterReference>,
    /// Where its hub listens: `https://HOST[:PORT]`, the port 2379 if none is given. HOST is also the name that the hub's
    /// certificate must carry.
    #[schemars(length(min = 1, max = 16), inner(length(max = 300), regex(pattern = schema::ENDPOINT)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub endpoints: Vec<String>,
    /// Addresses of host names that need no DNS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["hostname"]))]
    pub host_aliases: Vec<HostAlias>,
    /// Whom to believe. Without it, the roots that this cluster itself accepts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<Trust>,
    /// What the cluster is shown of this one. Without it, what the hub's default filter says; the empty one shows everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<Export>,
    /// What the cluster may offer here. Without it, everything that its passport covers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub import: Option<Import>,
    /// Whether nothing passes in either direction: the cluster is shown no service, slice, identity or address of a pod, and
    /// nobody here follows it.
    #[serde(default)]
    pub paused: bool,
}

/// Which cluster a peer is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterReference {
    /// The cluster's name; that of the object, if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = schema::CLUSTER_NAME), length(max = 32))]
    pub name: Option<String>,
    /// The cluster's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 511))]
    pub id: Option<i32>,
}

/// A host name with its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostAlias {
    /// The host name, as in an endpoint.
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::HOST))]
    pub hostname: String,
    /// Its addresses, IPv4 or IPv6.
    #[schemars(length(min = 1, max = 16), inner(length(min = 2, max = 45), regex(pattern = schema::ADDRESS)))]
    pub ips: Vec<String>,
}

/// What became of a peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterPeerStatus {
    /// The generation of the object that the rest is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The cluster's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// What holds, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

impl HostAlias {
    /// Its addresses. Fails with the one that is none.
    pub(crate) fn addresses(&self) -> Result<Vec<IpAddr>, String> {
        self.ips
            .iter()
            .map(|ip| ip.parse().map_err(|_not_one: std::net::AddrParseError| ip.clone()))
            .collect()
    }
}
