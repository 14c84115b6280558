//! Programs on the machine's own loopback, for what needs no network of its own.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use tokio::process::{Child, Command};

/// A port of 127.0.0.1.
pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// A port that is free, and that no other test of this machine gets from here while this process lives. It lies below the
/// range from which the kernel gives ports to connections and to listeners that name none, so nobody comes by it by chance.
pub fn free_port() -> Result<u16> {
    let claims = std::env::temp_dir().join("isthmus-ports");
    fs::create_dir_all(&claims).with_context(|| format!("make {}", claims.display()))?;
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    let first = std::process::id().wrapping_mul(97);
    for n in 0..u32::from(PORTS) {
        let offset = first.wrapping_add(n) % u32::from(PORTS);
        let port = FIRST_PORT + u16::try_from(offset).context("an offset below the number of ports")?;
        let claim = File::create(claims.join(port.to_string())).context("claim a port")?;
        let is_ours = flock(&claim, FlockOperation::NonBlockingLockExclusive).is_ok();
        if is_ours && TcpListener::bind(loopback(port)).is_ok() {
            held.push(claim);
            return Ok(port);
        }
    }
    bail!("no free port from {FIRST_PORT} on")
}

/// The claims of this process; the kernel lets go of them when it ends.
static HELD: Mutex<Vec<File>> = Mutex::new(Vec::new());
const FIRST_PORT: u16 = 20_000;
const PORTS: u16 = 10_000;

/// Starts an etcd of one member without TLS, which keeps `etcd/` and `etcd.log` in `dir`, for clients at `port`. It is
/// killed when dropped, and when this process ends.
///
/// Fails if the program cannot be started; whether it serves, its clients see.
pub fn etcd(dir: &Path, port: u16) -> Result<Child> {
    let clients = format!("http://{}", loopback(port));
    let peers = format!("http://{}", loopback(free_port()?));
    let log = File::create(dir.join("etcd.log")).context("create etcd.log")?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "etcd", "--name=one", &format!("--initial-cluster=one={peers}")]);
    command.arg("--data-dir").arg(dir.join("etcd"));
    for (flag, value) in [
        ("listen-client-urls", &clients),
        ("advertise-client-urls", &clients),
        ("listen-peer-urls", &peers),
        ("initial-advertise-peer-urls", &peers),
    ] {
        command.arg(format!("--{flag}={value}"));
    }
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
    command.spawn().context("start etcd (Debian package etcd-server)")
}
