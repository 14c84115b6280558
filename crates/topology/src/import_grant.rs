//! What a peer may offer here: the operator's import grant. Pure.
//!
//! A grant judges a record by its namespace and name alone, so a peer cannot talk its way around it: a service's key says
//! which service it is, and an identity without a namespace is granted by nobody but the preset.

use serde::{Deserialize, Serialize};

use crate::export_filter::{Glob, Patterns, ServiceGlob};
use crate::name::ServiceName;

/// What a peer may offer. STABLE FORMAT: hubs write it for agents of other versions, in the words of `ClusterPeer`.
///
/// What it does not know is refused, since a grant that is read in part grants too much.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ImportGrant {
    /// What is granted of backends if neither `namespaces` nor `services` is given, and of identities if
    /// `identity_namespaces` is not.
    pub preset: Preset,
    /// Namespaces for whose services it may offer backends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<Patterns<Glob>>,
    /// Services for which it may offer backends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<Patterns<ServiceGlob>>,
    /// Namespaces that its identities may carry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity_namespaces: Option<Patterns<Glob>>,
}

/// What is granted where nothing is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the words say it")]
pub enum Preset {
    #[default]
    Everything,
    Nothing,
}

impl ImportGrant {
    /// Whether it may offer backends for a service: every part that is given must admit it. O(patterns).
    pub fn admits_service(&self, service: &ServiceName) -> bool {
        let (namespace, name) = (service.namespace(), service.name());
        let by_namespace = self.namespaces.as_ref().map(|patterns| patterns.admit_name(namespace));
        let by_service = self.services.as_ref().map(|patterns| patterns.admit_service(namespace, name));
        match (by_namespace, by_service) {
            (None, None) => self.preset == Preset::Everything,
            (by_namespace, by_service) => by_namespace.unwrap_or(true) && by_service.unwrap_or(true),
        }
    }

    /// Whether its identities may carry a namespace; `None` for one that carries none. O(patterns).
    pub fn admits_identity_in(&self, namespace: Option<&str>) -> bool {
        match (&self.identity_namespaces, namespace) {
            (None, _) => self.preset == Preset::Everything,
            (Some(patterns), Some(namespace)) => patterns.admit_name(namespace),
            (Some(patterns), None) => patterns.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(json: &str) -> ImportGrant {
        serde_json::from_str(json).expect("a grant")
    }

    #[track_caller]
    fn services(json: &str, expected: &[&str]) {
        let grant = grant(json);
        let all = ["shop/cart", "shop/cash", "bank/cash"];
        let is_admitted =
            |name: &&&str| grant.admits_service(&name.parse::<ServiceName>().expect("a service"));
        assert_eq!(all.iter().filter(is_admitted).copied().collect::<Vec<_>>(), expected, "{json}");
    }

    #[test]
    fn a_part_that_is_given_narrows_and_the_preset_counts_where_none_is() {
        services("{}", &["shop/cart", "shop/cash", "bank/cash"]);
        services(r#"{"preset":"Nothing"}"#, &[]);
        services(r#"{"preset":"Nothing","identityNamespaces":{"include":["shop"]}}"#, &[]);
        services(r#"{"preset":"Nothing","namespaces":{"include":["shop"]}}"#, &["shop/cart", "shop/cash"]);
        services(r#"{"namespaces":{"exclude":["shop"]}}"#, &["bank/cash"]);
        services(r#"{"preset":"Nothing","services":{"include":["*/cash"]}}"#, &["shop/cash", "bank/cash"]);
        let both = r#"{"namespaces":{"include":["shop"]},"services":{"exclude":["*/cash"]}}"#;
        services(both, &["shop/cart"]);
    }

    #[test]
    fn identities_have_a_part_of_their_own() {
        let of = |json: &str| {
            let grant = grant(json);
            [Some("shop"), Some("bank"), None].map(|namespace| grant.admits_identity_in(namespace))
        };
        assert_eq!(of("{}"), [true, true, true]);
        assert_eq!(of(r#"{"preset":"Nothing"}"#), [false, false, false]);
        assert_eq!(of(r#"{"namespaces":{"include":["shop"]}}"#), [true, true, true]);
        assert_eq!(of(r#"{"identityNamespaces":{"include":["shop"]}}"#), [true, false, false]);
        assert_eq!(of(r#"{"preset":"Nothing","identityNamespaces":{}}"#), [true, true, true]);
    }

    #[test]
    fn it_is_written_as_it_is_read_and_nothing_is_passed_over() {
        let text = r#"{"preset":"Nothing","namespaces":{"include":["shop"]},"identityNamespaces":{}}"#;
        assert_eq!(serde_json::to_string(&grant(text)).expect("JSON"), text);
        for bad in [r#"{"namespace":{}}"#, r#"{"preset":"Some"}"#, r#"{"namespaces":{"include":[]}}"#] {
            assert!(serde_json::from_str::<ImportGrant>(bad).is_err(), "{bad}");
        }
    }
}
