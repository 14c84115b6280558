//! A node for tests: a cgroup, a pin directory, a data plane; and backends that say who they are.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use ebpf_loader::types::{Backend, FrontendKey, Protocol, ServiceEntry};
use ebpf_loader::{Capacities, Config, DataPlane, Maps, OpenError, cleanup};

/// Small maps, so that a test costs little memory and can fill one.
pub(crate) const CAPACITIES: Capacities =
    Capacities { services: 64, slots: 256, backends: 64, reverse: 1024, ipcache: 64 };

const BPFFS: &str = "/sys/fs/bpf";
const PREFIX: &str = "isthmus-test-";

/// Holds one data plane and what it needs, all of it removed on drop.
pub(crate) struct Node {
    pub(crate) config: Config,
    plane: Option<DataPlane>,
    next_backend: u32,
    next_slot: u32,
}

impl Node {
    /// A node whose data plane is open. `test` tells the tests of one process apart.
    pub(crate) fn open(test: &str) -> Self {
        let mut node = Self::closed(test);
        node.plane = Some(node.try_open().unwrap_or_else(|error| panic!("open: {}", chain(&error))));
        node
    }

    /// A node with a cgroup and a name for the pin directory, nothing in the kernel yet.
    pub(crate) fn closed(test: &str) -> Self {
        remove_leftovers();
        let name = format!("{PREFIX}{}-{test}", std::process::id());
        let cgroup = cgroup_root().join(&name);
        fs::create_dir(&cgroup).unwrap_or_else(|error| panic!("create {}: {error}", cgroup.display()));
        let config = Config { pin_dir: Path::new(BPFFS).join(name), cgroup, capacities: CAPACITIES };
        Self { config, plane: None, next_backend: 1, next_slot: 0 }
    }

    /// Opens a data plane as configured, as a starting agent would.
    pub(crate) fn try_open(&self) -> Result<DataPlane, OpenError> {
        DataPlane::open(&self.config)
    }

    pub(crate) fn plane(&mut self) -> &mut DataPlane {
        self.plane.as_mut().expect("this test opened the data plane")
    }

    pub(crate) fn maps(&mut self) -> &mut Maps {
        self.plane().maps()
    }

    /// Drops the data plane, as a process that ends does.
    pub(crate) fn stop(&mut self) {
        self.plane = None;
    }

    /// Opens it again.
    pub(crate) fn start(&mut self) {
        self.plane = None;
        self.plane = Some(self.try_open().unwrap_or_else(|error| panic!("open again: {}", chain(&error))));
    }

    /// Adds a backend and returns its id.
    pub(crate) fn backend(&mut self, at: SocketAddr, protocol: Protocol) -> u32 {
        let id = self.next_backend;
        self.next_backend += 1;
        self.maps().backends.insert(&id, &Backend::new(at, protocol, 1)).expect("insert backend");
        id
    }

    /// Makes (or changes) a frontend with these backend ids.
    pub(crate) fn frontend(&mut self, at: &str, protocol: Protocol, backends: &[u32]) -> SocketAddr {
        let at: SocketAddr = at.parse().expect("frontend address");
        let entry = ServiceEntry {
            slots_offset: self.next_slot,
            slots_count: u32::try_from(backends.len()).expect("few backends"),
            service_id: 1,
            flags: 0,
        };
        self.next_slot += entry.slots_count;
        self.maps().slots.write(entry.slots_offset, backends).expect("write slots");
        self.maps().services.insert(&FrontendKey::new(at, protocol), &entry).expect("insert service");
        at
    }

    /// Runs a client in the node's cgroup; one line an exchange, see `src/bin/sock_probe.rs`.
    pub(crate) fn probe(&self, way: &str, to: &str, times: u32) -> Vec<String> {
        probe(Some(&self.config.cgroup), way, to, times)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.plane = None;
        remove(&self.config.pin_dir, &self.config.cgroup);
    }
}

/// Runs a client in a cgroup, or where this process is.
pub(crate) fn probe(cgroup: Option<&Path>, way: &str, to: &str, times: u32) -> Vec<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sock_probe"));
    if let Some(cgroup) = cgroup {
        command.arg("--cgroup").arg(cgroup);
    }
    let output = command.args(["--times", &times.to_string(), way, to]).output().expect("run sock_probe");
    assert!(
        matches!(output.status.code(), Some(0 | 1)),
        "sock_probe: {} {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("sock_probe prints text").lines().map(str::to_owned).collect()
}

/// The answer that every exchange must show: the peer's address, then one of these names.
pub(crate) fn assert_answers(seen: &[String], peer: &str, names: &[&str]) {
    let answers: BTreeSet<&str> = seen.iter().map(String::as_str).collect();
    let expected: BTreeSet<String> = names.iter().map(|name| format!("{peer} {name}")).collect();
    let expected: BTreeSet<&str> = expected.iter().map(String::as_str).collect();
    assert!(!seen.is_empty() && answers == expected, "saw {answers:?}, expected {expected:?}");
}

/// Starts a TCP server that says its name and hangs up; it ends with the process.
pub(crate) fn tcp_server(at: &str, name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind(at).unwrap_or_else(|error| panic!("bind {at}: {error}"));
    let address = listener.local_addr().expect("bound address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            // A client that went away is its own affair; the test judges what the client saw.
            drop(stream.and_then(|mut stream| stream.write_all(name.as_bytes())));
        }
    });
    address
}

/// Starts a UDP server that answers every datagram with its name; it ends with the process.
pub(crate) fn udp_server(at: &str, name: &'static str) -> SocketAddr {
    let socket = UdpSocket::bind(at).unwrap_or_else(|error| panic!("bind {at}: {error}"));
    let address = socket.local_addr().expect("bound address");
    thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            drop(socket.send_to(name.as_bytes(), from));
        }
    });
    address
}

/// An error with all its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Shorthand for an address.
pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("test address")
}

/// Where cgroup v2 is mounted.
pub(crate) fn cgroup_root() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("read /proc/self/mounts");
    let mount =
        mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find_map(|fields| match fields[..] {
            [_, path, "cgroup2", ..] => Some(PathBuf::from(path)),
            _ => None,
        });
    mount.expect("these tests need cgroup v2 mounted somewhere")
}

fn remove(pin_dir: &Path, cgroup: &Path) {
    if let Err(error) = cleanup(pin_dir) {
        eprintln!("cleanup of {}: {}", pin_dir.display(), chain(&error));
    }
    if let Err(error) = remove_cgroup(cgroup) {
        eprintln!("remove {}: {error}", cgroup.display());
    }
}

/// Removes a cgroup and those in it.
pub(crate) fn remove_cgroup(cgroup: &Path) -> io::Result<()> {
    if !cgroup.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_empty(&entry.path())?;
        }
    }
    remove_empty(cgroup)
}

/// Removes a cgroup whose processes have ended. Linux 6.18 takes a process out of its cgroup shortly after its
/// parent has reaped it, so "busy" is asked again, for five seconds.
fn remove_empty(cgroup: &Path) -> io::Result<()> {
    let mut tries = 0;
    loop {
        match fs::remove_dir(cgroup) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && tries < 5000 => {
                tries += 1;
                thread::park_timeout(Duration::from_millis(1));
            }
            result => return result,
        }
    }
}

/// Removes what test processes that were killed have left.
fn remove_leftovers() {
    for parent in [PathBuf::from(BPFFS), cgroup_root()] {
        for entry in
            fs::read_dir(&parent).unwrap_or_else(|error| panic!("read {}: {error}", parent.display()))
        {
            let Ok(name) = entry.expect("directory entry").file_name().into_string() else { continue };
            let Some(pid) = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()) else {
                continue;
            };
            if !Path::new("/proc").join(pid).exists() {
                remove(&Path::new(BPFFS).join(&name), &cgroup_root().join(&name));
            }
        }
    }
}
