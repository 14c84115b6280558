//! What a peer is shown, in the language of `--peer-filters` (docs/export-filters.md).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use topology::ExportFilter;

use crate::schema;

/// An export filter. Each part narrows on its own: a record is shown if none of them hides it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Export {
    /// Namespaces of services, endpoint slices, identities and pods: names, in which * stands for any characters and ? for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<Patterns>,
    /// Services, and with them their endpoint slices, each as NAMESPACE/NAME, with * and ?.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<Patterns>,
    /// Labels of services, endpoint slices and identities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
}

/// What is included and what is not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Patterns {
    /// One of them must match. Without it everything does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), inner(length(max = 507), regex(pattern = schema::PATTERN)))]
    pub include: Option<Vec<String>>,
    /// None of them may match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024), inner(length(max = 507), regex(pattern = schema::PATTERN)))]
    pub exclude: Option<Vec<String>>,
}

/// A label selector with Kubernetes' meaning: all of it must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Labels {
    /// Labels that must be there with these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// What else must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub match_expressions: Vec<Expression>,
}

/// A condition on one label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Expression {
    /// The label.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// What it is held against.
    pub operator: Operator,
    /// The values, for In and NotIn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub values: Vec<String>,
}

/// What a label is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(
    missing_docs,
    reason = "Kubernetes' words; a description of each would make the schema an unstructural one"
)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl Export {
    /// The filter that it says. Fails with what has no meaning, such as a service without a namespace.
    pub fn filter(&self) -> Result<ExportFilter, serde_json::Error> {
        // One language: whatever the file of filters cannot say, an object cannot either.
        serde_json::to_value(self).and_then(serde_json::from_value)
    }
}
