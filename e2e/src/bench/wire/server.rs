//! The servers that are compared: our hub and etcd, each a real process with the same certificates.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;
use tokio::process::{Child, Command};

use super::call;
use super::connection::{Connection, Target};
use super::ground::{CLUSTER, Ground};
use super::usage;
use crate::loopback::{free_port, loopback};
use crate::wait::eventually;

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Our mesh-apiserver with its own store.
    Hub,
    /// An etcd binary.
    Etcd(PathBuf),
}

/// A server on loopback and its store.
#[derive(Debug)]
pub(super) struct Server {
    program: PathBuf,
    args: Vec<String>,
    log: PathBuf,
    target: Target,
    child: Option<Child>,
}

impl Server {
    /// Starts one with an empty store in `dir` and waits until it answers.
    pub(super) async fn start(kind: &Kind, ground: &Ground, dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let (port, second) = (free_port()?, free_port()?);
        let (program, args) = match kind {
            Kind::Hub => (ground.hub_program.clone(), hub_args(ground, dir, port, second)?),
            Kind::Etcd(program) => (program.clone(), etcd_args(ground, dir, port, second)),
        };
        let target = Target { address: loopback(port), ..ground.target.clone() };
        let mut server = Self { program, args, log: dir.join("log"), target, child: None };
        server.again()?;
        server.answers().await?;
        Ok(server)
    }

    /// Starts it again after [`Self::kill`], without waiting for anything.
    pub(super) fn again(&mut self) -> Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log).context("open the log")?;
        let errors = log.try_clone().context("second handle of the log")?;
        // The server must not outlive the benchmark, however that ends: the kernel kills it when its parent is gone.
        let mut command = std::process::Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(&self.program).args(&self.args);
        command.stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0);
        let child = Command::from(command).kill_on_drop(true).spawn();
        self.child = Some(child.with_context(|| format!("start {}", self.program.display()))?);
        Ok(())
    }

    /// Ends it with SIGKILL.
    pub(super) async fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the server does not run")?;
        child.kill().await.context("kill the server")
    }

    /// Kills it, starts it again and waits until it answers.
    pub(super) async fn restart(&mut self) -> Result<()> {
        self.kill().await?;
        self.again()?;
        self.answers().await
    }

    /// Ends it in good order.
    pub(super) async fn stop(mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_raw(self.pid()?.cast_signed()).context("process id")?;
        rustix::process::kill_process(pid, Signal::TERM).context("end the server")?;
        let mut child = self.child.take().context("the server does not run")?;
        match tokio::time::timeout(STOP, child.wait()).await {
            Ok(ended) => ended.context("wait for the server").map(drop),
            Err(_elapsed) => child.kill().await.context("kill the server"),
        }
    }

    /// How to connect.
    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// A new connection.
    pub(super) async fn dial(&self) -> Result<Connection> {
        Connection::open(&self.target).await.with_context(|| format!("see {}", self.log.display()))
    }

    /// Its process id.
    pub(super) fn pid(&self) -> Result<u32> {
        self.child.as_ref().and_then(Child::id).context("the server does not run")
    }

    /// CPU seconds that it has used since it was started.
    pub(super) fn cpu_seconds(&self) -> Result<f64> {
        usage::cpu_seconds(self.pid()?)
    }

    async fn answers(&mut self) -> Result<()> {
        let child = self.child.as_mut().context("the server does not run")?;
        let (target, log) = (&self.target, &self.log);
        let ask = || async {
            let mut connection = Connection::open(target).await?;
            call::revision(&mut connection).await.map(drop)
        };
        tokio::select! {
            answered = eventually("the server answers", START, ask) => answered,
            ended = child.wait() => Err(anyhow::anyhow!("ended at once: {ended:?}")),
        }
        .with_context(|| format!("start {}; see {}", self.program.display(), log.display()))
    }
}

fn hub_args(ground: &Ground, dir: &Path, port: u16, admin_port: u16) -> Result<Vec<String>> {
    let manifests = dir.join("manifests");
    std::fs::create_dir_all(&manifests).context("create a folder for manifests")?;
    Ok(arguments([
        ("cluster-name", CLUSTER.to_owned()),
        ("cluster-id", "1".to_owned()),
        ("source", format!("manifests:{}", manifests.display())),
        ("data-dir", dir.join("data").display().to_string()),
        ("tls-dir", ground.server_tls.display().to_string()),
        ("listen", loopback(port).to_string()),
        ("admin-listen", loopback(admin_port).to_string()),
    ]))
}

fn etcd_args(ground: &Ground, dir: &Path, port: u16, peer_port: u16) -> Vec<String> {
    let (clients, peers) = (format!("https://{}", loopback(port)), format!("http://{}", loopback(peer_port)));
    let tls = |file| ground.server_tls.join(file).display().to_string();
    let mut args = arguments([
        ("name", "bench".to_owned()),
        ("data-dir", dir.join("data").display().to_string()),
        ("listen-client-urls", clients.clone()),
        ("advertise-client-urls", clients),
        ("listen-peer-urls", peers.clone()),
        ("initial-advertise-peer-urls", peers.clone()),
        ("initial-cluster", format!("bench={peers}")),
        ("cert-file", tls(pki::files::CERTIFICATE)),
        ("key-file", tls(pki::files::KEY)),
        ("trusted-ca-file", tls(pki::files::AUTHORITIES)),
        ("client-cert-auth", "true".to_owned()),
        ("quota-backend-bytes", (8_u64 << 30).to_string()),
        ("log-level", "warn".to_owned()),
    ]);
    args.push("--enable-grpc-gateway=false".to_owned());
    args
}

fn arguments<const N: usize>(flags: [(&str, String); N]) -> Vec<String> {
    flags.into_iter().map(|(flag, value)| format!("--{flag}={value}")).collect()
}

const START: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(10);
