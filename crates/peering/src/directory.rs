//! A watched folder of client configurations: one file a cluster, its name the cluster's name.
//!
//! The folder is a mounted Secret as a rule, whose files are symbolic links that change all at once. A file that
//! becomes unusable leaves the connection that it once made as it is; a file that is gone ends it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
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
        let mut watcher = notify::recommended_watcher(move |_| waker.notify_one()).map_err(watch)?;
        watcher.watch(&self.path, RecursiveMode::NonRecursive).map_err(watch)?;
        let mut tasks = JoinSet::new();
        let mut followed = BTreeMap::new();
        loop {
            self.scan(&mut followed, &mut tasks);
            tokio::select! {
                // An event, or the slow poll for file systems without events: look again either way. Cancel-safe.
                _ = timeout(POLL, events.notified()) => {}
                Some(ended) = tasks.join_next() => match ended {
                    Err(error) if error.is_cancelled() => {}
                    ended => return Err(DirectoryError::Follower(ended.err())),
                },
            }
        }
    }

    fn scan(&self, followed: &mut BTreeMap<ClusterName, Followed>, tasks: &mut JoinSet<()>) {
        let (found, problems) = read(&self.path, &self.own);
        let gone: Vec<ClusterName> = followed
            .keys()
            .filter(|name| !found.contains_key(*name) && !problems.contains_key(name.as_str()))
            .cloned()
            .collect();
        let mut views = self.peers.borrow().followed.clone();
        for name in gone {
            if let Some(gone) = followed.remove(&name) {
                gone.task.abort();
            }
            views.remove(&name);
            self.ids.give_back(&name);
            info!(peer = %name, "peer configuration removed: the peer's records are taken out");
        }
        for (name, config) in found {
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
        }
        let known = self.peers.borrow().problems.clone();
        for (file, problem) in problems.iter().filter(|(file, problem)| known.get(*file) != Some(problem)) {
            warn!(file, error = problem, "peer configuration not usable");
        }
        self.peers.send_replace(Peers { followed: views, problems });
        self.changed.notify_one();
    }
}

type Found = BTreeMap<ClusterName, HubConfig>;
type Problems = BTreeMap<String, String>;

/// Reads every file of the folder. Names that start with `.` are the machinery of mounted Secrets.
fn read(path: &Path, own: &ClusterName) -> (Found, Problems) {
    let mut found = BTreeMap::new();
    let mut problems = BTreeMap::new();
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => {
            problems.insert(String::new(), format!("read {}: {error}", path.display()));
            return (found, problems);
        }
    };
    for entry in entries.flatten().take(MAX_FILES) {
        let file = entry.file_name().to_string_lossy().into_owned();
        let is_file = std::fs::metadata(entry.path()).is_ok_and(|meta| meta.is_file());
        if file.starts_with('.') || !is_file || file == own.as_str() {
            continue;
        }
        match HubConfig::load(&entry.path()) {
            Ok(None) => {}
            Ok(Some(config)) => match file.parse::<ClusterName>() {
                Ok(name) => {
                    found.insert(name, config);
                }
                Err(error) => {
                    problems.insert(file, format!("the file's name is the cluster's: {error}"));
                }
            },
            Err(error) => {
                problems.insert(file, crate::ledger::with_causes(&error));
            }
        }
    }
    (found, problems)
}

/// More than any mesh has clusters, with certificates beside them.
const MAX_FILES: usize = 4096;
const POLL: Duration = Duration::from_secs(10);
