//! Where objects come from.
//!
//! A source reads everything once, then tells what changes. It never lets go of an object because it could not
//! read something: what cannot be read is a finding, and what was known before stays.

pub mod kubernetes;
pub mod manifests;

pub use kubernetes::KubernetesSource;
pub use manifests::ManifestSource;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::str::FromStr;

use prometheus_client::registry::Registry;
use serde::Serialize;

use self::kubernetes::access::{Access, AccessError};
use self::kubernetes::metrics::Contacts;
use self::kubernetes::served::CiliumChoice;
use crate::finding::Finding;
use crate::identity::Numbering;
use crate::identity::registrar::Registrar;
use crate::index::Change;
use crate::object::{Object, ObjectKind};

/// A source that is open.
#[derive(Debug)]
pub enum Source {
    /// A folder of Kubernetes YAML.
    Manifests(Box<ManifestSource>),
    /// A Kubernetes API server.
    Kubernetes(Box<KubernetesSource>),
}

/// Opens a source: once at the start, and anew with each term as leader.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A folder of Kubernetes YAML.
    Manifests(PathBuf),
    /// A Kubernetes API server. All that are opened count together.
    Kubernetes(Access, Contacts, CiliumChoice),
}

/// A source cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder.
    #[error(transparent)]
    Manifests(#[from] manifests::OpenError),
    /// How to reach the API server.
    #[error(transparent)]
    Kubernetes(#[from] AccessError),
}

/// What a source has to say: all of its objects the first time, then changes.
#[derive(Clone, Debug)]
pub struct SourceUpdate {
    /// The objects.
    pub objects: SourceEvent,
    /// Kinds of which nothing is known, since they have never been read: what depends on them is not to be changed. They
    /// come with a later update.
    pub missing: BTreeSet<ObjectKind>,
    /// Who says which number labels have.
    pub numbering: Numbering,
    /// All that is odd about the source itself, at present.
    pub findings: Vec<Finding>,
    /// Sizes, for the status page.
    pub status: SourceStatus,
}

/// Objects of a [`SourceUpdate`].
#[derive(Clone, Debug, PartialEq)]
pub enum SourceEvent {
    /// The objects have not all been read yet.
    Unread,
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
    /// Address of the API server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Whether the API server answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connected: Option<bool>,
    /// Files that are read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<usize>,
    /// When an object last changed.
    pub last_change: Option<jiff::Timestamp>,
    /// What there is to say of each kind that is followed.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub kinds: BTreeMap<&'static str, KindStatus>,
}

/// What `/status` shows of a kind that is followed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KindStatus {
    /// Objects known.
    pub objects: usize,
    /// Whether all objects have been listed once.
    pub listed: bool,
    /// Complete lists so far.
    pub lists: u64,
    /// When the API server last said anything about the kind, bookmarks included; up to ten seconds old.
    pub heard: Option<jiff::Timestamp>,
    /// Why what is known may be out of date.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A source as on the command line: `manifests:<folder>` or `kubernetes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceSpec {
    /// A folder of Kubernetes YAML.
    Manifests(PathBuf),
    /// A Kubernetes API server, by other flags.
    Kubernetes,
}

/// Why a text is not a source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("source {found:?}: expected manifests:<folder> or kubernetes")]
pub struct InvalidSource {
    found: String,
}

impl Source {
    /// Waits for the next update: the first that is not [`Unread`](SourceEvent::Unread) is a reset. Not cancel-safe.
    pub async fn next(&mut self) -> SourceUpdate {
        match self {
            Self::Manifests(source) => source.next().await,
            Self::Kubernetes(source) => source.next().await,
        }
    }

    /// Whom to ask for objects of identities, if the source is where such objects are.
    pub fn registrar(&self) -> Option<Registrar> {
        match self {
            Self::Manifests(_) => None,
            Self::Kubernetes(source) => source.registrar(),
        }
    }
}

impl From<ManifestSource> for Source {
    fn from(source: ManifestSource) -> Self {
        Self::Manifests(Box::new(source))
    }
}

impl From<KubernetesSource> for Source {
    fn from(source: KubernetesSource) -> Self {
        Self::Kubernetes(Box::new(source))
    }
}

impl Origin {
    /// The source of a command line; registers what it counts.
    pub fn new(spec: &SourceSpec, access: Access, registry: &mut Registry) -> Self {
        match spec {
            SourceSpec::Manifests(folder) => Self::Manifests(folder.clone()),
            SourceSpec::Kubernetes => {
                Self::Kubernetes(access, Contacts::register(registry), CiliumChoice::default())
            }
        }
    }

    /// Makes this of Cilium's kinds, where there is an API server.
    #[must_use]
    pub fn with_cilium(self, choice: CiliumChoice) -> Self {
        match self {
            Self::Kubernetes(access, contacts, _) => Self::Kubernetes(access, contacts, choice),
            other => other,
        }
    }

    /// Opens it. Fails if it can never be read as it is configured; an API server that is away is no failure.
    pub async fn open(&self) -> Result<Source, OpenError> {
        Ok(match self {
            Self::Manifests(folder) => ManifestSource::open(folder.clone()).await?.into(),
            Self::Kubernetes(access, contacts, choice) => {
                KubernetesSource::open(access, contacts.clone(), *choice).await?.into()
            }
        })
    }
}

impl FromStr for SourceSpec {
    type Err = InvalidSource;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("manifests", folder)) if !folder.is_empty() => Ok(Self::Manifests(PathBuf::from(folder))),
            None if text == "kubernetes" => Ok(Self::Kubernetes),
            _ => Err(InvalidSource { found: text.to_owned() }),
        }
    }
}

impl std::fmt::Display for SourceSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Manifests(folder) => write!(f, "manifests:{}", folder.display()),
            Self::Kubernetes => f.write_str("kubernetes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_as_on_the_command_line() {
        for text in ["manifests:/m", "kubernetes"] {
            assert_eq!(text.parse::<SourceSpec>().map(|spec| spec.to_string()).as_deref(), Ok(text));
        }
        for bad in ["", "manifests:", "manifests", "kubernetes:x", "etcd:x"] {
            assert!(bad.parse::<SourceSpec>().is_err(), "{bad:?}");
        }
    }
}
