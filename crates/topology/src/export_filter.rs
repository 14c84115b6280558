//! Which records of the own cluster a peer is shown: by namespace, by service, by label. Pure.
//!
//! A filter judges each record by its own key and value alone, so the same record always gets the same verdict, and
//! whoever knows two versions of a record knows whether it came into a peer's sight or left it.
//!
//! | record | namespaces | services | labels |
//! |---|---|---|---|
//! | service, endpoint slice | its namespace | its `<namespace>/<name>` | its labels |
//! | identity | the label `k8s:io.kubernetes.pod.namespace` | | its labels of source `k8s` |
//! | `ip` | `K8sNamespace`; without one (nodes, hosts) it is shown | | |
//! | node, cluster configuration, canary, heartbeat | always shown | | |
//! | anything else, and what cannot be read | never shown | | |
//!
//! A filter narrows what a peer may read; it never grants anything.

mod judge;
mod pattern;
mod selector;
#[cfg(test)]
mod tests;

pub use judge::{ALWAYS_SHOWN, Verdict};
pub use pattern::{Glob, InvalidPattern, Patterns, ServiceGlob};
pub use selector::{Expression, InvalidExpression, LabelSelector, Operator};

use serde::{Deserialize, Serialize};

/// What a peer is shown. Each of the three parts narrows on its own: a record is shown if none of them hides it.
///
/// The member names are those of users' files. Two filters that say the same in another order are equal, and so is
/// their JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ExportFilter {
    /// Namespaces of services, endpoint slices, identities and pods.
    #[serde(skip_serializing_if = "Patterns::is_empty")]
    pub namespaces: Patterns<Glob>,
    /// Services, and with them their endpoint slices.
    #[serde(skip_serializing_if = "Patterns::is_empty")]
    pub services: Patterns<ServiceGlob>,
    /// Labels of services, endpoint slices and identities.
    #[serde(skip_serializing_if = "LabelSelector::is_empty")]
    pub labels: LabelSelector,
}

impl ExportFilter {
    /// Whether it hides nothing, not even what cannot be read: the peer is not filtered.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
