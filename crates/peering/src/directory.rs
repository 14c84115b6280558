//! A watched folder of client configurations: one file a cluster, its name the cluster's name.
//!
//! The folder is a mounted Secret as a rule, whose files are symbolic links that change all at once. A file that
//! becomes unusable, or empty because somebody is just writing it, leaves the connection that it once made as it
//! is, and so does a folder that cannot be read. Only a file that is gone ends a connection.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mesh_runtime::Chain;
use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecursiveMode, Watcher};
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use topology::ClusterName;
use topology::cluster::MaxClusters;
use tracing::{info, warn};

use crate::config::HubConfig;
use crate::follow::{Relation, Subject, follow, unknown};
use crate::ids::Ids;
use crate::view::View;

/// The peers that a folder configures, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    /// The folder has been read at least once. Before that, nobody knows who the peers are.
    pub known: bool,
    /// Followed hubs, by cluster.
    pub followed: BTreeMap<ClusterName, watch::Receiver<View>>,
    /// Files that cannot be used, by file name, and why.
    pub problems: BTreeMap<String, String>,
}

/// Follows every peer that a folder configures. Run it with [`Directory::run`].
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    own: ClusterName,
    max: MaxClusters,
    ids: Ids,
    changed: Arc<Notify>,
    peers: watch::Sender<Peers>,
}

/// Why a folder is no longer followed.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The system cannot watch it.
    #[error("watch peer configurations in {path}")]
    Watch {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: notify::Error,
    },
    /// A task that followed a hub ended, which it never should.
    #[error("following a hub ended unexpectedly")]
    Follower(#[source] Option<tokio::task::JoinError>),
}

struct Followed {
    config: HubConfig,
    task: AbortHandle,
}

impl Directory {
    /// Prepares to follow the peers in `path`, other than `own`; `changed` is told after every change of any
    /// peer's view.
    pub fn new(
        path: PathBuf,
        own: ClusterName,
        max: MaxClusters,
        ids: Ids,
        changed: Arc<Notify>,
    ) -> (Self, watch::Receiver<Peers>) {
        let (peers, receiver) = watch::channel(Peers::default());
        (Self { path, own, max, ids, changed, peers }, receiver)
    }

    /// Follows the peers until the future is dropped, and with it every connection.
    pub async fn run(self) -> Result<(), DirectoryError> {
        let events = Arc::new(Notify::new());
        let waker = Arc::clone(&events);
        let watch = |source| DirectoryError::Watch { path: self.path.clone(), source };
        let wake = move |event: notify::Result<Event>| {
            if event.map_or(true, |event| changes_files(event.kind)) {
                waker.notify_one();
            }
        };
        let mut watcher = notify::recommended_watcher(wake).map_err(watch)?;
        watcher.watch(&self.path, RecursiveMode::NonRecursive).map_err(watch)?;
        let mut tasks = JoinSet::new();
        let mut followed = BTreeMap::new();
        loop {
            self.scan(&mut followed, &mut tasks);
            tokio::select! {
                // An event, or the slow poll for file systems without events: look again either way. Cancel-safe.
                _ = timeout(POLL, events.notified()) => {}
                Some(ended) = tasks.join_next() => match ended {
                    // Only now is it certain that the task takes no id any more.
                    Err(error) if error.is_cancelled() => self.ids.keep(|name| followed.contains_key(name)),
                    ended => return Err(DirectoryError::Follower(ended.err())),
                },
            }
        }
    }

    fn scan(&self, followed: &mut BTreeMap<ClusterName, Followed>, tasks: &mut JoinSet<()>) {
        let found = match Found::read(&self.path, &self.own) {
            Ok(found) => found,
            Err(error) => {
                let problem = format!("cannot be read, its peers are followed as before: {error}");
                let problems = [(self.path.display().to_string(), problem)].into();
                let followed = self.peers.borrow().followed.clone();
                return self.tell(followed, problems, false);
            }
        };
        let mut problems = found.problems;
        let mut views = self.peers.borrow().followed.clone();
        let mut changed = false;
        let missing = |name: &&ClusterName| !found.configs.contains_key(*name);
        for name in followed.keys().filter(missing).cloned().collect::<Vec<_>>() {
            if problems.contains_key(name.as_str()) {
                continue;
            }
            if found.others.contains(name.as_str()) {
                let problem =
                    "has no endpoints any more, the peer is followed as before; to end that, remove the file";
                problems.insert(name.to_string(), problem.to_owned());
                continue;
            }
            if let Some(gone) = followed.remove(&name) {
                gone.task.abort();
            }
            views.remove(&name);
            changed = true;
            info!(peer = %name, "peer configuration removed: the peer's records are taken out");
        }
        for (name, config) in found.configs {
            if followed.get(&name).is_some_and(|f| f.config == config) {
                continue;
            }
            // The view outlives a change of configuration, and so does what is known of the peer.
            let (view, receiver) = watch::channel(
                views.get(&name).map_or_else(|| unknown(&name), |receiver| receiver.borrow().clone()),
            );
            let subject = Subject {
                cluster: name.clone(),
                relation: Relation::Peer,
                max: self.max,
                ids: self.ids.clone(),
                changed: Arc::clone(&self.changed),
            };
            let endpoints = config.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            info!(peer = %name, endpoints, "following peer");
            let task = tasks.spawn(follow(subject, config.clone(), view));
            if let Some(before) = followed.insert(name.clone(), Followed { config, task }) {
                before.task.abort();
            }
            views.insert(name, receiver);
            changed = true;
        }
        let first = !self.peers.borrow().known;
        self.tell(views, problems, changed || first);
    }

    /// Publishes what is followed, if that or a problem is new. New problems are logged, once each.
    fn tell(
        &self,
        followed: BTreeMap<ClusterName, watch::Receiver<View>>,
        problems: BTreeMap<String, String>,
        changed: bool,
    ) {
        let before = self.peers.borrow().problems.clone();
        for (file, problem) in problems.iter().filter(|(file, problem)| before.get(*file) != Some(problem)) {
            warn!(file, error = problem, "peer configuration not usable");
        }
        if changed || before != problems {
            let known = changed || self.peers.borrow().known;
            self.peers.send_replace(Peers { known, followed, problems });
            self.changed.notify_one();
        }
    }
}

/// True for events that can mean other content. That a file was opened cannot, and looking at the folder makes
/// such events itself: waking at them would never end.
fn changes_files(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

/// What a look into the folder found.
#[derive(Debug, Default)]
struct Found {
    configs: BTreeMap<ClusterName, HubConfig>,
    /// Files that should be configurations and cannot be used, and why.
    problems: BTreeMap<String, String>,
    /// Files that are no configurations: certificates and keys, as a rule.
    others: BTreeSet<String>,
}

impl Found {
    /// Reads every file of the folder. Names that start with `.` are the machinery of mounted Secrets.
    ///
    /// Fails if the folder cannot be listed to its end: what was not seen then need not be gone.
    fn read(path: &Path, own: &ClusterName) -> io::Result<Self> {
        let mut found = Self::default();
        for entry in std::fs::read_dir(path)?.take(MAX_FILES) {
            let entry = entry?;
            let file = entry.file_name().to_string_lossy().into_owned();
            if file.starts_with('.') || file == own.as_str() {
                continue;
            }
            match std::fs::metadata(entry.path()) {
                Ok(meta) if meta.is_file() => found.add(file, &entry.path()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    found.problems.insert(file, format!("read {}: {error}", entry.path().display()));
                }
            }
        }
        Ok(found)
    }

    fn add(&mut self, file: String, path: &Path) {
        match HubConfig::load(path) {
            Ok(None) => {
                self.others.insert(file);
            }
            Ok(Some(config)) => match file.parse::<ClusterName>() {
                Ok(name) => {
                    self.configs.insert(name, config);
                }
                Err(error) => {
                    self.problems.insert(file, format!("the file's name is the cluster's: {error}"));
                }
            },
            Err(error) => {
                self.problems.insert(file, Chain(&error).to_string());
            }
        }
    }
}

/// More than any mesh has clusters, with certificates beside them.
const MAX_FILES: usize = 4096;
const POLL: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
