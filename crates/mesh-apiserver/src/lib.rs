//! The hub of a cluster: turns Kubernetes objects into mesh records, keeps them in its store, and serves them to
//! agents and to other clusters.
//!
//! ```text
//!   API server or folder ─> Object ─> Exporter (index, identities, records) ─> Publisher ─> Store ─> etcd API (mTLS)
//!        source/             object      export/, identity/                     kvstore      kvstore   etcd_api/, serve/
//! ```
//!
//! * [`source`]: where objects come from; it sends changes, and says what it cannot read.
//! * [`export`]: the pure middle; a change of one object costs what depends on that object.
//! * [`hub`]: the one task that owns the exporter and writes its deltas, one revision a batch.
//! * [`serve`]: connections: who is it, what may it read.
//! * [`peer_filters`]: which part of the records a peer is shown.
//! * [`policy`]: which policies could not be enforced as they are written.
//! * [`resources`]: custom resources, which say what peers there are and what they are shown.
//! * [`peers`]: the peers that the hub itself follows, whoever names them.
//! * [`remote_slices`]: endpoint slices of other clusters' backends, written into the own cluster.
//! * [`election`]: which of several replicas writes, where a Lease of the API server says so.
//! * [`store`]: on disk here, or an etcd cluster that several replicas share, one of which writes.
//! * [`app`]: command line, wiring, status page.
//!
//! Nothing is deleted from the store before the source has been read completely once.

pub mod app;
pub mod election;
pub mod etcd_api;
pub mod export;
pub mod finding;
pub mod hub;
pub mod identity;
pub mod index;
pub mod object;
pub mod peer_filters;
pub mod peers;
pub mod policy;
pub mod remote_slices;
pub mod resources;
pub mod serve;
pub mod source;
pub mod store;
