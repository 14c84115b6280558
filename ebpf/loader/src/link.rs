//! Attaching the programs to the cgroup, and exchanging them under live traffic.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, CgroupSockAddr};
use thiserror::Error;
use tracing::{debug, info};

use crate::pin::{PinError, file_system, links_dir, unpin};
use crate::sys;

/// Magic number of a cgroup v2 file system, `CGROUP2_SUPER_MAGIC` in include/uapi/linux/magic.h.
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// An attached program, as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// The program's name, one of [`HOOKS`](crate::HOOKS).
    pub program: &'static str,
    /// The kernel's number for the link; it stays when the program is exchanged.
    pub link_id: u32,
    /// The kernel's number for the program.
    pub program_id: u32,
}

/// Why a program cannot be attached.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The directory is no cgroup of version 2.
    #[error(
        "cgroup {} is on a file system of type {found:#x}, expected cgroup v2 ({CGROUP2_MAGIC:#x}); \
         `mount -t cgroup2` shows where that is",
        path.display()
    )]
    NotCgroup {
        /// The directory as configured.
        path: PathBuf,
        /// Magic number of the file system it is on.
        found: u64,
    },
    /// The kernel refused to attach, exchange or report a program.
    #[error("{action} {program} on cgroup {}", cgroup.display())]
    Refused {
        /// What was tried: "attach", "exchange", "pin" …
        action: &'static str,
        /// The program's name.
        program: &'static str,
        /// The cgroup as configured.
        cgroup: PathBuf,
        /// What the kernel said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The pin directory.
    #[error(transparent)]
    Pin(#[from] PinError),
}

/// The cgroup that programs are attached to.
pub(crate) struct Cgroup {
    path: PathBuf,
    dir: File,
    /// The kernel's number for it: the inode number.
    id: u64,
}

impl Cgroup {
    /// Opens the cgroup. Fails unless it is a directory of a cgroup v2 file system.
    pub(crate) fn open(path: &Path) -> Result<Self, LinkError> {
        let dir = File::open(path).map_err(PinError::io("open", path))?;
        let found = file_system(path)?;
        if found != CGROUP2_MAGIC {
            return Err(LinkError::NotCgroup { path: path.to_owned(), found });
        }
        let id = dir.metadata().map_err(PinError::io("stat", path))?.ino();
        Ok(Self { path: path.to_owned(), dir, id })
    }

    /// Makes `program` the one that runs at its hook: exchanges it in the pinned link, or attaches and pins a new
    /// link if there is none, or if that one hangs on another cgroup or on one that is gone.
    pub(crate) fn attach(
        &self,
        pin_dir: &Path,
        name: &'static str,
        program: &mut CgroupSockAddr,
    ) -> Result<LinkState, LinkError> {
        let path = links_dir(pin_dir).join(name);
        let pinned = match sys::object_get(&path) {
            Ok(link) => Some(link),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(self.refused("open", name)(error)),
        };
        if let Some(link) = &pinned {
            let found = sys::link_info(link.as_fd()).map_err(self.refused("read link", name))?;
            if found.link_type == sys::LINK_TYPE_CGROUP && found.cgroup_id == self.id {
                let fd = program.fd().map_err(self.refused("use", name))?;
                sys::link_update(link.as_fd(), fd.as_fd()).map_err(self.refused("exchange", name))?;
                debug!(program = name, link = found.id, "program exchanged in pinned link");
                return self.state(name, link);
            }
            info!(
                program = name,
                link = found.id,
                found_cgroup = found.cgroup_id,
                expected_cgroup = self.id,
                "pinned link is on another cgroup or on one that is gone, attaching anew"
            );
        }
        // A name with a dot is refused on a bpffs.
        let fresh = links_dir(pin_dir).join(format!("{name}_new"));
        unpin(&fresh)?;
        let id = program.attach(&self.dir, CgroupAttachMode::Single).map_err(self.refused("attach", name))?;
        let link = program.take_link(id).map_err(self.refused("attach", name))?;
        let link: FdLink = link.try_into().map_err(self.refused("attach", name))?;
        link.pin(&fresh).map_err(self.refused("pin", name))?;
        fs::rename(&fresh, &path).map_err(PinError::io("rename", &fresh))?;
        if let Some(old) = pinned {
            sys::link_detach(old.as_fd()).map_err(self.refused("detach the old", name))?;
        }
        let link = sys::object_get(&path).map_err(self.refused("open", name))?;
        debug!(program = name, "program attached");
        self.state(name, &link)
    }

    fn state(&self, program: &'static str, link: &impl AsFd) -> Result<LinkState, LinkError> {
        let found = sys::link_info(link.as_fd()).map_err(self.refused("read link", program))?;
        Ok(LinkState { program, link_id: found.id, program_id: found.program_id })
    }

    fn refused<E>(&self, action: &'static str, program: &'static str) -> impl FnOnce(E) -> LinkError + use<E>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let cgroup = self.path.clone();
        move |source| LinkError::Refused { action, program, cgroup, source: source.into() }
    }
}
