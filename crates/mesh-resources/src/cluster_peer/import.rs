//! The import grant: what a peer may offer here.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use topology::ImportGrant;

use super::export::Patterns;

/// What a peer may offer: backends of services, and identities. Each part that is given narrows on its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Import {
    /// What is granted where nothing is said, Everything or Nothing: of backends if neither namespaces nor services is given,
    /// and of identities if identityNamespaces is not.
    #[serde(default)]
    pub preset: Preset,
    /// Namespaces for whose services the peer may offer backends: names, with * and ?.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<Patterns>,
    /// Services for which it may offer backends, each as NAMESPACE/NAME, with * and ?.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<Patterns>,
    /// Namespaces that its identities may carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_namespaces: Option<Patterns>,
}

/// What is granted where nothing is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(
    missing_docs,
    reason = "the words say it; a description of each would make the schema an unstructural one"
)]
pub enum Preset {
    #[default]
    Everything,
    Nothing,
}

impl Import {
    /// The grant that it says. Fails with what has no meaning, such as a service without a namespace.
    pub fn grant(&self) -> Result<ImportGrant, serde_json::Error> {
        // One language: what the agents' configuration cannot say, an object cannot either.
        serde_json::to_value(self).and_then(serde_json::from_value)
    }
}
