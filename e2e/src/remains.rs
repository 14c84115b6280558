//! What a lab leaves on the machine, and its removal. Everything is found by the lab's id, so it does not matter who
//! removes: the test at its end, its guardian, or a later lab that finds leftovers.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::network;
use crate::site::{self, BPFFS, LabId, NETNS_DIR, Site};

/// How long the processes of a killed cgroup may take to disappear: one that waits for a busy disk (a hub in `fsync`)
/// ends only then.
const KILL_DEADLINE: Duration = Duration::from_secs(60);
/// How many directories of ended labs (their logs) stay for reading.
const ENDED_KEPT: usize = 20;
const OWNER: &str = "owner";
const KEPT: &str = "kept";

/// What to do with the lab's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directory {
    /// Remove it.
    Remove,
    /// Leave it for reading (the lab failed).
    Leave,
}

/// Holds what exists of one lab besides its directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remains {
    /// Names of namespaces.
    pub namespaces: Vec<String>,
    /// The lab's cgroup.
    pub cgroup: Option<PathBuf>,
    /// The lab's pin directory.
    pub pins: Option<PathBuf>,
}

impl Remains {
    /// Looks at what exists of a lab.
    pub fn of(site: &Site) -> Result<Self> {
        let prefix = site.netns_prefix();
        let mut namespaces: Vec<String> =
            names_in(Path::new(NETNS_DIR))?.into_iter().filter(|name| name.starts_with(&prefix)).collect();
        namespaces.sort();
        let existing = |path: &Path| path.exists().then(|| path.to_owned());
        Ok(Self { namespaces, cgroup: existing(site.cgroup()), pins: existing(site.pins()) })
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Remains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "namespaces {:?}, cgroup {:?}, pins {:?}", self.namespaces, self.cgroup, self.pins)
    }
}

/// Takes possession of a lab's directory: creates it and writes who owns it. Nothing of a lab exists before.
pub fn claim(site: &Site) -> Result<()> {
    fs::create_dir(site.dir()).with_context(|| format!("create {}", site.dir().display()))?;
    let pid = std::process::id();
    let started = start_time(pid).context("own start time")?;
    fs::write(site.dir().join(OWNER), format!("{pid} {started}\n")).context("write the owner")
}

/// Marks a lab as meant to stay after its owner's end.
pub fn mark_kept(site: &Site) -> Result<()> {
    fs::write(site.dir().join(KEPT), "").context("mark the lab as kept")
}

/// Removes everything of a lab: kills its processes, then removes namespaces, cgroups, pins. Goes on after a failure,
/// and fails with all of them. Removing what is gone succeeds.
pub fn remove(site: &Site, directory: Directory) -> Result<()> {
    let mut failures = Vec::new();
    let mut attempt = |what: &str, result: Result<()>| {
        if let Err(error) = result {
            failures.push(format!("{what}: {error:#}"));
        }
    };
    attempt("kill processes", kill_all(site.cgroup()));
    attempt(
        "remove namespaces",
        Remains::of(site).and_then(|remains| network::remove_netns(&remains.namespaces)),
    );
    attempt("remove cgroups", absent_ok(remove_cgroups(site.cgroup())));
    attempt("remove pins", absent_ok(remove_tree(site.pins())));
    attempt("unmark", absent_ok(fs::remove_file(site.dir().join(OWNER))));
    attempt("unmark", absent_ok(fs::remove_file(site.dir().join(KEPT))));
    if directory == Directory::Remove {
        attempt("remove directory", absent_ok(fs::remove_dir_all(site.dir())));
    }
    if !failures.is_empty() {
        bail!("lab {}: {}", site.id(), failures.join("; "));
    }
    Ok(())
}

/// Finds labs of which something exists, although their owner is gone and they were not meant to stay.
pub fn leftovers() -> Result<Vec<LabId>> {
    let mut left = Vec::new();
    for id in all()? {
        let site = Site::of(id.clone())?;
        if !site.dir().join(KEPT).exists() && !has_owner(&site) && !Remains::of(&site)?.is_empty() {
            left.push(id);
        }
    }
    Ok(left)
}

/// Finds every lab of which something exists: a directory, a namespace, a cgroup, a pin.
pub fn all() -> Result<BTreeSet<LabId>> {
    let mut ids = BTreeSet::new();
    for parent in [std::env::temp_dir(), site::cgroup_root()?, PathBuf::from(BPFFS)] {
        ids.extend(names_in(&parent)?.iter().filter_map(|name| site::id_in_name(name)));
    }
    ids.extend(names_in(Path::new(NETNS_DIR))?.iter().filter_map(|name| site::id_in_netns(name)));
    Ok(ids)
}

/// Removes leftovers and the oldest directories of ended labs. Held under a machine-wide lock, so that a lab which is
/// just being made is never seen half made.
pub fn sweep() -> Result<Vec<LabId>> {
    let _lock = lock()?;
    let left = leftovers()?;
    for id in &left {
        remove(&Site::of(id.clone())?, Directory::Leave)?;
    }
    forget_old_directories()?;
    Ok(left)
}

/// Takes the machine-wide lock of labs. Released when the file is dropped.
pub fn lock() -> Result<File> {
    let path = std::env::temp_dir().join(".isthmus-lab.lock");
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    file.lock().context("lock")?;
    Ok(file)
}

/// Whether the process that made the lab still runs. Process ids are used again, so its start time counts too.
pub fn has_owner(site: &Site) -> bool {
    let Ok(text) = fs::read_to_string(site.dir().join(OWNER)) else { return false };
    let mut fields = text.split_whitespace();
    let (Some(Ok(pid)), Some(started)) = (fields.next().map(str::parse), fields.next()) else { return false };
    start_time(pid).is_some_and(|now| now == started)
}

/// Kills every process in the cgroup and below, and waits until none is left.
fn kill_all(cgroup: &Path) -> Result<()> {
    if !cgroup.exists() {
        return Ok(());
    }
    let begun = Instant::now();
    loop {
        // Each time, because a process that was just being started may have entered after the last kill.
        absent_ok(fs::write(cgroup.join("cgroup.kill"), "1")).context("write cgroup.kill")?;
        let events = match fs::read_to_string(cgroup.join("cgroup.events")) {
            Ok(events) => events,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).context("read cgroup.events"),
        };
        if events.lines().any(|line| line == "populated 0") {
            return Ok(());
        }
        if begun.elapsed() > KILL_DEADLINE {
            let left = processes_in(cgroup);
            bail!("{} still holds processes {KILL_DEADLINE:?} after the kill: {left:?}", cgroup.display());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The ids of the processes in the cgroup and below, for a message.
fn processes_in(cgroup: &Path) -> Vec<String> {
    let own = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let mut found: Vec<String> = own.lines().map(str::to_owned).collect();
    for name in names_in(cgroup).unwrap_or_default() {
        if cgroup.join(&name).is_dir() {
            found.extend(processes_in(&cgroup.join(name)));
        }
    }
    found
}

/// Removes a cgroup and those below it (files in it are the kernel's and go with it).
fn remove_cgroups(cgroup: &Path) -> io::Result<()> {
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            absent_io_ok(remove_cgroups(&entry.path()))?;
        }
    }
    fs::remove_dir(cgroup)
}

/// Unlinks pinned objects and their directories; unlike `remove_dir_all` it never follows into another file system's
/// special entries, it only unlinks names.
fn remove_tree(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let removed = if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())
        } else {
            fs::remove_file(entry.path())
        };
        absent_io_ok(removed)?;
    }
    fs::remove_dir(dir)
}

fn forget_old_directories() -> Result<()> {
    let mut ended = Vec::new();
    for name in names_in(&std::env::temp_dir())? {
        let Some(id) = site::id_in_name(&name) else { continue };
        let site = Site::of(id)?;
        if site.dir().join(KEPT).exists() || has_owner(&site) {
            continue;
        }
        let Ok(changed) = fs::metadata(site.dir()).and_then(|data| data.modified()) else { continue };
        ended.push((changed, site));
    }
    ended.sort_by_key(|(changed, _)| std::cmp::Reverse(*changed));
    for (_, site) in ended.iter().skip(ENDED_KEPT) {
        absent_ok(fs::remove_dir_all(site.dir()))?;
    }
    Ok(())
}

fn names_in(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("read {}", dir.display())),
    };
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}

/// When a process was started, in clock ticks since boot: field 22 of `/proc/<pid>/stat`, counted after the name, which
/// may itself hold blanks and brackets.
fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace();
    // A process that has ended and was not waited for owns nothing any more.
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18).map(str::to_owned)
}

fn absent_ok(result: io::Result<()>) -> Result<()> {
    Ok(absent_io_ok(result)?)
}

fn absent_io_ok(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
