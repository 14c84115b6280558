//! A revisioned key-value store with watches, and the client side of etcd's v3 API.
//!
//! ```text
//!   Publisher ──┐                                   ┌── Watcher (cursor) ── API server
//!   API server ─┴─> Store::transact ─> journal ─> history ─┴── Watcher (cursor) ── API server
//!                        │                (fjall)
//!                        └─> Snapshot (persistent map) ──> readers
//!
//!   Client ── Range, Watch over gRPC ──> a hub of ours, or any etcd ──> ListWatch: Reset, Changes…
//! ```
//!
//! * [`Store`] holds bytes under byte keys. Each transaction that changes something makes one new revision.
//!   A [`Snapshot`] is an immutable view that costs O(1) to take; a [`Watcher`] is a cursor into a history
//!   which all watchers share, so a slow one holds no memory and never delays a writer.
//! * With a directory the store is durable: a transaction is in the journal before any reader or watcher sees
//!   it, and [`Store::synced`] waits until it is on disk. `cluster_id` names one unbroken run of revisions; it
//!   changes whenever a reader could otherwise be shown two different histories under the same numbers.
//! * A lease ([`Store::grant`]) takes the keys that hang on it away when nobody keeps it alive.
//! * [`Client`] follows a prefix of a remote store: a complete list at one revision, then ordered changes.
//! * [`Etcd`] is a store whose truth is an etcd cluster: a mirror to read, an election, and writes that only the leader
//!   of the moment can make.
//! * [`Publisher`] keeps the keys under its prefixes equal to what its caller wants there.
//!
//! The crate knows bytes only: no clusters, no services, no Kubernetes.

pub mod client;
pub mod codec;
pub mod etcd;
pub mod metrics;
pub mod proto;
pub mod publisher;
pub mod range;
pub mod store;
mod watch_request;

pub use client::{Client, ListWatch, Resume, Update};
pub use etcd::Etcd;
pub use publisher::{Publisher, Write};
pub use range::KeyRange;
pub use store::{Entry, Event, EventKind, Snapshot, Store, StoreOptions, Watcher};
