//! The custom resources of the group `isthmus.dev`: what an operator writes into a cluster's API server.
//!
//! ```text
//!   kind            scope       says                                             followed by
//!   ClusterPeer     cluster     a remote cluster: how to reach it, whom to       the hub
//!                               believe, what it is shown, what it may offer
//!   FailoverPolicy  namespaced  in what order a service's backends are used      the hub: checked, not yet applied
//!   MeshIdentity    cluster     a set of labels and its number                   the hub, which writes them itself
//! ```
//!
//! The schemas hold what can be said without looking at anything else, so that an API server refuses it at once. Whoever
//! follows the objects checks again with [`ClusterPeer::parse`] and [`FailoverPolicy::check`], since schemas can be
//! loosened, and says what became of each object in its status ([`condition`]).
//!
//! [`definitions`] are applied by `meshctl install` and lie as files in `deploy/crds`, which a test holds equal.
//!
//! [`ClusterPeer::parse`]: cluster_peer::ClusterPeer::parse
//! [`FailoverPolicy::check`]: failover_policy::FailoverPolicy::check

#![expect(
    clippy::duplicated_attributes,
    reason = "the printer columns of a kind have members of the same name"
)]

pub mod cluster_peer;
pub mod condition;
pub mod failover_policy;
pub mod mesh_identity;
mod schema;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

pub use self::cluster_peer::ClusterPeer;
pub use self::failover_policy::FailoverPolicy;

/// The group of all of them.
pub const GROUP: &str = "isthmus.dev";
/// Their version.
pub const VERSION: &str = "v1alpha1";

/// The definitions of all of them, by name.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![schema::tidy(ClusterPeer::crd()), schema::tidy(FailoverPolicy::crd()), mesh_identity::definition()]
}

/// A definition as YAML, as it lies in `deploy/crds`.
///
/// # Panics
/// Never: a definition has text keys and no failing members.
pub fn yaml(definition: &CustomResourceDefinition) -> String {
    serde_yaml_ng::to_string(definition).expect("text keys and no failing members")
}
