//! Taking everything away again.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tracing::info;

use crate::data_plane::Capacities;
use crate::hooks::HOOKS;
use crate::map_spec::specs;
use crate::pin::{PinDir, PinError, links_dir, maps_dir, unpin};
use crate::sys;

/// Why the data plane could not be taken away as a whole.
#[derive(Debug, Error)]
pub enum CleanupError {
    /// The pin directory, or a pin in it.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// The kernel did not detach a program.
    #[error("detach {}", path.display())]
    Detach {
        /// Where the link is pinned.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Detaches our programs and removes our pins and directories from `pin_dir`, and nothing else.
///
/// Succeeds if there is nothing. Fails if an agent still holds the directory. Files that are not ours stay, and
/// with them the directory that they are in.
pub fn cleanup(pin_dir: &Path) -> Result<(), CleanupError> {
    let Some(_lock) = PinDir::existing(pin_dir)? else { return Ok(()) };
    let mut removed = 0_usize;
    for name in HOOKS {
        for path in [links_dir(pin_dir).join(name), links_dir(pin_dir).join(format!("{name}_new"))] {
            match sys::object_get(&path) {
                Ok(link) => {
                    sys::link_detach(link.as_fd())
                        .map_err(|source| CleanupError::Detach { path: path.clone(), source })?;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(CleanupError::Detach { path, source }),
            }
            removed += usize::from(unpin(&path)?);
        }
    }
    let names = specs(&Capacities::default()).map(|spec| spec.name);
    for name in names.into_iter().chain([ebpf_types::maps::LAYOUT]) {
        removed += usize::from(unpin(&maps_dir(pin_dir).join(name))?);
    }
    for dir in [links_dir(pin_dir), maps_dir(pin_dir), pin_dir.to_owned()] {
        match fs::remove_dir(&dir) {
            Ok(()) => {}
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {}
            Err(error) => return Err(PinError::io("remove", &dir)(error).into()),
        }
    }
    info!(pin_dir = %pin_dir.display(), pins = removed, "data plane removed");
    Ok(())
}
