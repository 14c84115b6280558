//! Several hubs of paris on one etcd, and what happens to one of them.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::loopback::{self, free_port, loopback};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Child;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::{Ground, Hub};

/// An etcd behind the store of hubs; killed when dropped.
pub(crate) struct Etcd {
    port: u16,
    _child: Option<Child>,
}

/// A way to the API server that can be cut.
pub(crate) struct Relay {
    port: u16,
    open: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Ground {
    /// One of several hubs that follow the API server, on one etcd, with a Lease of a few seconds.
    pub(crate) fn replica(&self, name: &str, etcd: &Etcd) -> Result<Hub> {
        self.replica_with(name, etcd, Vec::new())
    }

    /// The same, with flags of its own.
    pub(crate) fn replica_with(&self, name: &str, etcd: &Etcd, flags: Vec<String>) -> Result<Hub> {
        self.replica_by(self.api.kubeconfig(), name, etcd, times(4, 3, 1).into_iter().chain(flags))
    }

    /// The same, with a Lease of its own times, in seconds.
    pub(crate) fn replica_of(
        &self,
        name: &str,
        etcd: &Etcd,
        [lasts, deadline, period]: [u16; 3],
    ) -> Result<Hub> {
        self.replica_by(self.api.kubeconfig(), name, etcd, times(lasts, deadline, period))
    }

    /// The same, by a relay to the API server.
    pub(crate) fn replica_through(&self, relay: &Relay, name: &str, etcd: &Etcd) -> Result<Hub> {
        let mut access = self.api.access().clone();
        access.url = format!("https://{}", loopback(relay.port));
        let path = self.dir.path().join(format!("kubeconfig-{name}"));
        access.write_kubeconfig(&path)?;
        self.replica_by(&path, name, etcd, times(4, 3, 1))
    }

    fn replica_by(
        &self,
        kubeconfig: &Path,
        name: &str,
        etcd: &Etcd,
        flags: impl IntoIterator<Item = String>,
    ) -> Result<Hub> {
        let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
        let store = format!("--store=etcd:http://{}", loopback(etcd.port));
        let name_flag = format!("--replica-name={name}");
        let source = vec!["--source=kubernetes".to_owned(), kubeconfig, store, name_flag];
        self.start(name, source.into_iter().chain(flags).collect())
    }

    /// A way to the API server that can be cut.
    pub(crate) async fn relay(&self) -> Result<Relay> {
        let url = &self.api.access().url;
        let server: SocketAddr = url.trim_start_matches("https://").parse().with_context(|| url.clone())?;
        Relay::start(server).await
    }

    /// An etcd of its own, on loopback without TLS.
    pub(crate) fn etcd(&self) -> Result<Etcd> {
        let port = free_port()?;
        let child = loopback::etcd(self.dir.path(), port)?;
        Ok(Etcd { port, _child: Some(child) })
    }
}

impl Etcd {
    /// A way to it that can be cut, and what it is called at its end.
    pub(crate) async fn relay(&self) -> Result<(Relay, Self)> {
        let relay = Relay::start(loopback(self.port)).await?;
        let other = Self { port: relay.port, _child: None };
        Ok((relay, other))
    }
}

impl Hub {
    /// Stops it as it stands: connections stay, nothing moves.
    pub(crate) fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Asks it to end, and waits until it has, in good order.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let child = self.child.as_mut().context("it does not run")?;
        let ended = timeout(Duration::from_secs(20), child.wait()).await.context("it does not end")??;
        self.child = None;
        ensure!(ended.success(), "{ended}: {}", self.log());
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().context("it does not run")?.cast_signed();
        Ok(kill_process(Pid::from_raw(pid).context("process id")?, signal)?)
    }

    /// What Debian's `etcdctl` is told by this hub from now on, a line a response, until it is dropped.
    pub(crate) fn watch(&self, prefix: &str, file: &Path) -> Result<Child> {
        let out = fs::File::create(file).with_context(|| file.display().to_string())?;
        let mut command = self.etcdctl(&self.tls);
        command.args(["watch", "--prefix", prefix, "-w", "json"]).stdout(out).stderr(Stdio::null());
        command.spawn().context("start etcdctl (Debian package etcd-client)")
    }

    /// A command for this hub, with a certificate.
    pub(super) fn etcdctl(&self, tls: &Path) -> tokio::process::Command {
        let mut command = tokio::process::Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg(format!("--endpoints=https://{}", loopback(self.api)));
        command.arg("--cacert").arg(&self.ca).arg("--cert").arg(tls.join("tls.crt"));
        command.arg("--key").arg(tls.join("tls.key")).stdin(Stdio::null()).kill_on_drop(true);
        command
    }
}

impl Relay {
    async fn start(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(loopback(0)).await.context("listen")?;
        let port = listener.local_addr()?.port();
        let open = watch::Sender::new(true);
        let mut is_open = open.subscribe();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                // All arms are cancel-safe.
                tokio::select! {
                    Ok((mut client, _)) = listener.accept() => {
                        if *is_open.borrow() {
                            connections.spawn(async move {
                                let mut server = TcpStream::connect(server).await?;
                                copy_bidirectional(&mut client, &mut server).await.map(drop)
                            });
                        }
                    }
                    Ok(()) = is_open.changed() => {
                        if !*is_open.borrow_and_update() {
                            connections.abort_all();
                        }
                    }
                    Some(_) = connections.join_next() => {}
                    else => return,
                }
            }
        });
        Ok(Self { port, open, task })
    }

    /// Ends all connections, and lets none through.
    pub(crate) fn cut(&self) {
        self.open.send_replace(false);
    }

    /// Lets connections through again.
    pub(crate) fn mend(&self) {
        self.open.send_replace(true);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn times(lasts: u16, deadline: u16, period: u16) -> [String; 3] {
    [
        format!("--leader-elect-lease-duration={lasts}"),
        format!("--leader-elect-renew-deadline={deadline}"),
        format!("--leader-elect-retry-period={period}"),
    ]
}
