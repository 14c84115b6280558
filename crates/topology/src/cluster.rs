//! Who a cluster is: its name and its id.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A cluster's name: 1 to 32 characters of `[a-z0-9-]`, not starting or ending with `-`.
///
/// The rule is Cilium's (`pkg/clustermesh/types/option.go`); `default` is not a name in a mesh, where
/// every cluster has an id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterName(String);

/// A cluster's id in the mesh: 1 to 511.
///
/// Stock ClusterMesh allows 1..255 by default and 1..511 when every member says so; which of the two a
/// mesh uses is [`MaxClusters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct ClusterId(NonZeroU16);

/// How many clusters a mesh can have, which decides how the 24 identity bits are shared between the
/// cluster id and the identity within it. Equal in all members for the life of the mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MaxClusters {
    /// 255 clusters with 65 536 identities each.
    #[default]
    N255,
    /// 511 clusters with 32 768 identities each.
    N511,
}

/// Why a text is not a [`ClusterName`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "cluster name {found:?}: expected 1 to 32 of a-z, 0-9 and '-', starting and ending with a letter or digit, and not \"default\""
)]
pub struct InvalidClusterName {
    found: String,
}

/// Why a number is not a [`ClusterId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cluster id {found}: expected 1 to 511")]
pub struct InvalidClusterId {
    found: String,
}

impl ClusterName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClusterName {
    type Err = InvalidClusterName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let edge = |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let bytes = text.as_bytes();
        let sound = (1..=32).contains(&bytes.len())
            && edge(bytes.first().copied())
            && edge(bytes.last().copied())
            && bytes.iter().all(|b| edge(Some(*b)) || *b == b'-')
            && text != "default";
        if sound { Ok(Self(text.to_owned())) } else { Err(InvalidClusterName { found: text.to_owned() }) }
    }
}

impl TryFrom<String> for ClusterName {
    type Error = InvalidClusterName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ClusterName> for String {
    fn from(name: ClusterName) -> Self {
        name.0
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ClusterId {
    /// The id as a number.
    pub fn get(self) -> u16 {
        self.0.get()
    }
}

impl TryFrom<u32> for ClusterId {
    type Error = InvalidClusterId;

    fn try_from(number: u32) -> Result<Self, Self::Error> {
        u16::try_from(number)
            .ok()
            .filter(|n| *n <= 511)
            .and_then(NonZeroU16::new)
            .map(Self)
            .ok_or_else(|| InvalidClusterId { found: number.to_string() })
    }
}

impl FromStr for ClusterId {
    type Err = InvalidClusterId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number: Option<u32> = text.parse().ok();
        number.and_then(|n| Self::try_from(n).ok()).ok_or_else(|| InvalidClusterId { found: text.to_owned() })
    }
}

impl From<ClusterId> for u32 {
    fn from(id: ClusterId) -> Self {
        Self::from(id.get())
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl MaxClusters {
    /// The number that goes into a cluster's published configuration: 255 or 511.
    pub fn get(self) -> u32 {
        match self {
            Self::N255 => 255,
            Self::N511 => 511,
        }
    }

    /// How far a cluster id is shifted to the left in an identity: 16 or 15.
    pub fn identity_shift(self) -> u32 {
        match self {
            Self::N255 => 16,
            Self::N511 => 15,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule() {
        for good in ["a", "paris", "eu-west-1", "0", &"x".repeat(32)] {
            assert!(good.parse::<ClusterName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "Paris", "a.b", "default", "pa ris", &"x".repeat(33), "é"] {
            assert!(bad.parse::<ClusterName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_are_1_to_511() {
        assert!("0".parse::<ClusterId>().is_err());
        assert!("512".parse::<ClusterId>().is_err());
        assert!("-1".parse::<ClusterId>().is_err());
        assert_eq!("511".parse::<ClusterId>().map(ClusterId::get), Ok(511));
        assert_eq!(
            ClusterId::try_from(70_000).map_err(|e| e.to_string()),
            Err("cluster id 70000: expected 1 to 511".to_owned())
        );
    }
}
