//! In what order the backends of services are used, and when the next are taken.
//!
//! The shape alone: nothing applies a policy yet, and the condition `Programmed` of each says so.

mod check;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::check::{InvalidPolicy, duration};
use crate::schema;

/// In what order the backends of services are used.
#[derive(Clone, Debug, Default, PartialEq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "isthmus.dev",
    version = "v1alpha1",
    kind = "FailoverPolicy",
    plural = "failoverpolicies",
    shortname = "fop",
    category = "isthmus",
    namespaced,
    status = "FailoverPolicyStatus",
    derive = "PartialEq",
    doc = "In what order the backends of global services in its namespace are used, and when the next are taken. Checked, and not yet applied by any agent: see the condition Programmed.",
    printcolumn(name = "First", type_ = "string", json_path = ".spec.tiers[0].to"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].reason"
    ),
    printcolumn(
        name = "Programmed",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Programmed\")].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct FailoverPolicySpec {
    /// The services of its namespace that it is for. Without it, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<Services>,
    /// Where backends are taken from, in this order.
    #[schemars(length(min = 1, max = 8))]
    pub tiers: Vec<Tier>,
    /// What goes to the next tier when one has too few healthy backends: Proportional, only the excess; All, everything.
    #[serde(default)]
    pub spill: Spill,
    /// Time in which the share of a backend that is new or back grows to its full one, such as 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = schema::DURATION))]
    pub slow_start: Option<String>,
    /// Time for which a tier must have too few healthy backends before the next is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = schema::DURATION))]
    pub hold_down: Option<String>,
    /// Time for which a tier must have enough healthy backends before it is taken again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = schema::DURATION))]
    pub failback_delay: Option<String>,
}

/// Services of a namespace: by name, or by label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("not" = {"required": ["names", "matchLabels"]}))]
pub struct Services {
    /// Their names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), inner(length(min = 1, max = 63), regex(pattern = schema::SERVICE)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub names: Option<Vec<String>>,
    /// Labels that they must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_labels: Option<BTreeMap<String, String>>,
}

/// Some of the backends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tier {
    /// Which: those in the client's zone, in its region, of its cluster, of the clusters or regions named below, or any.
    pub to: Reach,
    /// The clusters, for Clusters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 511), inner(length(max = 32), regex(pattern = schema::CLUSTER_NAME)))]
    pub clusters: Vec<String>,
    /// The regions, for Regions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 63)))]
    pub regions: Vec<String>,
    /// How many healthy backends are enough: a number, or a part of all of the tier's, such as 50%. Without it, one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::count_or_percent")]
    pub min_healthy: Option<IntOrString>,
}

/// Which backends a tier is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[expect(
    missing_docs,
    reason = "the words say it; a description of each would make the schema an unstructural one"
)]
pub enum Reach {
    SameZone,
    SameRegion,
    SameCluster,
    Clusters,
    Regions,
    Any,
}

/// What goes to the next tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(
    missing_docs,
    reason = "the words say it; a description of each would make the schema an unstructural one"
)]
pub enum Spill {
    #[default]
    Proportional,
    All,
}

/// What became of a policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailoverPolicyStatus {
    /// The generation of the object that the rest is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What holds, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}
