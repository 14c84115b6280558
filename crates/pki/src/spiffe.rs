//! The URIs that certificates carry: which trust domain, which cluster, and below it which node in which role.
//!
//! ```text
//! spiffe://<trust-domain>/cluster/<name>/id/<id>             a passport (recorded in docs/decisions/0002)
//! spiffe://<trust-domain>/cluster/<name>/node/<node>/<role>  a leaf
//! ```
//! Readers are strict: a URI that would not be written in exactly the same bytes again is refused, so two
//! spellings of one name cannot be mistaken for two names or the other way round.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use topology::{ClusterId, ClusterName, NodeName};

use crate::profile::LeafRole;

/// The name of a mesh's name space: 1 to 255 of `[a-z0-9._-]` (SPIFFE-ID, section 2.1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(String);

/// Holds what the URI of a passport says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClusterUri {
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// The cluster that the passport belongs to.
    pub cluster: ClusterName,
    /// Its id in the mesh.
    pub id: ClusterId,
}

/// Holds what the URI of a leaf says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeafUri {
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// The cluster that the leaf belongs to.
    pub cluster: ClusterName,
    /// The node or machine that holds the key.
    pub node: NodeName,
    /// What the holder is.
    pub role: LeafRole,
}

/// Why a text is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUri {
    /// Not a trust domain.
    #[error("trust domain {found:?}: expected 1 to 255 of a-z, 0-9, '.', '_' and '-'")]
    TrustDomain {
        /// The text.
        found: String,
    },
    /// Not the URI of a passport.
    #[error("URI {found:?}: expected spiffe://<trust-domain>/cluster/<name>/id/<1 to 511>")]
    Cluster {
        /// The text.
        found: String,
    },
    /// Not the URI of a leaf.
    #[error(
        "URI {found:?}: expected spiffe://<trust-domain>/cluster/<name>/node/<node>/<hub|remote|local|admin|etcd|store>"
    )]
    Leaf {
        /// The text.
        found: String,
    },
}

impl TrustDomain {
    /// The trust domain as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = InvalidUri;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let sound = (1..=255).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'));
        if sound { Ok(Self(text.to_owned())) } else { Err(InvalidUri::TrustDomain { found: clip(text) }) }
    }
}

impl TryFrom<String> for TrustDomain {
    type Error = InvalidUri;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<TrustDomain> for String {
    fn from(domain: TrustDomain) -> Self {
        domain.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ClusterUri {
    type Err = InvalidUri;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let [trust_domain, "cluster", cluster, "id", id] = segments(text)?[..] else { return None };
            Some(Self {
                trust_domain: trust_domain.parse().ok()?,
                cluster: cluster.parse().ok()?,
                id: id.parse().ok()?,
            })
        };
        let exact = parse().filter(|uri| uri.to_string() == text);
        exact.ok_or_else(|| InvalidUri::Cluster { found: clip(text) })
    }
}

impl fmt::Display for ClusterUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/cluster/{}/id/{}", self.trust_domain, self.cluster, self.id)
    }
}

impl FromStr for LeafUri {
    type Err = InvalidUri;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let [trust_domain, "cluster", cluster, "node", node, role] = segments(text)?[..] else {
                return None;
            };
            Some(Self {
                trust_domain: trust_domain.parse().ok()?,
                cluster: cluster.parse().ok()?,
                node: node.parse().ok()?,
                role: role.parse().ok()?,
            })
        };
        let exact = parse().filter(|uri| uri.to_string() == text);
        exact.ok_or_else(|| InvalidUri::Leaf { found: clip(text) })
    }
}

impl fmt::Display for LeafUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/cluster/{}/node/{}/{}", self.trust_domain, self.cluster, self.node, self.role)
    }
}

/// The parts between the slashes, at most eight: a longer path is none of ours.
fn segments(text: &str) -> Option<Vec<&str>> {
    Some(text.strip_prefix(SCHEME)?.split('/').take(8).collect())
}

/// At most 200 characters of a text that came from outside, for a message.
fn clip(text: &str) -> String {
    text.chars().take(200).collect()
}

const SCHEME: &str = "spiffe://";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_round_trip() {
        let text = "spiffe://mesh_1.example/cluster/paris/id/511";
        assert_eq!(text.parse::<ClusterUri>().map(|u| u.to_string()).as_deref(), Ok(text));
        let text = "spiffe://mesh.example/cluster/paris/node/n-1.eu/remote";
        assert_eq!(text.parse::<LeafUri>().map(|u| u.to_string()).as_deref(), Ok(text));
    }

    #[test]
    fn other_spellings_are_refused() {
        for bad in [
            "",
            "spiffe://",
            "http://mesh.example/cluster/paris/id/1",
            "SPIFFE://mesh.example/cluster/paris/id/1",
            "spiffe://Mesh.example/cluster/paris/id/1",
            "spiffe://mesh.example/cluster/paris/id/01",
            "spiffe://mesh.example/cluster/paris/id/+1",
            "spiffe://mesh.example/cluster/paris/id/0",
            "spiffe://mesh.example/cluster/paris/id/512",
            "spiffe://mesh.example/cluster/paris/id/1/",
            "spiffe://mesh.example/cluster/paris/id/1?x",
            "spiffe://mesh.example//cluster/paris/id/1",
            "spiffe://mesh.example:1/cluster/paris/id/1",
            "spiffe:///cluster/paris/id/1",
            "spiffe://mesh.example/cluster/par%69s/id/1",
        ] {
            assert!(bad.parse::<ClusterUri>().is_err(), "{bad}");
        }
        for bad in [
            "spiffe://mesh.example/cluster/paris/node/n1/root",
            "spiffe://mesh.example/cluster/paris/node/../remote",
            "spiffe://mesh.example/cluster/paris/node//remote",
            "spiffe://mesh.example/cluster/paris/node/n1/remote/x",
        ] {
            assert!(bad.parse::<LeafUri>().is_err(), "{bad}");
        }
    }
}
