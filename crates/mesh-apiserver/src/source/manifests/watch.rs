//! When to look at a folder: inotify, as names of files.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::folder::{Look, is_manifest};

/// Follows one folder. Two files that change at the same moment are told together.
pub struct FolderWatch {
    _watcher: RecommendedWatcher,
    names: mpsc::Receiver<String>,
    everything: Arc<AtomicBool>,
    path: PathBuf,
    inode: Option<(u64, u64)>,
}

impl FolderWatch {
    /// Fails if the folder is not there, or if the machine allows no more watches.
    pub fn new(path: &Path) -> notify::Result<Self> {
        let (sender, names) = mpsc::channel(QUEUE);
        let everything = Arc::new(AtomicBool::new(false));
        let overflow = everything.clone();
        let inode = inode(path);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let sent = match event {
                Ok(event) => tell(&event, &sender),
                Err(_) => false,
            };
            if !sent {
                overflow.store(true, Ordering::Release);
                // If the queue is full, what is in it wakes the reader.
                let _full = sender.try_send(String::new());
            }
        })?;
        watcher.watch(path, RecursiveMode::NonRecursive)?;
        Ok(Self { _watcher: watcher, names, everything, path: path.to_owned(), inode })
    }

    /// Waits until files have changed. Cancel-safe.
    pub async fn changed(&mut self) -> Look {
        let Some(first) = self.names.recv().await else { return std::future::pending().await };
        let mut names = BTreeSet::from([first]);
        while let Ok(name) = self.names.try_recv() {
            names.insert(name);
        }
        if self.everything.swap(false, Ordering::AcqRel) || names.iter().any(|name| !is_manifest(name)) {
            return Look::Everything;
        }
        Look::Files(names)
    }

    /// Whether the folder at the path is still the one that is watched.
    pub fn is_current(&self) -> bool {
        self.inode.is_some() && inode(&self.path) == self.inode
    }
}

impl std::fmt::Debug for FolderWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FolderWatch").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Sends the names of files that an event says are complete; false if something could not be told.
fn tell(event: &notify::Event, names: &mpsc::Sender<String>) -> bool {
    if event.need_rescan() {
        return false;
    }
    let complete = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Modify(ModifyKind::Name(_)) | EventKind::Remove(_) => true,
        // A new file is complete when it is closed; a link has nothing that could be closed.
        EventKind::Create(_) => event.paths.iter().any(|path| is_link(path)),
        // What is being written is complete when it is closed.
        _ => false,
    };
    if !complete {
        return true;
    }
    event.paths.iter().all(|path| match path.file_name().and_then(|name| name.to_str()) {
        // A mounted ConfigMap changes by a rename of `..data`, whatever its files are.
        Some(name) if is_manifest(name) || name.starts_with("..") => names.try_send(name.to_owned()).is_ok(),
        _ => true,
    })
}

fn is_link(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink() || metadata.nlink() > 1)
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Names that wait to be looked at; beyond them everything is.
const QUEUE: usize = 1024;
