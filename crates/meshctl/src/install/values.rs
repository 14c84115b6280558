//! What an installation can be told: the values of the Helm chart in `deploy/chart`, which are also what `meshctl install
//! --values FILE` reads. One type for both, so that they cannot differ. STABLE FORMAT: fields are only added.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// All values.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Values {
    /// Which cluster of the mesh this is.
    pub cluster: Cluster,
    /// Who balances connections to remote backends.
    pub profile: Profile,
    /// Where the programs come from.
    pub image: Image,
    /// How log lines look.
    pub log_format: LogFormat,
    /// The hub.
    pub hub: Hub,
    /// The agents; nothing of this counts but with the profile `agent`, except for its Secrets.
    pub agent: Agent,
    /// Peers as objects.
    pub cluster_peers: ClusterPeers,
}

/// Peers as objects of the kind ClusterPeer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ClusterPeers {
    /// Whether the hub writes them into agent.peersSecret, which is then made here; else that Secret is yours.
    pub enabled: bool,
    /// Secrets that objects name in trust.secretRef, which the hub may read.
    pub trust_secrets: Vec<String>,
}

/// Which cluster of the mesh this is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Cluster {
    /// Name: 1 to 32 of a-z, 0-9 and '-', unique in the mesh. Required.
    #[schemars(regex(pattern = r"^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$"))]
    pub name: String,
    /// Id: 1 to maxConnectedClusters, unique in the mesh. Required.
    #[schemars(range(min = 1, max = 511))]
    pub id: u16,
    /// How many clusters the mesh can have: 255 or 511. Equal in all of them, and never changed.
    #[schemars(extend("enum" = [255, 511]))]
    pub max_connected_clusters: u16,
    /// Region, shown in the hub's status.
    pub region: String,
}

/// Who balances connections to remote backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// A hub, and an agent on each node: for clusters with any CNI but Cilium
    #[default]
    Agent,
    /// A hub alone: Cilium's agents are the data plane
    Cilium,
    /// A hub alone, which writes EndpointSlices: kube-proxy reaches remote backends
    Agentless,
}

/// Where the programs come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Image {
    /// Where the archives of `cargo xtask image` were pushed to, such as registry.example/isthmus. Required.
    #[schemars(length(min = 1))]
    pub registry: String,
    /// Their tag.
    #[schemars(length(min = 1))]
    pub tag: String,
    /// When a node pulls them: Always, IfNotPresent or Never.
    #[schemars(extend("enum" = ["Always", "IfNotPresent", "Never"]))]
    pub pull_policy: String,
    /// Secrets with credentials of the registry, by name.
    pub pull_secrets: Vec<String>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people.
    Text,
}

/// The hub.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Hub {
    /// Where records are kept.
    pub store: Store,
    /// Whether the hub writes EndpointSlices of remote backends for headless services and those that ask for it. It does so
    /// for all global services with the profile `agentless`.
    pub endpoint_slices: bool,
    /// How many hubs, with an etcd; with the embedded store there is one.
    #[schemars(range(min = 1, max = 9))]
    pub replicas: u16,
    /// Secret with tls.crt, tls.key and ca.crt of a leaf of the role hub.
    #[schemars(length(min = 1))]
    pub tls_secret: String,
    /// Address on which it listens in its pod: `[::]` is IPv4, too; 0.0.0.0 where nodes have no IPv6.
    #[schemars(extend("enum" = ["[::]", "0.0.0.0"]))]
    pub bind_address: String,
    /// How agents and peers reach it.
    pub service: Service,
    /// Who may connect to it.
    pub network_policy: NetworkPolicy,
    /// What its container asks for.
    pub resources: Resources,
    /// On which nodes.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that do not keep it away.
    pub tolerations: Vec<Map<String, Value>>,
    /// Its priority class; empty: none.
    pub priority_class: String,
}

/// Where a hub keeps its records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Store {
    /// Members of an etcd of this cluster's own, as https://HOST:PORT. Empty: the embedded store, on a volume.
    pub etcd: Vec<String>,
    /// Secret with tls.crt, tls.key and ca.crt of a leaf of the role store, for etcd.
    #[schemars(length(min = 1))]
    pub tls_secret: String,
    /// Size of the volume of the embedded store.
    pub size: String,
    /// Storage class of that volume; empty: the cluster's default.
    pub storage_class: String,
}

/// How agents and peers reach the hub.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Service {
    /// LoadBalancer, NodePort or ClusterIP.
    #[serde(rename = "type")]
    pub kind: ServiceType,
    /// Whose load balancer it is: gives it the annotations that keep it internal.
    pub cloud: Cloud,
    /// Further annotations; they win over those of the cloud.
    pub annotations: BTreeMap<String, String>,
    /// Port on the nodes, for LoadBalancer and NodePort; 0: the cluster chooses.
    #[schemars(range(min = 0, max = 65535))]
    pub node_port: u16,
    /// Which sources a load balancer lets in, as CIDRs; empty: all.
    pub load_balancer_source_ranges: Vec<String>,
}

/// Types of a Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum ServiceType {
    /// An address of the cloud's, or of MetalLB and the like
    #[default]
    LoadBalancer,
    /// A port on each node
    NodePort,
    /// Reached by a route or proxy of your own
    ClusterIP,
}

/// Whose load balancer it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Cloud {
    /// None of those below: no annotations
    #[default]
    None,
    /// Amazon Web Services: a network load balancer
    Aws,
    /// Google Cloud, reachable from all regions of the network
    Gcp,
    /// Microsoft Azure
    Azure,
    /// Alibaba Cloud
    Alibaba,
    /// IBM Cloud
    Ibm,
    /// OpenStack
    Openstack,
    /// Oracle Cloud
    Oracle,
}

/// Who may connect to the hub.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NetworkPolicy {
    /// Whether there is one.
    pub enabled: bool,
    /// CIDRs of the clients of port 2379: nodes of this cluster (agents use their node's address) and of the peers. Empty: all;
    /// mutual TLS keeps strangers out.
    pub clients: Vec<String>,
    /// Namespace whose pods may read metrics and status; empty: none.
    pub metrics_namespace: String,
}

/// What a container asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Resources {
    /// What it is promised, by resource.
    pub requests: BTreeMap<String, String>,
    /// What it can have at most, by resource.
    pub limits: BTreeMap<String, String>,
}

/// The agents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Agent {
    /// Secret with tls.crt, tls.key and ca.crt of a leaf of the role local: agents at their own hub.
    #[schemars(length(min = 1))]
    pub local_tls_secret: String,
    /// Secret of a leaf of the role remote: agents at the hubs of peers. May be absent as long as there is no peer.
    #[schemars(length(min = 1))]
    pub remote_tls_secret: String,
    /// Secret with a ClusterMesh client configuration for each peer. May be absent.
    #[schemars(length(min = 1))]
    pub peers_secret: String,
    /// Cgroup whose processes are balanced, relative to the node's root of cgroup version 2, such as kubepods.slice; empty: all
    /// processes of the node.
    #[schemars(regex(pattern = r"^([A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*)?$"))]
    pub cgroup: String,
    /// Where a node has its root of cgroup version 2.
    #[schemars(regex(pattern = r"^/"))]
    pub cgroup_root: String,
    /// RuntimeDefault; or Unconfined, for a container runtime whose profile does not know CAP_BPF (containerd before 1.7).
    #[schemars(extend("enum" = ["RuntimeDefault", "Unconfined"]))]
    pub seccomp_profile: String,
    /// How many nodes' agents are exchanged at a time, as a number or a percentage.
    pub max_unavailable: String,
    /// What a container asks for.
    pub resources: Resources,
    /// On which nodes.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that do not keep them away.
    pub tolerations: Vec<Map<String, Value>>,
    /// Their priority class; empty: none.
    pub priority_class: String,
}

impl Default for Cluster {
    fn default() -> Self {
        Self { name: String::new(), id: 0, max_connected_clusters: 255, region: String::new() }
    }
}

impl Default for ClusterPeers {
    fn default() -> Self {
        Self { enabled: true, trust_secrets: Vec::new() }
    }
}

impl Default for Image {
    fn default() -> Self {
        Self {
            registry: String::new(),
            tag: env!("CARGO_PKG_VERSION").to_owned(),
            pull_policy: "IfNotPresent".to_owned(),
            pull_secrets: Vec::new(),
        }
    }
}

impl Default for Hub {
    fn default() -> Self {
        Self {
            store: Store::default(),
            endpoint_slices: false,
            replicas: 2,
            tls_secret: "isthmus-hub-tls".to_owned(),
            bind_address: "[::]".to_owned(),
            service: Service::default(),
            network_policy: NetworkPolicy::default(),
            resources: Resources::of(&[("cpu", "100m"), ("memory", "256Mi")], &[("memory", "1Gi")]),
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            priority_class: "system-cluster-critical".to_owned(),
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            etcd: Vec::new(),
            tls_secret: "isthmus-store-tls".to_owned(),
            size: "2Gi".to_owned(),
            storage_class: String::new(),
        }
    }
}

impl Default for NetworkPolicy {
    fn default() -> Self {
        Self { enabled: true, clients: Vec::new(), metrics_namespace: String::new() }
    }
}

impl Default for Resources {
    fn default() -> Self {
        Self::of(&[], &[])
    }
}

impl Resources {
    fn of(requests: &[(&str, &str)], limits: &[(&str, &str)]) -> Self {
        let map = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, amount)| ((*name).to_owned(), (*amount).to_owned())).collect()
        };
        Self { requests: map(requests), limits: map(limits) }
    }
}

impl Default for Agent {
    fn default() -> Self {
        let everywhere = Map::from_iter([("operator".to_owned(), Value::from("Exists"))]);
        Self {
            local_tls_secret: "isthmus-agent-local-tls".to_owned(),
            remote_tls_secret: "isthmus-agent-remote-tls".to_owned(),
            peers_secret: "isthmus-peers".to_owned(),
            cgroup: String::new(),
            cgroup_root: "/sys/fs/cgroup".to_owned(),
            seccomp_profile: "RuntimeDefault".to_owned(),
            max_unavailable: "10%".to_owned(),
            resources: Resources::of(&[("cpu", "50m"), ("memory", "64Mi")], &[("memory", "256Mi")]),
            node_selector: BTreeMap::new(),
            tolerations: vec![everywhere],
            priority_class: "system-node-critical".to_owned(),
        }
    }
}

impl Values {
    /// Whether the hub itself follows peers, to write EndpointSlices.
    pub(crate) fn hub_follows_peers(&self) -> bool {
        self.hub.endpoint_slices || self.profile == Profile::Agentless
    }

    /// Whether there can be several hubs, of which one writes.
    pub(crate) fn hub_has_replicas(&self) -> bool {
        !self.hub.store.etcd.is_empty()
    }

    /// Whether the hub writes the Secret of peers.
    pub(crate) fn hub_writes_peers(&self) -> bool {
        self.cluster_peers.enabled && (self.profile == Profile::Agent || self.hub_follows_peers())
    }
}

impl Cloud {
    /// The annotations that make a load balancer internal (kubernetes.io, "Internal load balancer"; for AWS those of both
    /// controllers that may be in charge).
    pub fn annotations(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::None => &[],
            Self::Aws => &[
                ("service.beta.kubernetes.io/aws-load-balancer-type", "nlb"),
                ("service.beta.kubernetes.io/aws-load-balancer-scheme", "internal"),
                ("service.beta.kubernetes.io/aws-load-balancer-internal", "true"),
            ],
            Self::Gcp => &[
                ("networking.gke.io/load-balancer-type", "Internal"),
                ("networking.gke.io/internal-load-balancer-allow-global-access", "true"),
            ],
            Self::Azure => &[("service.beta.kubernetes.io/azure-load-balancer-internal", "true")],
            Self::Alibaba => {
                &[("service.beta.kubernetes.io/alibaba-cloud-loadbalancer-address-type", "intranet")]
            }
            Self::Ibm => &[("service.kubernetes.io/ibm-load-balancer-cloud-provider-ip-type", "private")],
            Self::Openstack => &[("service.beta.kubernetes.io/openstack-internal-load-balancer", "true")],
            Self::Oracle => &[("service.beta.kubernetes.io/oci-load-balancer-internal", "true")],
        }
    }
}
