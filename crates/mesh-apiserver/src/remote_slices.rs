//! Endpoint slices of other clusters' backends, written into the own cluster's API server (docs/endpoint-slices.md).
//!
//! ```text
//!   hub ── own services, own slices ──┐
//!                                     ├─> plan (pure: wanted, layout) ─> writes ─> API server
//!   peers ── services of each ────────┘                                              │
//!         hub <── the slices as they are now <───────────────────────────────────────┘
//! ```
//! Headless global services get them, so that DNS finds pods of other clusters; others on request; and in the profile
//! `agentless` every global service, so that kube-proxy reaches backends of other clusters
//! (Cilium `pkg/clustermesh/endpointslicesync`).
//!
//! * [`heard`]: what the peers have told; pure.
//! * [`own`]: the own services and slices, as the hub tells them.
//! * [`wanted`]: which endpoints a service is to have of each cluster; pure.
//! * [`layout`]: which slice holds which endpoint, moving as few as it can; pure.
//! * [`plan`]: what is to be written for a service; pure.
//! * [`mod@write`]: one write, and what became of it.
//! * [`sync`]: the task: what is due, and what became of it; [`pace`]: at what rate, and when again.
//! * [`report`], [`metrics`]: what it says about itself.
//!
//! Nothing is written before the own objects have been read once and it is known who the peers are, and nothing of a
//! peer is taken away before that peer has told all its services. A peer that has fallen silent changes nothing.

pub mod heard;
pub mod layout;
pub mod metrics;
pub mod own;
pub mod pace;
pub mod plan;
pub mod report;
pub mod sync;
pub mod wanted;
pub mod write;

pub use own::{Own, OwnService};
pub use sync::RemoteSlices;

/// Who balances in the own cluster, and so which services need slices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Profile {
    /// An agent on each node, mesh-agent or Cilium's: headless services and those that ask for it
    #[default]
    Agents,
    /// kube-proxy alone: every global service
    Agentless,
}

/// The label, and its value, of slices that this hub writes: others that mirror backends of other clusters share
/// [`MESH_CONTROLLER`](crate::export::service::MESH_CONTROLLER), and theirs are left alone.
pub const WRITTEN_BY: (&str, &str) = ("isthmus.dev/written-by", "mesh-apiserver");
/// The label that names the cluster whose backends a slice holds.
pub const SOURCE_CLUSTER: &str = "multicluster.kubernetes.io/source-cluster";
/// The label that names a slice's service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
