//! What clusters tell each other: the keys and values of the ClusterMesh keyspace. STABLE FORMAT.
//!
//! Each record has a wire form, written exactly as a stock 1.20 apiserver writes it, and a parsed form in
//! which names, addresses and numbers have been checked against the cluster they come from. Reading is
//! tolerant where Cilium is (unknown members are ignored), but nothing passes that names another cluster
//! than its [`Origin`]. `docs/wire-format.md` holds the rules and their sources.
//!
//! | module | key | value |
//! |---|---|---|
//! | [`config`] | `cilium/cluster-config/<cluster>` | JSON |
//! | [`node`] | `cilium/state/nodes/v1/<cluster>/<node>` | JSON |
//! | [`identity`] | `cilium/state/identities/v1/id/<number>` | label list |
//! | [`ip`] | `cilium/state/ip/v1/default/<address>` | JSON |
//! | [`service`] | `cilium/state/services/v1/<cluster>/<ns>/<name>` | JSON |
//! | [`mod@slice`] | `cilium/state/endpointslices/v1/<cluster>/<ns>/<slice>` | zstd of protobuf |
//! | [`local`] | `isthmus/v1/local/services/<ns>/<name>` | JSON, our own |

pub mod config;
pub mod identity;
pub mod ip;
pub mod key;
pub mod local;
pub mod node;
pub mod port;
pub mod service;
pub mod slice;

use std::net::IpAddr;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::block;
use crate::cluster::{ClusterId, ClusterName, MaxClusters};

pub use key::Kind;
pub use port::Protocol;

/// Where records come from: what every record of a cluster must agree with.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The cluster's name, as this side configured it.
    pub cluster: ClusterName,
    /// The cluster's id, as its configuration record said.
    pub id: ClusterId,
    /// How identities are numbered in this mesh.
    pub max: MaxClusters,
}

/// Why a record is not taken. The record is skipped; whatever was known before stays.
#[derive(Debug, thiserror::Error)]
pub enum Rejected {
    /// The value is not JSON of the expected shape.
    #[error("value is not the expected JSON")]
    Json(#[source] serde_json::Error),
    /// The value does not decompress, or to more than [`slice::MAX_DECOMPRESSED`].
    #[error("value is not a zstd frame of at most {} bytes", slice::MAX_DECOMPRESSED)]
    Compression(#[source] std::io::Error),
    /// The value is not a protobuf message of the expected shape.
    #[error("value is not the expected protobuf message")]
    Protobuf(#[source] prost::DecodeError),
    /// A list of labels does not parse.
    #[error("value is not a list of labels")]
    Labels(#[source] crate::labels::InvalidLabels),
    /// A member says something else than the key, the peer's name or its configuration do.
    #[error("{member} is {found:?}, expected {expected:?}")]
    Mismatch {
        /// The member of the value, by its wire name.
        member: &'static str,
        /// What it says.
        found: String,
        /// What it must say.
        expected: String,
    },
    /// A member cannot be read as what it stands for.
    #[error("{member} is {found:?}, expected {expected}")]
    Malformed {
        /// The member of the value, by its wire name.
        member: &'static str,
        /// What it says.
        found: String,
        /// What can stand there.
        expected: &'static str,
    },
}

impl Rejected {
    pub(crate) fn malformed(member: &'static str, found: impl Into<String>, expected: &'static str) -> Self {
        Self::Malformed { member, found: found.into(), expected }
    }
}

/// Fails unless `found` equals `expected`.
pub(crate) fn expect_equal(member: &'static str, found: &str, expected: &str) -> Result<(), Rejected> {
    if found == expected {
        return Ok(());
    }
    Err(Rejected::Mismatch { member, found: found.to_owned(), expected: expected.to_owned() })
}

/// Fails unless the numbers are equal.
pub(crate) fn expect_id(member: &'static str, found: u32, origin: &Origin) -> Result<(), Rejected> {
    if found == u32::from(origin.id) {
        return Ok(());
    }
    Err(Rejected::Mismatch { member, found: found.to_string(), expected: origin.id.to_string() })
}

pub(crate) fn address(member: &'static str, text: &str) -> Result<IpAddr, Rejected> {
    block::parse_address(text)
        .ok_or_else(|| Rejected::malformed(member, text, "an IPv4 or IPv6 address without a zone"))
}

pub(crate) fn from_json<T: DeserializeOwned>(value: &[u8]) -> Result<T, Rejected> {
    serde_json::from_slice(value).map_err(Rejected::Json)
}

/// JSON as Go's `encoding/json` writes it: `<`, `>` and `&` inside texts are escaped, and so are the two
/// line separators that JavaScript cannot hold.
pub(crate) fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    let text = serde_json::to_string(value).expect("records have text keys and no failing members");
    // These characters can only stand inside texts, so replacing them everywhere is safe.
    if !text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return text.into_bytes();
    }
    let mut escaped = String::with_capacity(text.len() + 32);
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("\\u003c"),
            '>' => escaped.push_str("\\u003e"),
            '&' => escaped.push_str("\\u0026"),
            '\u{2028}' => escaped.push_str("\\u2028"),
            '\u{2029}' => escaped.push_str("\\u2029"),
            other => escaped.push(other),
        }
    }
    escaped.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_escapes_as_go_does() {
        assert_eq!(to_json(&"a<b>&c\u{2028}"), br#""a\u003cb\u003e\u0026c\u2028""#);
    }
}
