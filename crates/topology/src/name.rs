//! Names of things inside a cluster.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A service's name in the mesh: namespace and name. Services of equal name in several clusters are one
/// service when each of them says it is global.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceName {
    namespace: String,
    name: String,
}

/// A node's name, unique within its cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {found:?}: expected {expected}")]
pub struct InvalidName {
    what: &'static str,
    found: String,
    expected: &'static str,
}

impl ServiceName {
    /// Fails if either part cannot be an element of a key: empty, over 253 bytes, with a `/`, a control
    /// character or a space in it, or just `.` or `..`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Result<Self, InvalidName> {
        let (namespace, name) = (namespace.into(), name.into());
        if is_key_element(&namespace) && is_key_element(&name) {
            Ok(Self { namespace, name })
        } else {
            Err(InvalidName {
                what: "service",
                found: format!("{namespace}/{name}"),
                expected: "<namespace>/<name> of Kubernetes names",
            })
        }
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name within the namespace.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl FromStr for ServiceName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, name) = text.split_once('/').unwrap_or(("", text));
        Self::new(namespace, name)
    }
}

impl NodeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if is_key_element(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName { what: "node", found: text.to_owned(), expected: "a Kubernetes node name" })
        }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ServiceName {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ServiceName> for String {
    fn from(name: ServiceName) -> Self {
        name.to_string()
    }
}

impl TryFrom<String> for NodeName {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0
    }
}

/// True if `text` can stand between two slashes of a key: Kubernetes names can, `..` cannot.
pub fn is_key_element(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text != "."
        && text != ".."
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_name_has_two_parts() {
        let name: ServiceName = "shop/cart".parse().expect("a sound name");
        assert_eq!((name.namespace(), name.name()), ("shop", "cart"));
        for bad in ["cart", "/cart", "shop/", "a/b/c", "../x", "a/ b", "a/."] {
            assert!(bad.parse::<ServiceName>().is_err(), "{bad}");
        }
    }
}
