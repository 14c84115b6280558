//! A watched folder of client configurations: one file a cluster, its name the cluster's name.
//!
//! The folder is a mounted Secret as a rule, whose files are symbolic links that change all at once. A file that
//! becomes unusable, or empty because somebody is just writing it, says what it said before, and so does a folder that
//! cannot be read. Only a file that is gone says no more.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mesh_runtime::Chain;
use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use topology::ClusterName;

use crate::config::HubConfig;

/// A folder that is watched.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    own: ClusterName,
    events: Arc<Notify>,
    said: Configured,
    /// When to look again, whether there was an event or not.
    look_again: Instant,
    /// Held for its life: dropping it ends the watch.
    _watcher: notify::RecommendedWatcher,
}

/// The peers that a folder, or something of its form, configures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configured {
    /// It has been read at least once. Before that, nobody knows who the peers are.
    pub known: bool,
    /// How each is reached, and on which terms; by cluster.
    pub configs: BTreeMap<ClusterName, HubConfig>,
    /// Files that cannot be used, by file name, and why.
    pub problems: BTreeMap<String, String>,
}

/// The system cannot watch a folder.
#[derive(Debug, thiserror::Error)]
#[error("watch peer configurations in {path}")]
pub struct WatchError {
    path: PathBuf,
    #[source]
    source: notify::Error,
}

impl Folder {
    /// Begins to watch a folder; the file of `own` is passed over.
    pub fn watch(path: PathBuf, own: ClusterName) -> Result<Self, WatchError> {
        let events = Arc::new(Notify::new());
        let waker = Arc::clone(&events);
        let fails = |source| WatchError { path: path.clone(), source };
        let wake = move |event: notify::Result<Event>| {
            if event.map_or(true, |event| changes_files(event.kind)) {
                waker.notify_one();
            }
        };
        let mut watcher = notify::recommended_watcher(wake).map_err(fails)?;
        watcher.watch(&path, RecursiveMode::NonRecursive).map_err(fails)?;
        let (said, look_again) = (Configured::default(), Instant::now());
        Ok(Self { path, own, events, said, look_again, _watcher: watcher })
    }

    /// What it says now. Reads every file.
    pub fn look(&mut self) -> &Configured {
        self.look_again = Instant::now() + POLL;
        match Found::read(&self.path, &self.own) {
            Ok(found) => {
                let before = std::mem::take(&mut self.said.configs);
                self.said = found.beside(before);
            }
            Err(error) => {
                let problem = format!("cannot be read, its peers are followed as before: {error}");
                self.said.problems = [(self.path.display().to_string(), problem)].into();
            }
        }
        &self.said
    }

    /// Waits for an event, or for the slow poll for file systems without events. Cancel-safe.
    pub async fn changed(&self) {
        // Look again either way.
        let _elapsed = timeout_at(self.look_again, self.events.notified()).await;
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

/// What a look into the folder, or something of its form, found.
#[derive(Debug, Default)]
pub struct Found {
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
        for (at, entry) in std::fs::read_dir(path)?.enumerate() {
            let entry = entry?;
            if at == MAX_FILES {
                let text = format!("it has more than {MAX_FILES} entries");
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
            }
            let file = entry.file_name().to_string_lossy().into_owned();
            if file.starts_with('.') || file == own.as_str() {
                continue;
            }
            match std::fs::metadata(entry.path()) {
                Ok(meta) if meta.is_file() => {
                    let loaded = HubConfig::load(&entry.path()).map_err(|error| Chain(&error).to_string());
                    found.add(file, loaded);
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    found.problems.insert(file, format!("read {}: {error}", entry.path().display()));
                }
            }
        }
        Ok(found)
    }

    /// Takes a file: its configuration, none if it is none, or why that cannot be used.
    pub fn add(&mut self, file: String, loaded: Result<Option<HubConfig>, String>) {
        match loaded {
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
            Err(problem) => {
                self.problems.insert(file, problem);
            }
        }
    }

    /// What is configured then, if `before` was: a file that cannot be used says what it said.
    pub fn beside(self, before: BTreeMap<ClusterName, HubConfig>) -> Configured {
        let Self { mut configs, mut problems, others } = self;
        for (name, config) in before {
            if configs.contains_key(&name) {
                continue;
            }
            if others.contains(name.as_str()) {
                let problem =
                    "has no endpoints any more, the peer is followed as before; to end that, remove the file";
                problems.insert(name.to_string(), problem.to_owned());
            }
            if problems.contains_key(name.as_str()) {
                configs.insert(name, config);
            }
        }
        Configured { known: true, configs, problems }
    }
}

/// More than any mesh has clusters, with certificates beside them.
const MAX_FILES: usize = 4096;
const POLL: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    const TEXT: &str =
        "endpoints: [https://127.0.0.1:1]\ntrusted-ca-file: /no/ca\ncert-file: /no/crt\nkey-file: /no/key\n";

    #[test]
    fn looking_at_the_folder_wakes_nobody() {
        let dir = TempDir::new().expect("a temporary folder");
        fs::write(dir.path().join("tokyo"), TEXT).expect("write a file");
        let (tell, told) = std::sync::mpsc::channel();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let event = event.expect("an event");
            // The test may end before the last event is told.
            let _ended = tell.send((changes_files(event.kind), event));
        })
        .expect("a watcher");
        watcher.watch(dir.path(), RecursiveMode::NonRecursive).expect("a watch");
        Found::read(dir.path(), &"paris".parse().expect("a name")).expect("a readable folder");
        fs::write(dir.path().join("end"), "").expect("write a file");
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            let (wakes, event) = told.recv_timeout(left).expect("the write makes an event");
            let by_us = event.paths.iter().all(|path| !path.ends_with("end"));
            assert!(!(by_us && wakes), "{event:?}");
            if wakes {
                break;
            }
        }
    }
}
