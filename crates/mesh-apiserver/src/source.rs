//! Where objects come from.
//!
//! A source reads everything once, then tells what changes. It never lets go of an object because it could not
//! read something: what cannot be read is a finding, and what was known before stays.

pub mod manifests;

pub use manifests::ManifestSource;

use std::path::PathBuf;
use std::str::FromStr;

use serde::Serialize;

use crate::finding::Finding;
use crate::index::Change;
use crate::object::Object;

/// What a source has to say: all of its objects the first time, then changes.
#[derive(Clone, Debug)]
pub struct SourceUpdate {
    /// The objects.
    pub objects: SourceEvent,
    /// All that is odd about the source itself, at present.
    pub findings: Vec<Finding>,
    /// Sizes, for the status page.
    pub status: SourceStatus,
}

/// Objects of a [`SourceUpdate`].
#[derive(Clone, Debug, PartialEq)]
pub enum SourceEvent {
    /// All objects that there are.
    Reset(Vec<Object>),
    /// What changed since the last update; may be nothing.
    Changes(Vec<Change>),
}

/// What `/status` shows of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// The source as on the command line.
    pub source: String,
    /// Files that are read.
    pub files: usize,
    /// When an object last changed.
    pub last_change: Option<jiff::Timestamp>,
}

/// A source as on the command line: `manifests:<folder>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceSpec {
    /// A folder of Kubernetes YAML.
    Manifests(PathBuf),
}

/// Why a text is not a source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("source {found:?}: expected manifests:<folder>")]
pub struct InvalidSource {
    found: String,
}

impl FromStr for SourceSpec {
    type Err = InvalidSource;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("manifests", folder)) if !folder.is_empty() => Ok(Self::Manifests(PathBuf::from(folder))),
            _ => Err(InvalidSource { found: text.to_owned() }),
        }
    }
}

impl std::fmt::Display for SourceSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Manifests(folder) => write!(f, "manifests:{}", folder.display()),
        }
    }
}
