//! Files that are replaced whole, survive a crash, and have their mode from the first moment.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Its owner only (0600): keys and the ledger.
    Owner,
    /// Everyone (0644, less what the umask takes): certificates.
    Everyone,
}

/// Writes `bytes` beside `path`, flushes them to disk and renames: a reader sees the old file or the new one.
pub fn write(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    let dir = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let name = path.file_name().ok_or_else(|| io::Error::other("no file name"))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.new", std::process::id()));
    let temporary = dir.join(temporary);
    let mode = match access {
        Access::Owner => 0o600,
        Access::Everyone => 0o644,
    };
    let outcome = (|| {
        // What a crashed run of the same process id left behind may have another mode: never reuse it.
        remove_if_present(&temporary)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(dir)?.sync_all()
    })();
    if outcome.is_err() {
        // The first error is the one to report; a leftover is removed by the next write.
        drop(fs::remove_file(&temporary));
    }
    outcome
}

/// Makes a directory, and its parents, that only its owner can enter (0700). An existing one keeps its mode.
pub fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn remove_if_present(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn replaces_whole_and_keeps_private() {
        let dir = tempfile::tempdir().expect("a directory");
        let inner = dir.path().join("a/b");
        private_dir(&inner).expect("made");
        let mode = |path: &Path| fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
        assert_eq!(mode(&inner), 0o700);
        let path = inner.join("key");
        // Even over a file that was readable by all.
        fs::write(&path, "old").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("mode set");
        write(&path, b"new", Access::Owner).expect("replaced");
        assert_eq!(fs::read(&path).expect("read"), b"new");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read_dir(&inner).expect("listed").count(), 1);
    }
}
