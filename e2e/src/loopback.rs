//! Programs on the machine's own loopback, for what needs no network of its own.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result};
use tokio::process::{Child, Command};

/// A port of 127.0.0.1.
pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// A port that was free just now. Whoever finds it taken after all must end and say so.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(loopback(0)).context("find a free port")?;
    Ok(listener.local_addr().context("find a free port")?.port())
}

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
