//! The nouns of a mesh and the decisions about them, without any input or output.
//!
//! ```text
//!   Record  (between clusters, stable format)     record/    keys and values of the ClusterMesh keyspace
//!      |
//!   Snapshot (immutable: all that one node knows)  snapshot   own cluster, peers, their health
//!      |
//!   Selection (which backends, and why)            selection  affinity, traffic policy, health
//! ```
//!
//! The crate knows clusters, services, nodes, identities and address blocks. It never knows sockets,
//! files, Kubernetes or the kernel: whatever it decides is tested with values alone.
//!
//! * [`name`], [`cluster`], [`identity`], [`labels`], [`block`]: parsed, validated nouns.
//! * [`record`]: the exact keys and values that clusters exchange.
//! * [`snapshot`]: what a node knows, structurally shared between versions.
//! * [`health`]: what probes say about nodes of other clusters.
//! * [`selection`]: the pure function from what is known to weighted backends with a reason.
//! * [`export_filter`]: which of the own records a peer is shown.
//! * [`admission`]: which of a peer's records are taken: [`address_space`] and [`import_grant`].

pub mod address_space;
pub mod admission;
pub mod block;
pub mod cluster;
pub mod export_filter;
pub mod health;
pub mod identity;
pub mod import_grant;
pub mod labels;
pub mod name;
pub mod record;
pub mod selection;
pub mod snapshot;

pub use address_space::AddressSpace;
pub use admission::Admission;
pub use cluster::{ClusterId, ClusterName};
pub use export_filter::ExportFilter;
pub use identity::Identity;
pub use import_grant::ImportGrant;
pub use labels::Labels;
pub use name::{NodeName, ServiceName};
