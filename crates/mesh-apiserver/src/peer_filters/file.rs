//! The file of filters, followed: what it says is in force within moments, and what it cannot mean changes nothing.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kvstore::Publisher;
use kvstore::publisher::{PublishError, Target};
use mesh_runtime::Chain;
use notify::{RecursiveMode, Watcher};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::metrics::Metrics;
use super::objects::{FromObjects, wanted};
use super::{InvalidFilters, PeerFilters, in_force};
use crate::finding::{Finding, Reason};
use crate::resources::Resources;

/// The operator's file, or its absence: then no peer is filtered.
pub struct FilterFile {
    path: Option<PathBuf>,
    filters: PeerFilters,
    /// The file's bytes as they were last looked at; `None` if it could not be read.
    seen: Option<Vec<u8>>,
    changed: Arc<Notify>,
    problem: watch::Sender<Option<Finding>>,
    metrics: Metrics,
    /// The custom resources, which have a say, too.
    resources: Option<Resources>,
    /// Held for its life: dropping it ends the watch.
    _watcher: Option<notify::RecommendedWatcher>,
}

/// Why filters cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum FilterFileError {
    /// The file cannot be read.
    #[error("read the peer filters {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file does not say what peers are shown.
    #[error("peer filters {}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: InvalidFilters,
    },
    /// The system cannot watch the file's folder.
    #[error("watch the folder of {}", path.display())]
    Watch {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: notify::Error,
    },
    /// The filters could not be written to the store.
    #[error("write the peer filters to the store")]
    Write(#[from] PublishError),
}

impl FilterFile {
    /// Reads the file, if there is to be one, and prepares to follow it. Fails if it cannot be used.
    pub fn open(path: Option<PathBuf>, metrics: Metrics) -> Result<Self, FilterFileError> {
        let changed = Arc::new(Notify::new());
        // In this order nothing is missed: events from the watch on, and bytes that change after this differ later.
        let watcher = path.as_deref().map(|path| follow(path, changed.clone())).transpose()?;
        let mut seen = None;
        let mut filters = PeerFilters::default();
        if let Some(path) = &path {
            let bytes = read(path).map_err(|source| FilterFileError::Read { path: path.clone(), source })?;
            filters =
                parse(&bytes).map_err(|source| FilterFileError::Invalid { path: path.clone(), source })?;
            seen = Some(bytes);
        }
        let (problem, _) = watch::channel(None);
        let resources = None;
        Ok(Self { path, filters, seen, changed, problem, metrics, resources, _watcher: watcher })
    }

    /// With custom resources, which are followed while the file is, and whose filters count beside those of the file.
    #[must_use]
    pub fn beside(mut self, resources: Option<Resources>) -> Self {
        self.resources = resources;
        self
    }

    /// What is wrong with the file at present, for the status page.
    pub fn problem(&self) -> watch::Receiver<Option<Finding>> {
        self.problem.subscribe()
    }

    /// Brings what the file says into force. To be called before anybody is served, and at the start of each term as the
    /// leader: what changed meanwhile is a change. A leader without a file leaves in force what is.
    pub async fn publish(&mut self, target: impl Into<Target>) -> Result<(), FilterFileError> {
        let publisher = Publisher::new(target, [in_force::FILTERS]);
        match self.look() {
            Some(filters) => self.take(filters, &publisher).await,
            None => self.apply(&publisher).await,
        }
    }

    /// Follows the file until the future is dropped: after each event, and every ten seconds for file systems without
    /// events; and the custom resources. Fails if the store does.
    pub async fn run(&mut self, target: impl Into<Target>) -> Result<(), FilterFileError> {
        let publisher = Publisher::new(target, [in_force::FILTERS]);
        let Some(resources) = self.resources.clone() else {
            return self.follow(&publisher, None).await;
        };
        let objects = resources.filters();
        // Neither ends but by an error; what a dropped one has under way is made again.
        tokio::select! {
            ended = self.follow(&publisher, Some(objects)) => ended,
            never = resources.run() => match never {},
        }
    }

    async fn follow(
        &mut self,
        publisher: &Publisher,
        mut objects: Option<watch::Receiver<FromObjects>>,
    ) -> Result<(), FilterFileError> {
        if self.path.is_none() && objects.is_none() {
            return std::future::pending().await;
        }
        loop {
            let said = async {
                match &mut objects {
                    Some(objects) => objects.changed().await.is_ok(),
                    None => std::future::pending().await,
                }
            };
            // All arms are cancel-safe; a timeout is the slow poll, not a fault.
            let said = tokio::select! {
                said = said => said,
                noticed = timeout(POLL, self.changed.notified()) => {
                    if noticed.is_ok() {
                        // Whoever writes it in place may not be through yet.
                        sleep(SETTLE).await;
                    }
                    false
                }
            };
            if let Some(filters) = self.look() {
                self.take(filters, publisher).await?;
                self.metrics.applied();
            } else if said {
                self.apply(publisher).await?;
            }
        }
    }

    /// Reads the file; `None` if it is as it was the last time, or cannot be used, which is said.
    fn look(&mut self) -> Option<PeerFilters> {
        let path = self.path.clone()?;
        let bytes = read(&path);
        if bytes.as_ref().ok() == self.seen.as_ref() && (bytes.is_ok() || self.is_broken()) {
            return None;
        }
        let read = bytes.as_ref().map_err(|error| Chain(error).to_string());
        let parsed = read.and_then(|bytes| parse(bytes).map_err(|error| Chain(&error).to_string()));
        self.seen = bytes.ok();
        parsed.map_err(|problem| self.refuse(&path, &problem)).ok()
    }

    /// Brings what the file says now into force.
    async fn take(&mut self, filters: PeerFilters, publisher: &Publisher) -> Result<(), FilterFileError> {
        self.filters = filters;
        self.apply(publisher).await?;
        self.problem.send_replace(None);
        Ok(())
    }

    /// Brings what the file said last and what the objects say into force.
    async fn apply(&mut self, publisher: &Publisher) -> Result<(), FilterFileError> {
        let objects = self.resources.as_ref().map(|resources| resources.filters().borrow().clone());
        // While a file is given to one replica after another, one without it takes nothing away.
        let is_told = self.path.is_some() || !publisher.store().is_mirror();
        let wanted = wanted(&self.filters, is_told, objects.as_ref());
        let outcome = in_force::publish(publisher, &wanted).await?;
        if outcome.written + outcome.deleted > 0 {
            info!(revision = outcome.revision, peers = wanted.filters.peers.len(), "peer filters changed");
        }
        // They are in force all the same. Files that lack them belong to another store, whose readers list anew.
        if let Err(error) = publisher.durable(outcome.revision).await {
            warn!(error = %Chain(&error), "peer filters are in force, but not on disk");
        }
        if let (Some(resources), Some(objects)) = (&self.resources, objects) {
            resources.in_force(objects, self.filters.peers.keys().cloned().collect());
        }
        Ok(())
    }

    fn refuse(&self, path: &Path, problem: &str) {
        warn!(path = %path.display(), error = problem, "peer filters not usable, the last good ones stay in force");
        let finding = Finding::error(Reason::PeerFiltersInvalid, format_args!("file {}", path.display()))
            .found(problem)
            .expected("peers and default, as in docs/export-filters.md")
            .so("the filters that were read last stay in force");
        self.metrics.refused();
        self.problem.send_replace(Some(finding));
    }

    fn is_broken(&self) -> bool {
        self.problem.borrow().is_some()
    }
}

impl std::fmt::Debug for FilterFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FilterFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Watches the file's folder: a mounted ConfigMap changes by a link in it, and editors put a new file in place.
fn follow(path: &Path, changed: Arc<Notify>) -> Result<notify::RecommendedWatcher, FilterFileError> {
    let failed = |source| FilterFileError::Watch { path: path.to_owned(), source };
    // Any change, and any error of the watcher, is a reason to look. Opening and reading is not: we do it ourselves.
    let on_event = move |event: notify::Result<notify::Event>| {
        if !event.is_ok_and(|event| event.kind.is_access()) {
            changed.notify_one();
        }
    };
    let mut watcher = notify::recommended_watcher(on_event).map_err(failed)?;
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    watcher.watch(folder, RecursiveMode::NonRecursive).map_err(failed)?;
    Ok(watcher)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(io::Error::other(format!("it is larger than {MOST_BYTES} bytes")));
    }
    Ok(bytes)
}

fn parse(bytes: &[u8]) -> Result<PeerFilters, InvalidFilters> {
    // What is no UTF-8 is no YAML, and the parser says where.
    PeerFilters::parse(&String::from_utf8_lossy(bytes))
}

const MOST_BYTES: u64 = 1 << 20;
const POLL: Duration = Duration::from_secs(10);
const SETTLE: Duration = Duration::from_millis(50);
