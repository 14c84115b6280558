//! A folder of ordinary Kubernetes YAML, watched.
//!
//! ```text
//!   inotify ──> names of files ──┐
//!                                ├─> Folder::read ─> documents ─> objects ─> changes
//!   timer ────> all files ───────┘
//! ```
//!
//! Files end in `.yaml`, `.yml` or `.json`, hold one or several documents, and are best replaced by a rename. The
//! layout of a mounted ConfigMap (links through `..data`) works. Subfolders and names that start with a dot are
//! not looked at.
//!
//! * [`document`]: a text to documents, a document to objects.
//! * [`folder`]: the files and what each defines; which change an object in sum.
//! * [`watch`]: when to look.

pub mod document;
pub mod folder;
pub mod watch;

use std::path::PathBuf;

use tokio::time::{Duration, Instant};
use tracing::warn;

use self::folder::{Folder, Look};
use self::watch::FolderWatch;
use super::{SourceEvent, SourceStatus, SourceUpdate};

/// A folder of manifests as a source of objects.
#[derive(Debug)]
pub struct ManifestSource {
    folder: Folder,
    watch: Option<FolderWatch>,
    next_full: Instant,
    recheck: Option<Instant>,
    first: bool,
    last_change: Option<jiff::Timestamp>,
}

/// The folder cannot be used at all.
#[derive(Debug, thiserror::Error)]
#[error("read the folder of manifests {}", path.display())]
pub struct OpenError {
    path: PathBuf,
    source: std::io::Error,
}

impl ManifestSource {
    /// Fails if the folder is not there or cannot be listed.
    pub async fn open(path: PathBuf) -> Result<Self, OpenError> {
        if let Err(source) = tokio::fs::read_dir(&path).await {
            return Err(OpenError { path, source });
        }
        Ok(Self {
            folder: Folder::new(path),
            watch: None,
            next_full: Instant::now(),
            recheck: None,
            first: true,
            last_change: None,
        })
    }

    /// Waits for the next update: the first call reads everything at once. Not cancel-safe; to be called by the one
    /// task that owns the source, and dropped with it.
    pub async fn next(&mut self) -> SourceUpdate {
        loop {
            let look = self.when_to_look().await;
            let full = matches!(look, Look::Everything | Look::Settled);
            // Reading is a few system calls a file. A folder on a hanging network disk holds up this whole task, the
            // heartbeat with it, so readers learn that nobody feeds the store; connections are served all the same.
            let read = tokio::task::block_in_place(|| self.folder.read(&look));
            if full {
                self.next_full = Instant::now() + FULL_INTERVAL;
            }
            if full || read.unsettled {
                // A look at some files says nothing about others that were unsettled.
                self.recheck = read.unsettled.then(|| Instant::now() + RECHECK);
            }
            if !read.changes.is_empty() {
                self.last_change = Some(jiff::Timestamp::now());
            }
            let objects = if std::mem::take(&mut self.first) {
                SourceEvent::Reset(self.folder.objects().cloned().collect())
            } else if read.changes.is_empty() && !read.findings_changed {
                continue;
            } else {
                SourceEvent::Changes(read.changes)
            };
            let status = SourceStatus {
                source: format!("manifests:{}", self.folder.path().display()),
                files: Some(self.folder.files()),
                last_change: self.last_change,
                ..SourceStatus::default()
            };
            let findings = self.folder.findings();
            let (missing, numbering) = Default::default();
            return SourceUpdate { objects, missing, numbering, findings, status };
        }
    }

    async fn when_to_look(&mut self) -> Look {
        if self.first {
            // Watched before it is read, so that nothing is missed in between.
            self.rewatch();
            return Look::Everything;
        }
        let recheck = self.recheck.unwrap_or(self.next_full);
        let Some(watch) = &mut self.watch else {
            tokio::time::sleep_until(recheck.min(self.next_full)).await;
            self.rewatch();
            return Look::Everything;
        };
        // Both arms are cancel-safe.
        tokio::select! {
            look = watch.changed() => look,
            () = tokio::time::sleep_until(recheck.min(self.next_full)) => {
                if !watch.is_current() {
                    self.rewatch();
                }
                Look::Settled
            }
        }
    }

    fn rewatch(&mut self) {
        self.watch = match FolderWatch::new(self.folder.path()) {
            Ok(watch) => Some(watch),
            Err(error) => {
                warn!(%error, folder = %self.folder.path().display(), "folder cannot be watched, it is read every {FULL_INTERVAL:?}");
                None
            }
        };
    }
}

/// How often everything is read again: a safety net for what inotify does not report.
const FULL_INTERVAL: Duration = Duration::from_secs(10);
/// When a file that was seen in the middle of a change is read again.
const RECHECK: Duration = Duration::from_millis(200);
