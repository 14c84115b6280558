//! Credentials that follow their files: a new leaf or root counts from the next handshake on, running connections stay.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mesh_runtime::Chain;
use notify::{RecursiveMode, Watcher};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::{Credentials, FileError, Files};

/// The current credentials. Cheap to clone; all clones see a reload.
#[derive(Clone, Debug)]
pub struct LiveCredentials {
    state: watch::Receiver<State>,
}

/// The task that follows the files. Run it with [`Reloader::run`].
pub struct Reloader {
    files: Files,
    state: watch::Sender<State>,
    changed: Arc<Notify>,
    /// The files' bytes when they were last looked at; a file that cannot be read counts as absent.
    seen: Vec<Option<Vec<u8>>>,
    /// What else must hold of files that are to count.
    rule: Rule,
    /// Held for its life: dropping it ends the watch.
    _watcher: notify::RecommendedWatcher,
}

/// Says what is wrong with credentials that could be used otherwise.
type Rule = Box<dyn Fn(&Credentials) -> Result<(), String> + Send + Sync>;

/// Why files cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The first read failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The system cannot watch the directory.
    #[error("watch {}", path.display())]
    Watch {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: notify::Error,
    },
    /// The reading task was stopped.
    #[error("read certificate files in the background")]
    Stopped(#[source] tokio::task::JoinError),
}

#[derive(Clone, Debug)]
struct State {
    current: Arc<Credentials>,
    problem: Option<String>,
}

impl LiveCredentials {
    /// Reads the files and prepares to follow them. Nothing is followed until the [`Reloader`] runs.
    ///
    /// Fails if the files cannot be used now; a later fault keeps what was read last.
    pub fn watch(files: Files) -> Result<(Self, Reloader), ReloadError> {
        let changed = Arc::new(Notify::new());
        let waker = Arc::clone(&changed);
        // Any change, and any error of the watcher, is a reason to look. Opening and reading is not: we do it ourselves.
        let on_event = move |event: notify::Result<notify::Event>| {
            if !event.is_ok_and(|event| event.kind.is_access()) {
                waker.notify_one();
            }
        };
        let mut watcher = notify::recommended_watcher(on_event)
            .map_err(|source| ReloadError::Watch { path: files.certificate.clone(), source })?;
        let mut dirs: Vec<PathBuf> =
            files.paths().filter_map(|path| Some(path.parent()?.to_owned())).collect();
        dirs.sort_unstable();
        dirs.dedup();
        for dir in dirs {
            let dir = if dir == Path::new("") { PathBuf::from(".") } else { dir };
            // A Secret volume swaps the link `..data` in this very directory.
            watcher
                .watch(&dir, RecursiveMode::NonRecursive)
                .map_err(|source| ReloadError::Watch { path: dir.clone(), source })?;
        }
        // In this order nothing is missed: events from the watch on, and bytes that change after this differ later.
        let seen = bytes(&files);
        let current = Arc::new(Credentials::from_files(&files)?);
        current.say_notes();
        let (state, receiver) = watch::channel(State { current, problem: None });
        let rule: Rule = Box::new(|_| Ok(()));
        Ok((Self { state: receiver }, Reloader { files, state, changed, seen, rule, _watcher: watcher }))
    }

    /// Credentials that never change.
    pub fn fixed(credentials: Credentials) -> Self {
        let (_, state) = watch::channel(State { current: Arc::new(credentials), problem: None });
        Self { state }
    }

    /// What counts now.
    pub fn current(&self) -> Arc<Credentials> {
        Arc::clone(&self.state.borrow().current)
    }

    /// Why the files on disk do not count, if they do not: what was read before stays in use.
    pub fn problem(&self) -> Option<String> {
        self.state.borrow().problem.clone()
    }

    /// Waits until the credentials or the problem change. Never returns once nobody follows the files. Cancel-safe.
    pub async fn changed(&mut self) {
        if self.state.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Reloader {
    /// Lets new files count only if `rule` says so of them; what it says instead is the problem that is shown. A
    /// process that refuses other clusters' certificates at its start refuses them later, too.
    #[must_use]
    pub fn only_if(self, rule: impl Fn(&Credentials) -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self { rule: Box::new(rule), ..self }
    }

    /// Follows the files until nobody uses the credentials any more. Reads them after each event, and every
    /// ten seconds for file systems without events.
    pub async fn run(mut self) -> Result<(), ReloadError> {
        while !self.state.is_closed() {
            // A timeout is the slow poll, not a fault.
            let event = timeout(POLL, self.changed.notified()).await;
            if event.is_ok() {
                // Files are replaced one after the other: let the others follow.
                sleep(SETTLE).await;
            }
            let files = self.files.clone();
            let found =
                tokio::task::spawn_blocking(move || bytes(&files)).await.map_err(ReloadError::Stopped)?;
            let faulty = self.state.borrow().problem.is_some();
            if found != self.seen || faulty {
                self.seen = found;
                self.reload().await?;
            }
        }
        Ok(())
    }

    async fn reload(&self) -> Result<(), ReloadError> {
        let files = self.files.clone();
        let read = tokio::task::spawn_blocking(move || Credentials::from_files(&files));
        let read = read.await.map_err(ReloadError::Stopped)?;
        let judged = read.map_err(|error| Chain(&error).to_string());
        match judged.and_then(|credentials| (self.rule)(&credentials).map(|()| credentials)) {
            Ok(credentials) => {
                info!(certificate = credentials.subject(), "certificates reloaded");
                credentials.say_notes();
                self.state.send_replace(State { current: Arc::new(credentials), problem: None });
            }
            Err(problem) => {
                let known = self.state.borrow().problem.as_ref() == Some(&problem);
                if !known {
                    warn!(error = %problem, "certificate files not usable, the last good ones stay in use");
                    self.state.send_modify(|state| state.problem = Some(problem));
                }
            }
        }
        Ok(())
    }
}

fn bytes(files: &Files) -> Vec<Option<Vec<u8>>> {
    files.paths().map(|path| super::read_bounded(&path).ok()).collect()
}

const POLL: Duration = Duration::from_secs(10);
const SETTLE: Duration = Duration::from_millis(100);
