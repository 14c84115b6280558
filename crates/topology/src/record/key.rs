//! Keys: where each kind of record lives. Cilium `pkg/kvstore/kvstore.go`, `pkg/kvstore/store/syncstore.go`.

use std::fmt;

use crate::cluster::ClusterName;
use crate::identity::Identity;
use crate::name::{NodeName, ServiceName, is_key_element};

/// The key whose regular rewriting proves that a hub's writer lives.
pub const HEARTBEAT: &str = "cilium/.heartbeat";
/// Below it, a cluster's published configuration.
pub const CLUSTER_CONFIG: &str = "cilium/cluster-config/";
/// Below it, the records of the hub's own cluster.
pub const STATE: &str = "cilium/state/";
/// Below it, mirrored records of other clusters.
pub const CACHE: &str = "cilium/cache/";
/// Below it, one key for each kind of record whose first list is complete.
pub const SYNCED: &str = "cilium/synced/";
/// Below it, services as the agents of the own cluster need them. Not read by stock clients.
pub const LOCAL_SERVICES: &str = "isthmus/v1/local/services/";
/// Below it, records of our own for peers and agents. Not read by stock clients.
pub const SHARED: &str = "isthmus/v1/shared/";

/// The kinds of records that stock clients register for; each has a canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Nodes with their addresses and pod ranges.
    Nodes,
    /// Global services with frontends and ready backends ("v1").
    Services,
    /// Identities and the labels they stand for.
    Identities,
    /// Which address has which identity.
    Ip,
    /// Endpoint slices of global services ("v2").
    EndpointSlices,
    /// MCS-API exports.
    ServiceExports,
}

impl Kind {
    /// All kinds. A writer writes a canary for each, also for those it has no records of.
    pub const ALL: [Self; 6] =
        [Self::Nodes, Self::Services, Self::Identities, Self::Ip, Self::EndpointSlices, Self::ServiceExports];

    /// The kind as it stands in keys, for instance `services/v1`.
    pub fn segment(self) -> &'static str {
        match self {
            Self::Nodes => "nodes/v1",
            Self::Services => "services/v1",
            Self::Identities => "identities/v1",
            Self::Ip => "ip/v1",
            Self::EndpointSlices => "endpointslices/v1",
            Self::ServiceExports => "serviceexports/v1",
        }
    }

    /// The prefix, with its final slash, under which `cluster`'s hub keeps its own records of this kind.
    pub fn state_prefix(self, cluster: &ClusterName) -> String {
        match self {
            Self::Identities => format!("{STATE}{}/id/", self.segment()),
            Self::Ip => format!("{STATE}{}/default/", self.segment()),
            _ => format!("{STATE}{}/{cluster}/", self.segment()),
        }
    }

    /// The prefix under which a mirror keeps `cluster`'s records of this kind. Two shapes are irregular:
    /// identities gain the cluster before `id/`, and `ip` has it in place of `default`
    /// (Cilium `pkg/clustermesh/kvstoremesh/reflector/cell.go`).
    pub fn cache_prefix(self, cluster: &ClusterName) -> String {
        match self {
            Self::Identities => format!("{CACHE}{}/{cluster}/id/", self.segment()),
            _ => format!("{CACHE}{}/{cluster}/", self.segment()),
        }
    }

    /// The key that says that a mirror has its first complete set of `cluster`'s records of this kind.
    pub fn cache_canary(self, cluster: &ClusterName) -> String {
        format!("{SYNCED}{cluster}/{CACHE}{}", self.segment())
    }

    /// The key that says that `cluster`'s hub has published its first complete set of this kind.
    pub fn canary(self, cluster: &ClusterName) -> String {
        format!("{SYNCED}{cluster}/{STATE}{}", self.segment())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nodes => "nodes",
            Self::Services => "services",
            Self::Identities => "identities",
            Self::Ip => "endpoints",
            Self::EndpointSlices => "endpoint slices",
            Self::ServiceExports => "service exports",
        })
    }
}

/// The key of a cluster's configuration.
pub fn cluster_config(cluster: &ClusterName) -> String {
    format!("{CLUSTER_CONFIG}{cluster}")
}

/// The prefix of a cluster's canaries.
pub fn canaries(cluster: &ClusterName) -> String {
    format!("{SYNCED}{cluster}/")
}

/// The key of a node record.
pub fn node(cluster: &ClusterName, node: &NodeName) -> String {
    format!("{}{node}", Kind::Nodes.state_prefix(cluster))
}

/// The key of an identity record.
pub fn identity(cluster: &ClusterName, identity: Identity) -> String {
    format!("{}{identity}", Kind::Identities.state_prefix(cluster))
}

/// The key of a service record.
pub fn service(cluster: &ClusterName, name: &ServiceName) -> String {
    format!("{}{name}", Kind::Services.state_prefix(cluster))
}

/// The key of an endpoint slice record, or `None` where the slice's name cannot be part of a key.
pub fn slice(cluster: &ClusterName, namespace: &str, name: &str) -> Option<String> {
    let sound = is_key_element(namespace) && is_key_element(name);
    sound.then(|| format!("{}{namespace}/{name}", Kind::EndpointSlices.state_prefix(cluster)))
}

/// The key of a local service record.
pub fn local_service(name: &ServiceName) -> String {
    format!("{LOCAL_SERVICES}{name}")
}

/// The end of the range that holds every key starting with `prefix`: the prefix with its last byte raised by
/// one. Keys are ASCII, so the last byte is never 0xff.
pub fn range_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_recorded_ones() {
        let north: ClusterName = "north".parse().expect("a name");
        assert_eq!(identity(&north, Identity(589_825)), "cilium/state/identities/v1/id/589825");
        assert_eq!(Kind::Ip.canary(&north), "cilium/synced/north/cilium/state/ip/v1");
        assert_eq!(Kind::Identities.cache_prefix(&north), "cilium/cache/identities/v1/north/id/");
        assert_eq!(Kind::Ip.cache_prefix(&north), "cilium/cache/ip/v1/north/");
        assert_eq!(range_end(HEARTBEAT), b"cilium/.heartbeau");
        assert_eq!(slice(&north, "shop", "../x"), None);
    }
}
