//! The import grant: what a peer may offer here.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use topology::ExportFilter;

use super::export::{Export, Patterns};

/// What a peer may offer. Each part narrows on its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Import {
    /// What is granted by a part that is not given: Everything, or Nothing.
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
    /// Checks the patterns. Fails with what has no meaning.
    pub(crate) fn check(&self) -> Result<(), serde_json::Error> {
        let check = |namespaces: &Option<Patterns>, services: &Option<Patterns>| {
            let (namespaces, services) = (namespaces.clone(), services.clone());
            Export { namespaces, services, labels: None }.filter().map(|_: ExportFilter| ())
        };
        check(&self.namespaces, &self.services)?;
        check(&self.identity_namespaces, &None)
    }
}
