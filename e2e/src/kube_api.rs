//! A Kubernetes API server for tests: a small one of our own, or a real one where the environment names it.
//!
//! ```text
//!   request -> request.rs (what is it about?) -> faults.rs (does it fail on request?) -> handler.rs
//!                 read.rs, watch.rs <- store.rs -> write.rs, delete.rs, apply.rs
//! ```
//!
//! [`KubeApi::start`] gives whichever there is, with a kubeconfig file; a scenario that uses nothing else runs against
//! both. `E2E_KUBE_APISERVER=<binary> E2E_ETCD=<binary>` name a real one. The small one has more: faults
//! ([`KubeApi::faults`]), counters of requests and a bulk loader ([`KubeApi::small`]), and, as a process of its own
//! (`lab-kube-api`), the same under `/_lab/faults`, `/_lab/requests` and `/_lab/load`.
//!
//! # What the small one does
//! get, list (pages of one moment), watch (bookmarks, 410, streaming lists, selectors), create, update, merge patch,
//! server-side apply with owners of fields and conflicts, `/status`, delete with finalizers and preconditions,
//! collections, dry runs, label and field selectors (`metadata.name`, `metadata.namespace`, `spec.nodeName`), answers as
//! `PartialObjectMetadata`, discovery, tokens of service accounts and roles for them, the built-in kinds of
//! [`kinds::built_in`], and custom resources with their schemas.
//!
//! # What it does not do
//! * No controllers but two: a deleted namespace takes its content with it, a deleted definition its objects. Nothing
//!   collects dependents, makes pods or endpoint slices, or gives load balancers their addresses.
//! * No users but one who may do everything, and service accounts, for whom stored roles count ([`rbac`]). No admission
//!   but for namespaces.
//! * Built-in objects are read into their types, which drops unknown fields and finds wrong types; of the hundreds of
//!   rules beyond types there are the few of [`rules`]. Of the defaults there are the few of [`defaults`].
//! * One version of each kind. `events` of `v1` and of `events.k8s.io` are two tables.
//! * Rules in CEL are not evaluated ([`requests::Tally::not_evaluated`] names the definitions that have some).
//! * Only HTTP/1.1, only JSON (and YAML in bodies). No tables, protobuf, JSON patches, strategic merge patches but for
//!   labels and annotations, `scale`, `eviction`, `log`, `exec`, OpenAPI.
//! * How apply is simplified: [`apply`].
//! * A list with a revision that is not reached yet is refused at once, without waiting for it. Node and pod objects are
//!   deleted at once.
//!
//! What it does not know it refuses, with 501 or the status that a real server would give for nonsense, and counts it:
//! [`requests::Tally::unsupported`] must be empty at the end of a test.

mod answer;
pub mod apply;
pub mod clock;
pub mod content;
pub mod credentials;
pub mod defaults;
pub mod definition;
pub mod delete;
pub mod discovery;
pub mod failure;
pub mod faults;
pub mod field_set;
pub mod handler;
pub mod kinds;
pub mod listener;
pub mod load;
pub mod merge_patch;
pub mod names;
pub mod rbac;
pub mod read;
pub mod real;
pub mod request;
pub mod requests;
pub mod rules;
pub mod schema;
pub mod selector;
pub mod small;
pub mod store;
pub mod watch;
pub mod write;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

pub use credentials::Access;
pub use faults::{Begun, Fault, Faults, Requests};
pub use real::{RealApi, RealPrograms};
pub use requests::Tally;
pub use small::{SmallApi, SmallOptions};

/// An API server for one test. Everything it has ends with it.
#[derive(Debug)]
pub struct KubeApi {
    server: Server,
    kubeconfig: PathBuf,
    // Removed after the servers have ended.
    _dir: TempDir,
}

#[derive(Debug)]
enum Server {
    Small(SmallApi),
    Real(Box<RealApi>),
}

impl KubeApi {
    /// Starts the real one if the environment names it, else the small one over HTTPS.
    pub async fn start() -> Result<Self> {
        let dir = directory()?;
        match RealPrograms::from_env()? {
            Some(programs) => {
                let server = RealApi::start(&programs, dir.path()).await?;
                Self::with_kubeconfig(Server::Real(Box::new(server)), dir)
            }
            None => Self::start_small(SmallOptions::default()).await,
        }
    }

    /// Starts the small one, whatever the environment says: for tests with faults.
    pub async fn start_small(options: SmallOptions) -> Result<Self> {
        let server = SmallApi::start(options).await?;
        Self::with_kubeconfig(Server::Small(server), directory()?)
    }

    fn with_kubeconfig(server: Server, dir: TempDir) -> Result<Self> {
        let kubeconfig = dir.path().join("kubeconfig");
        let api = Self { server, kubeconfig, _dir: dir };
        api.access().write_kubeconfig(&api.kubeconfig)?;
        Ok(api)
    }

    /// How clients reach it.
    pub fn access(&self) -> &Access {
        match &self.server {
            Server::Small(api) => api.access(),
            Server::Real(api) => api.access(),
        }
    }

    /// A kubeconfig file, there as long as this is.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The small one, if it is.
    pub fn small(&self) -> Option<&SmallApi> {
        match &self.server {
            Server::Small(api) => Some(api),
            Server::Real(_) => None,
        }
    }

    /// Makes things go wrong, if it can.
    pub fn faults(&self) -> Option<&Faults> {
        self.small().map(SmallApi::faults)
    }
}

fn directory() -> Result<TempDir> {
    tempfile::Builder::new().prefix("isthmus-kube-api-").tempdir().context("make a temporary directory")
}
