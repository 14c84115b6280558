//! The agent of one node: it follows hubs and makes the kernel's maps hold what they say.
//!
//! ```text
//!   own hub ──┐                                                             services  slots
//!   peer hubs ┼─> View ─┐                                                   backends  ipcache
//!             ┘         ├─> Snapshot ─> Image ─> Plan ─> apply ─> kernel        ^
//!   probes  ── health ──┘   (sources)  (desired) (plan) (programmer)            |
//!                                                            sock_lb programs read them
//! ```
//!
//! * [`sources`]: own hub, peers and probes into one snapshot.
//! * [`desired`] (pure): from a snapshot to the [`image`] of what the maps should hold, and why.
//! * [`plan`] (pure): the difference between two images.
//! * [`programmer`]: carries a plan out on [`maps`], in an order in which no client ever sees a half-made service.
//! * [`slots`]: which slice of the flat slot array is whose.
//! * [`probe`]: UDP to the agents of remote nodes, and the answers to theirs.
//! * [`reconcile`]: the loop. [`status`] and [`metrics`]: what it says about itself.
//!
//! The agent knows no Kubernetes and keeps nothing of its own on disk: what it needs after a restart it reads
//! back from the kernel, before its first write.

pub mod app;
pub mod desired;
pub mod image;
pub mod maps;
pub mod metrics;
pub mod plan;
pub mod probe;
pub mod programmer;
pub mod reconcile;
pub mod slots;
pub mod sources;
pub mod status;
