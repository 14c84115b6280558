//! Who says which number labels have.

use std::time::Duration;

use serde::Serialize;

use super::LabelFilter;

/// Who says which number labels have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Numbering {
    /// The hub; only its store remembers.
    #[default]
    Store,
    /// The hub; objects at the API server remember, and the store beside them.
    Objects,
    /// Cilium: its identities, endpoints and nodes are published as they are.
    Cilium,
}

/// What an operator says about identities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Which labels count.
    pub labels: LabelFilter,
    /// After how long without use an object is marked, and after as long again deleted.
    pub unused_after: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { labels: LabelFilter::default(), unused_after: Duration::from_secs(600) }
    }
}

impl Numbering {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Objects => "objects",
            Self::Cilium => "cilium",
        }
    }
}
