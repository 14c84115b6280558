//! The directory where maps and links are pinned.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tracing::warn;

/// Magic number of a BPF file system, `BPF_FS_MAGIC` in include/uapi/linux/magic.h.
const BPFFS_MAGIC: u64 = 0xcafe_4a11;

/// A pin directory on a bpffs, locked for this process while the value lives.
#[derive(Debug)]
pub(crate) struct PinDir {
    path: PathBuf,
    lock: File,
}

/// Why a pin directory cannot be used.
#[derive(Debug, Error)]
pub enum PinError {
    /// The directory is not on a bpffs.
    #[error(
        "pin directory {} is on a file system of type {found:#x}, expected a bpffs ({BPFFS_MAGIC:#x}); \
         mount one with `mount -t bpf bpf /sys/fs/bpf` and name a directory below it",
        path.display()
    )]
    NotBpffs {
        /// The directory as configured.
        path: PathBuf,
        /// Magic number of the file system it is on.
        found: u64,
    },
    /// Another process holds the directory.
    #[error(
        "pin directory {} is in use by another process; one agent owns it, stop that one or name another directory",
        path.display()
    )]
    Locked {
        /// The directory as configured.
        path: PathBuf,
    },
    /// A file system call failed.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried: "create", "open", "lock" …
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl PinError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

impl PinDir {
    /// Makes the directory if it is absent (its parent must be on a bpffs) and locks it.
    pub(crate) fn create(path: &Path) -> Result<Self, PinError> {
        require_bpffs(path)?;
        for dir in [path.to_owned(), maps_dir(path), links_dir(path)] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&dir)
                .map_err(PinError::io("create", &dir))?;
        }
        Self::lock(path)
    }

    /// Locks an existing directory; nothing if there is none.
    pub(crate) fn existing(path: &Path) -> Result<Option<Self>, PinError> {
        if !path.try_exists().map_err(PinError::io("look for", path))? {
            return Ok(None);
        }
        require_bpffs(path)?;
        Self::lock(path).map(Some)
    }

    fn lock(path: &Path) -> Result<Self, PinError> {
        let dir = File::open(path).map_err(PinError::io("open", path))?;
        match dir.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), lock: dir }),
            Err(TryLockError::WouldBlock) => Err(PinError::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(PinError::io("lock", path)(source)),
        }
    }

    /// The directory as configured.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PinDir {
    /// Gives the lock up by name. Closing the file is not enough: a child that another thread of this process is
    /// just starting holds a copy of the descriptor until it executes its program, and the lock with it.
    fn drop(&mut self) {
        if let Err(error) = self.lock.unlock() {
            warn!(pin_dir = %self.path.display(), %error, "cannot unlock the pin directory");
        }
    }
}

/// Where the maps are pinned.
pub(crate) fn maps_dir(pin_dir: &Path) -> PathBuf {
    pin_dir.join("maps")
}

/// Where the links are pinned.
pub(crate) fn links_dir(pin_dir: &Path) -> PathBuf {
    pin_dir.join("links")
}

/// Removes a pin. Removing the absent succeeds; says whether there was one.
pub(crate) fn unpin(path: &Path) -> Result<bool, PinError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(PinError::io("remove", path)(error)),
    }
}

/// The kind of file system that a path, or its nearest ancestor that exists, is on.
pub(crate) fn file_system(path: &Path) -> Result<u64, PinError> {
    let mut at = path;
    loop {
        match rustix::fs::statfs(at) {
            Ok(found) => return Ok(found.f_type.cast_unsigned()),
            Err(rustix::io::Errno::NOENT) => match at.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => at = parent,
                _ => return Err(PinError::io("stat", path)(rustix::io::Errno::NOENT.into())),
            },
            Err(errno) => return Err(PinError::io("stat", at)(errno.into())),
        }
    }
}

fn require_bpffs(path: &Path) -> Result<(), PinError> {
    let found = file_system(path)?;
    if found == BPFFS_MAGIC { Ok(()) } else { Err(PinError::NotBpffs { path: path.to_owned(), found }) }
}
