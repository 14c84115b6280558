//! One remote hub: how to reach it, whether to believe it, and what it says.
//!
//! ```text
//!   folder      a watched folder of ClusterMesh client files, one a cluster      -> configs
//!   config      one such file: endpoints, certificate files, host aliases, terms
//!   followers   a set of hubs that changes, each followed by a task
//!   directory   the peers of a folder, followed
//!   dial        resolve, connect, mutual TLS, HTTP/2                             -> a channel and who answered
//!   follow      one hub, for ever: configuration, canaries, list and watch       -> View
//!   ids         which cluster has which id: no two may share one
//!   ledger      pure: one record in, one cluster's state changed or a refusal
//!   view        what others get: the cluster's records and how the connection is
//! ```
//!
//! The same client follows the own hub and, in `direct` mode, each peer's: only the feeds differ. On a peer
//! nothing but Range and Watch is used, and never a write.
//!
//! A lost connection changes no records: they stay as they are, older by the minute, and the [`view::View`]
//! says so. Only a complete new list, or a removed configuration file, takes records away.

pub mod config;
pub mod dial;
pub mod directory;
pub mod folder;
pub mod follow;
pub mod followers;
pub mod ids;
pub mod ledger;
pub mod view;
