//! The command line.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use mesh_runtime::LogFormat;
use topology::cluster::MaxClusters;
use topology::{ClusterId, ClusterName};

use super::leader_elect::LeaderElect;
use crate::identity::LabelFilter;
use crate::remote_slices::Profile;
use crate::resources::agent_peers::{AgentPeers, SecretName};
use crate::source::SourceSpec;
use crate::source::kubernetes::served::CiliumChoice;
use crate::store::StoreSpec;

/// The hub of a cluster: turns Kubernetes objects into mesh records and serves them to agents and other clusters.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "mesh-apiserver", version)]
pub struct Args {
    /// Name of the cluster: 1 to 32 of a-z, 0-9 and '-', unique in the mesh
    #[arg(long, env = "MESH_APISERVER_CLUSTER_NAME")]
    pub cluster_name: ClusterName,

    /// Id of the cluster: 1 to 255 (or 511), unique in the mesh
    #[arg(long, env = "MESH_APISERVER_CLUSTER_ID")]
    pub cluster_id: ClusterId,

    /// How many clusters the mesh can have, 255 or 511; equal in all clusters, and never changed
    #[arg(long, env = "MESH_APISERVER_MAX_CONNECTED_CLUSTERS", default_value = "255", value_parser = max_clusters)]
    pub max_connected_clusters: MaxClusters,

    /// Where objects come from: `manifests:FOLDER`, a folder of Kubernetes YAML, which is watched, or `kubernetes`, an API
    /// server (docs/kubernetes-source.md)
    #[arg(long, env = "MESH_APISERVER_SOURCE")]
    pub source: SourceSpec,

    /// For `--source kubernetes`: kubeconfig file, or several separated by `:` [default: the pod's service account]
    #[arg(long, env = "KUBECONFIG")]
    pub kubeconfig: Option<OsString>,

    /// For `--source kubernetes`: context of the kubeconfig [default: its current context]
    #[arg(long, env = "MESH_APISERVER_KUBE_CONTEXT")]
    pub kube_context: Option<String>,

    /// For `--source kubernetes`: whether Cilium's identities, endpoints and nodes are published as they are where the API
    /// server has them, or never (docs/identities.md)
    #[arg(long, env = "MESH_APISERVER_CILIUM", value_enum, default_value_t)]
    pub cilium: CiliumChoice,

    /// Labels that count for identities, as Cilium's option `labels` has them: beginnings of keys, separated by commas or
    /// spaces; `!` in front leaves labels out (docs/identities.md)
    #[arg(long, env = "MESH_APISERVER_IDENTITY_LABELS", default_value = "", hide_default_value = true)]
    pub identity_labels: LabelFilter,

    /// Seconds without a pod after which the object of an identity is marked as unused, and after as many again deleted
    #[arg(long, env = "MESH_APISERVER_IDENTITY_GC_AFTER", default_value = "600", value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub identity_gc_after: u64,

    /// Where records are kept: `embedded` (in --data-dir), or `etcd:https://HOST:PORT[,…]`, an etcd cluster that several
    /// replicas of this hub share, one of which writes
    #[arg(long, env = "MESH_APISERVER_STORE", default_value = "embedded")]
    pub store: StoreSpec,

    /// Directory of the embedded store; made if it is not there
    #[arg(long, env = "MESH_APISERVER_DATA_DIR", required_unless_present = "store")]
    pub data_dir: Option<PathBuf>,

    /// Directory with tls.crt and tls.key for etcd, and ca.crt, what etcd's certificate must be under: this cluster's
    /// passport, never the mesh root (`meshctl ca leaf --role store`); watched and reloaded
    #[arg(long, env = "MESH_APISERVER_STORE_TLS_DIR")]
    pub store_tls_dir: Option<PathBuf>,

    /// Name of this replica, for logs, and for the other replicas in etcd and in the Lease: no two may have the same
    /// [default: HOSTNAME:PORT of --listen]
    #[arg(long, env = "MESH_APISERVER_REPLICA_NAME")]
    pub replica_name: Option<String>,

    /// Which of several replicas writes.
    #[command(flatten)]
    pub leader_elect: LeaderElect,

    /// Directory with tls.crt (leaf, then passport), tls.key and ca.crt (accepted roots); watched and reloaded
    #[arg(long, env = "MESH_APISERVER_TLS_DIR")]
    pub tls_dir: PathBuf,

    /// Address of the etcd API, over mutual TLS
    #[arg(long, env = "MESH_APISERVER_LISTEN", default_value = "[::]:2379")]
    pub listen: SocketAddr,

    /// Connections at a time of one other cluster, all its nodes together; agents that follow this hub themselves take one
    /// each
    #[arg(long, env = "MESH_APISERVER_MAX_CONNECTIONS_PER_PEER", default_value = "8192")]
    pub max_connections_per_peer: NonZeroUsize,

    /// Address of /livez, /readyz, /status and /metrics, without TLS
    #[arg(long, env = "MESH_APISERVER_ADMIN_LISTEN", default_value = "127.0.0.1:9980")]
    pub admin_listen: SocketAddr,

    /// Region of the cluster, shown in /status
    #[arg(long, env = "MESH_APISERVER_REGION")]
    pub region: Option<String>,

    /// Whether a namespace takes part that is not annotated clustermesh.cilium.io/global
    #[arg(
        long,
        env = "MESH_APISERVER_GLOBAL_NAMESPACES_BY_DEFAULT",
        default_value_t = true,
        action = clap::ArgAction::Set
    )]
    pub global_namespaces_by_default: bool,

    /// File of export filters: what each peer is shown (docs/export-filters.md); watched and reloaded
    #[arg(long, env = "MESH_APISERVER_PEER_FILTERS")]
    pub peer_filters: Option<PathBuf>,

    /// For `--source kubernetes`: Secret into which the agents' peer configuration is written from ClusterPeer objects, as
    /// NAMESPACE/NAME; the Secrets of their `trust.secretRef` are in the same namespace [default: none is written]
    #[arg(long, env = "MESH_APISERVER_AGENT_PEERS_SECRET")]
    pub agent_peers_secret: Option<SecretName>,

    /// For --agent-peers-secret: where agents mount it
    #[arg(long, env = "MESH_APISERVER_AGENT_PEERS_DIR", default_value = "/etc/isthmus/peers")]
    pub agent_peers_dir: PathBuf,

    /// For --agent-peers-secret: where agents have their tls.crt, tls.key and ca.crt
    #[arg(long, env = "MESH_APISERVER_AGENT_TLS_DIR", default_value = "/etc/isthmus/tls")]
    pub agent_tls_dir: PathBuf,
    /// Folder of ClusterMesh client configurations, a file a peer, its name the peer's: other clusters' hubs, whose backends
    /// the hub writes into endpoint slices of its own cluster (docs/endpoint-slices.md); watched. Needs `--source kubernetes`
    #[arg(long, env = "MESH_APISERVER_PEERS")]
    pub peers: Option<PathBuf>,

    /// The same from a Secret of that layout, as NAMESPACE/NAME, watched; certificates that it names may be keys of it, too
    #[arg(long, env = "MESH_APISERVER_PEERS_SECRET")]
    pub peers_secret: Option<SecretName>,

    /// The same from ClusterPeer objects (docs/custom-resources.md). For one peer --peers counts before --peers-secret, and
    /// that before an object
    #[arg(long, env = "MESH_APISERVER_PEERS_OBJECTS", requires = "peers_tls_dir")]
    pub peers_objects: bool,

    /// For --peers-objects: directory with tls.crt and tls.key, with which the hub goes to peers (`meshctl ca leaf --role
    /// remote`), and ca.crt, the roots of peers whose objects name none; read anew for each connection
    #[arg(long, env = "MESH_APISERVER_PEERS_TLS_DIR")]
    pub peers_tls_dir: Option<PathBuf>,

    /// Who balances in this cluster, which says which services get such slices
    #[arg(long, env = "MESH_APISERVER_PROFILE", value_enum, default_value_t)]
    pub profile: Profile,

    /// Endpoints of such a slice, 1 to 1000
    #[arg(
        long,
        env = "MESH_APISERVER_ENDPOINTS_PER_SLICE",
        default_value_t = 100,
        value_parser = clap::value_parser!(u16).range(1..=1000)
    )]
    pub endpoints_per_slice: u16,

    /// How log lines look
    #[arg(long, env = "MESH_APISERVER_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

impl Args {
    /// Where the agents' peer configuration is written, if it is.
    pub fn agent_peers(&self) -> Option<AgentPeers> {
        let (peers_dir, tls_dir) = (self.agent_peers_dir.clone(), self.agent_tls_dir.clone());
        Some(AgentPeers { secret: self.agent_peers_secret.clone()?, peers_dir, tls_dir })
    }
}

fn max_clusters(text: &str) -> Result<MaxClusters, String> {
    match text {
        "255" => Ok(MaxClusters::N255),
        "511" => Ok(MaxClusters::N511),
        _ => Err("expected 255 or 511".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
        let required =
            ["--cluster-name", "paris", "--cluster-id", "1", "--source", "manifests:/m", "--data-dir", "/d"];
        let args = |more: &[&str]| {
            let all = ["mesh-apiserver"].into_iter().chain(required).chain(["--tls-dir", "/t"]);
            Args::try_parse_from(all.chain(more.iter().copied()))
        };
        let parsed = args(&[]).expect("the required flags");
        assert!(parsed.global_namespaces_by_default);
        assert_eq!(parsed.listen.to_string(), "[::]:2379");
        let off = args(&["--global-namespaces-by-default", "false"]).expect("a flag with a value");
        assert!(!off.global_namespaces_by_default);
        assert_eq!(parsed.store, StoreSpec::Embedded);
        let shared = args(&["--store", "etcd:https://a:2379"]).expect("an etcd");
        assert!(matches!(shared.store, StoreSpec::Etcd(_)));
        let kubernetes =
            args(&["--kubeconfig", "/k", "--kube-context", "c"]).expect("flags of the API server");
        assert_eq!(kubernetes.kube_context.as_deref(), Some("c"));
        assert_eq!((parsed.profile, parsed.endpoints_per_slice), (Profile::Agents, 100));
        let objects = ["--peers-objects", "--peers-tls-dir", "/t", "--peers-secret", "mesh/peers"];
        assert!(args(&objects).expect("peers").peers_objects);
        assert!(args(&["--peers-objects"]).is_err(), "a certificate is needed");
        let agentless = args(&["--profile", "agentless", "--peers", "/p"]).expect("a profile");
        assert_eq!(agentless.profile, Profile::Agentless);
        assert!(parsed.leader_elect.leader_elect && parsed.leader_elect.times().is_ok());
        let slow = args(&["--leader-elect-renew-deadline", "20"]).expect("a number");
        assert!(slow.leader_elect.times().is_err(), "longer than the Lease");
        for bad in [
            ["--leader-elect", "etcd"],
            ["--endpoints-per-slice", "0"],
            ["--profile", "kube-proxy"],
            ["--cluster-id", "0"],
            ["--max-connected-clusters", "300"],
            ["--source", "etcd:x"],
            ["--store", "etcd:x"],
            ["--cilium", "maybe"],
            ["--identity-labels", "app[0-9]"],
            ["--identity-gc-after", "0"],
        ] {
            assert!(args(&bad).is_err(), "{bad:?}");
        }
    }
}
