//! Trust in a mesh: who a cluster is, which names and addresses it may use, and who is at the end of a connection.
//!
//! ```text
//!   Authority (root key, ledger) --enrol--> passport of a cluster: name, id, names, address blocks
//!   ClusterAuthority (passport key) --issue--> leaves: hub, remote, local, admin; one a node
//!                                                 |
//!   Files -> Credentials (leaf, key, roots) -> server::Acceptor, client::Connector
//!                                                 |
//!                                  PeerIdentity: accepted as a role, or refused with the reason
//! ```
//!
//! * [`authority`]: the mesh's root and its ledger; refuses colliding names, ids and address blocks.
//! * [`cluster_authority`]: a cluster's own passport and key; signs its leaves.
//! * [`profile`]: what each certificate looks like. [`blocks`]: the address space in a passport, byte by byte.
//! * [`passport`], [`spiffe`], [`fingerprint`]: the nouns.
//! * [`deny`], [`statement`]: what an authority signs beside certificates, as documents ([`signed`]) in files beside `ca.crt`.
//! * [`files`]: PEM files as they lie on disk, and their hot reload. [`key`]: private keys and signing requests.
//! * [`durable`]: files that are replaced whole and have their mode from the first moment.
//! * [`trust`], [`verifier`]: whom to trust, and the rules that webpki does not have.
//! * [`server`], [`client`]: TLS 1.3, mutual, never resumed.
//!
//! The crate knows certificates, keys, files and TLS. It never knows Kubernetes, gRPC, or what a peer may read.
//! Private keys never leave the place that made them: a signing request travels in, a chain comes back, also locally.

pub mod authority;
pub mod blocks;
mod certificate;
pub mod client;
pub mod cluster_authority;
pub mod deny;
pub mod durable;
pub mod files;
pub mod fingerprint;
pub mod key;
mod moment;
pub mod passport;
pub mod profile;
pub mod server;
pub mod signed;
pub mod spiffe;
pub mod statement;
pub mod trust;
pub mod verifier;

pub use authority::Authority;
pub use certificate::Unreadable;
pub use cluster_authority::ClusterAuthority;
pub use deny::DenyList;
pub use files::{Credentials, Files, LiveCredentials, Reloader};
pub use fingerprint::Fingerprint;
pub use moment::Moment;
pub use passport::Passport;
pub use profile::{LeafRole, LeafSpec};
pub use spiffe::TrustDomain;
pub use statement::BlockStatement;
pub use verifier::{Accepted, Expected, Outcome, PeerIdentity, Refusal, Role};
