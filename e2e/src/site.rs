//! Where a lab keeps its things: directory, namespaces, cgroup, pinned BPF objects. All names carry the lab's id, so
//! that everything of one lab can be found, and removed, from the id alone.

use std::fmt;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};

/// Where `ip netns` keeps the handles of named namespaces.
pub const NETNS_DIR: &str = "/run/netns";
/// Where the BPF file system is mounted.
pub const BPFFS: &str = "/sys/fs/bpf";
const PREFIX: &str = "isthmus-lab-";
const ID_LENGTH: usize = 6;

/// Identifies one lab: six characters of `0-9a-z`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LabId(String);

/// Holds the places of one lab. Making this value creates nothing.
#[derive(Clone, Debug)]
pub struct Site {
    id: LabId,
    dir: PathBuf,
    cgroup: PathBuf,
    pins: PathBuf,
}

impl LabId {
    /// Draws a new id.
    pub fn random() -> Self {
        const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        let mut number = RandomState::new().hash_one(std::process::id());
        let mut id = String::with_capacity(ID_LENGTH);
        for _ in 0..ID_LENGTH {
            id.push(char::from(ALPHABET[(number % 36) as usize]));
            number /= 36;
        }
        Self(id)
    }
}

impl fmt::Display for LabId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LabId {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        ensure!(
            text.len() == ID_LENGTH && text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase()),
            "lab id {text:?}: expected {ID_LENGTH} characters of 0-9a-z"
        );
        Ok(Self(text.to_owned()))
    }
}

impl Site {
    /// Names the places of the lab with this id. Fails if this machine has no cgroup v2 tree mounted.
    pub fn of(id: LabId) -> Result<Self> {
        let name = format!("{PREFIX}{id}");
        Ok(Self {
            dir: std::env::temp_dir().join(&name),
            cgroup: cgroup_root()?.join(&name),
            pins: Path::new(BPFFS).join(&name),
            id,
        })
    }

    /// The lab's id.
    pub fn id(&self) -> &LabId {
        &self.id
    }

    /// The lab's directory: manifests, keys, stores, logs.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory of one cluster.
    pub fn cluster_dir(&self, cluster: &str) -> PathBuf {
        self.dir.join(cluster)
    }

    /// The cgroup that holds every process of the lab.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// The cgroup of the daemons and of the lab's own short commands. No BPF program is ever attached to it.
    pub fn daemons_cgroup(&self) -> PathBuf {
        self.cgroup.join("daemons")
    }

    /// The cgroup of the pods of one node: what that node's agent is told to attach to.
    pub fn pods_cgroup(&self, cluster: &str, node: &str) -> PathBuf {
        self.cgroup.join(format!("{cluster}-{node}")).join("pods")
    }

    /// The directory below which all agents of the lab pin.
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// The pin directory of one node's agent.
    pub fn pin_dir(&self, cluster: &str, node: &str) -> PathBuf {
        self.pins.join(format!("{cluster}-{node}"))
    }

    /// The name of the router's namespace.
    pub fn wan(&self) -> String {
        format!("{}wan", self.netns_prefix())
    }

    /// The name of a node's namespace.
    pub fn node_netns(&self, cluster: &str, node: &str) -> String {
        format!("{}{cluster}-{node}", self.netns_prefix())
    }

    /// The name of a pod's namespace.
    pub fn pod_netns(&self, cluster: &str, node: &str, pod: &str) -> String {
        format!("{}{cluster}-{node}-{pod}", self.netns_prefix())
    }

    /// How the names of all the lab's namespaces begin.
    pub fn netns_prefix(&self) -> String {
        format!("im{}-", self.id)
    }
}

/// The path of a named namespace, for `nsenter --net=`.
pub fn netns_path(name: &str) -> PathBuf {
    Path::new(NETNS_DIR).join(name)
}

/// The id in the name of a lab's directory, cgroup or pin directory.
pub fn id_in_name(name: &str) -> Option<LabId> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

/// The id in the name of a lab's namespace.
pub fn id_in_netns(name: &str) -> Option<LabId> {
    name.strip_prefix("im")?.split_once('-')?.0.parse().ok()
}

/// Finds where cgroup v2 is mounted: `/sys/fs/cgroup` on most machines, `/sys/fs/cgroup/unified` on hybrid ones.
pub fn cgroup_root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    let mut fields = mounts.lines().map(|line| line.split(' '));
    let found = fields.find_map(|mut line| {
        let path = line.nth(1)?;
        (line.next()? == "cgroup2").then(|| PathBuf::from(path))
    });
    found.context("cgroup v2 is not mounted; mend with: mount -t cgroup2 none /sys/fs/cgroup/unified")
}

/// Mounts the BPF file system where it is not mounted yet.
pub fn ensure_bpffs() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    if mounts.lines().any(|line| line.split(' ').nth(1) == Some(BPFFS)) {
        return Ok(());
    }
    let status = Command::new("mount").args(["-t", "bpf", "bpf", BPFFS]).status().context("run mount")?;
    if !status.success() {
        bail!("mount -t bpf bpf {BPFFS}: {status}; the lab needs root and a kernel with BPF");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_back_to_the_id() {
        let id = LabId::random();
        let site = Site::of(id.clone()).expect("cgroup v2");
        assert_eq!(id_in_netns(&site.wan()), Some(id.clone()));
        assert_eq!(id_in_netns(&site.pod_netns("paris", "n1", "echo-1")), Some(id.clone()));
        for path in [site.dir(), site.cgroup(), site.pins()] {
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
            assert_eq!(id_in_name(name), Some(id.clone()), "{name}");
        }
    }

    #[test]
    fn names_of_others_are_not_ours() {
        for name in ["isthmus-lab-", "isthmus-lab-ABCDEF", "isthmus-lab-abcdefg", "cni-1234", "../abcdef"] {
            assert_eq!(id_in_name(name), None, "{name}");
            assert_eq!(id_in_netns(name), None, "{name}");
        }
        assert_eq!(id_in_netns("image-builder"), None);
    }
}
