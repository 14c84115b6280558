//! What the mesh is told about the own cluster: from objects to keys and values, without input or output.
//!
//! ```text
//!   Change ─> Index ─> parts that it may touch ─> records of each part (pure) ─> Delta: what to put, what to delete
//! ```
//!
//! A *part* is what is computed in one go: a node, a service, an endpoint slice, an address, an identity. Each key
//! belongs to exactly one part, so a change costs what its parts cost, however many other objects there are.
//!
//! * [`annotation`]: what a service says about sharing.
//! * [`namespace`]: whether a namespace takes part.
//! * [`node`], [`pod`], [`service`], [`mod@slice`], [`local`]: the records of one part each.
//! * [`cilium`]: the same from the objects of Cilium, where it runs.
//! * [`exporter`]: which part depends on which object, and what changed.

pub mod annotation;
pub mod cilium;
pub mod cluster;
pub mod exporter;
pub mod local;
pub mod namespace;
pub mod node;
pub mod parts;
pub mod pod;
pub mod service;
pub mod slice;

pub use cluster::Cluster;
pub use exporter::{Delta, Exporter};
pub use parts::{Output, Part};
