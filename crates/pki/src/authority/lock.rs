//! One process at a time works on an authority.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// An exclusive lock on an authority's directory, released when dropped or when the process ends.
#[derive(Debug)]
pub(super) struct Lock {
    /// The lock lives as long as this descriptor.
    _file: File,
}

/// Why the lock was not got.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("{}: another process is enrolling since over {} s; try again when it has ended", path.display(), WAIT.as_secs())]
    Busy {
        /// The lock file.
        path: PathBuf,
    },
    /// The file cannot be made or locked.
    #[error("lock {}", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

impl Lock {
    /// Waits at most five seconds.
    pub(super) fn take(dir: &Path) -> Result<Self, LockError> {
        let path = dir.join("lock");
        let io = |source| LockError::Io { path: path.clone(), source };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(io)?;
        let mut waited = Duration::ZERO;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::Error(source)) => return Err(io(source)),
                Err(TryLockError::WouldBlock) if waited >= WAIT => return Err(LockError::Busy { path }),
                Err(TryLockError::WouldBlock) => {
                    thread::sleep(PAUSE);
                    waited += PAUSE;
                }
            }
        }
    }
}

const WAIT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);
