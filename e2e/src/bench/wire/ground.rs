//! Where a run keeps its things: a directory in memory, one on disk, certificates, and the paths of the programs.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use pki::client::Connector;
use pki::{Credentials, Expected, LiveCredentials};

use super::connection::Target;
use crate::authority::{Authority, Enrolment, Role};
use crate::programs::Programs;

/// The cluster whose hub is measured.
pub(super) const CLUSTER: &str = "bench";

/// Holds what all servers of a run share. Its directories go when it is dropped; those of a run that was killed go
/// when the next begins.
#[derive(Debug)]
pub(super) struct Ground {
    /// In memory (tmpfs).
    pub(super) memory: PathBuf,
    /// On disk.
    pub(super) disk: PathBuf,
    /// Certificates of the server.
    pub(super) server_tls: PathBuf,
    /// The hub's binary.
    pub(super) hub_program: PathBuf,
    /// How an administrator connects; the address is a server's to fill in.
    pub(super) target: Target,
}

impl Ground {
    /// Makes directories and certificates.
    pub(super) fn prepare() -> Result<Self> {
        let programs = Programs::locate()?;
        programs.ensure_daemons(&["mesh-apiserver", "meshctl"])?;
        let [memory, disk] = [Path::new(MEMORY), &std::env::temp_dir()].map(|parent| {
            remove_abandoned(parent)?;
            let dir = parent.join(format!("{PREFIX}{}", std::process::id()));
            fs::create_dir(&dir).with_context(|| format!("create {}", dir.display()))?;
            Ok::<_, anyhow::Error>(dir)
        });
        let (memory, disk) = (memory?, disk?);
        let authority = Authority::init(&programs.daemon("meshctl")?, &disk.join("authority"))?;
        let cluster_dir = disk.join("cluster");
        let mut enrolment = Enrolment::of_lab_cluster(CLUSTER, 1);
        enrolment.hub_addresses = vec![Ipv4Addr::LOCALHOST.to_string()];
        authority.enroll(&enrolment, &cluster_dir)?;
        let (server_tls, admin_tls) = (disk.join("hub-tls"), disk.join("admin-tls"));
        authority.leaf(&cluster_dir, Role::Hub, "n1", &server_tls)?;
        authority.leaf(&cluster_dir, Role::Admin, "n1", &admin_tls)?;
        let credentials = LiveCredentials::fixed(Credentials::load(&admin_tls)?);
        let target = Target {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            connector: Arc::new(Connector::new(credentials, Expected::OwnHub)),
            name: Arc::from(Ipv4Addr::LOCALHOST.to_string()),
        };
        let hub_program = programs.daemon("mesh-apiserver")?;
        Ok(Self { memory, disk, server_tls, hub_program, target })
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for dir in [&self.memory, &self.disk] {
            if let Err(error) = fs::remove_dir_all(dir) {
                eprintln!("remove {}: {error}", dir.display());
            }
        }
    }
}

/// Removes directories of runs whose process is gone.
fn remove_abandoned(parent: &Path) -> Result<()> {
    let entries = fs::read_dir(parent).with_context(|| format!("list {}", parent.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("list {}", parent.display()))?.path();
        let pid = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(PREFIX));
        let Some(pid) = pid.and_then(|pid| pid.parse::<u32>().ok()) else { continue };
        if !Path::new(&format!("/proc/{pid}")).exists() {
            fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}

const MEMORY: &str = "/dev/shm";
const PREFIX: &str = "isthmus-bench-wire-";
