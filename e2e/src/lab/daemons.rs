//! The daemons of a lab: certificates and configuration for them, their start, what they say about themselves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::Lab;
use crate::addressing::AddressPair;
use crate::authority::{Authority, Enrolment, Role};
use crate::peer_config::client_config;
use crate::process::{Daemon, Place, Running};
use crate::wait::eventually;

/// How long a daemon may take until it is ready. Generous: a debug build on a busy machine.
const READY_DEADLINE: Duration = Duration::from_secs(60);
const COMMAND_DEADLINE: Duration = Duration::from_secs(30);

/// What a command said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Whether its exit code was 0.
    pub success: bool,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Lab {
    /// The `/status` of a daemon.
    pub async fn status(&self, daemon: &Daemon) -> Result<Value> {
        self.get_json(daemon, "/status").await
    }

    /// What an agent holds in its maps (`/image`), with backend ids.
    pub async fn image(&self, cluster: &str, node: &str) -> Result<Value> {
        self.get_json(&Daemon::agent(cluster, node), "/image").await
    }

    /// A JSON document from a daemon's admin port.
    pub async fn get_json(&self, daemon: &Daemon, path: &str) -> Result<Value> {
        let text = self.get(daemon, path).await?;
        serde_json::from_str(&text).with_context(|| format!("{daemon} {path} is not JSON: {text}"))
    }

    /// A text from a daemon's admin port. Fails unless the answer is 200, with what it said.
    pub async fn get(&self, daemon: &Daemon, path: &str) -> Result<String> {
        let url = format!("http://127.0.0.1:{}{path}", daemon.admin_port());
        let output =
            self.run_at(&self.place(daemon)?, &self.programs.own("lab-pod")?, &["get", &url], &[]).await?;
        ensure!(output.success, "{daemon} {path}: {} {}", output.stdout.trim(), output.stderr.trim());
        Ok(output.stdout)
    }

    /// Runs `etcdctl` on the first node of a cluster against its hub, with the certificates in `tls_dir` (`tls.crt`,
    /// `tls.key`); without it, with no certificate. The hub's certificate is checked against the lab's own root.
    pub async fn etcdctl(&self, cluster: &str, tls_dir: Option<&Path>, args: &[&str]) -> Result<Output> {
        self.etcdctl_fed(cluster, tls_dir, args, &[]).await
    }

    /// As [`Lab::etcdctl`], with this on its standard input (`put` takes the value from there).
    pub async fn etcdctl_fed(
        &self,
        cluster: &str,
        tls_dir: Option<&Path>,
        args: &[&str],
        input: &[u8],
    ) -> Result<Output> {
        let ca = self.tls_dir(cluster, Role::Remote).join("ca.crt");
        let mut all: Vec<String> = vec![
            "--endpoints=https://127.0.0.1:2379".into(),
            format!("--cacert={}", ca.display()),
            "--dial-timeout=3s".into(),
            "--command-timeout=5s".into(),
        ];
        if let Some(dir) = tls_dir {
            all.push(format!("--cert={}", dir.join("tls.crt").display()));
            all.push(format!("--key={}", dir.join("tls.key").display()));
        }
        all.extend(args.iter().map(|arg| (*arg).to_owned()));
        let args: Vec<&str> = all.iter().map(String::as_str).collect();
        self.run_at(&self.place(&Daemon::hub(cluster))?, Path::new("etcdctl"), &args, input).await
    }

    /// The directory with the certificate that a cluster has for this role (agents: of the first node).
    pub fn tls_dir(&self, cluster: &str, role: Role) -> PathBuf {
        self.site.cluster_dir(cluster).join("pki").join(match role {
            Role::Hub => "hub",
            Role::Remote => "remote-n1",
            Role::Local => "local-n1",
            Role::Admin => "admin",
            Role::Etcd => "etcd",
            Role::Store => "store",
        })
    }

    /// The directory in which a cluster's agents find their peers' configuration: one file a peer, by its name.
    pub fn peers_dir(&self, cluster: &str) -> PathBuf {
        self.site.cluster_dir(cluster).join("peers")
    }

    /// The mesh authority of this lab.
    pub fn authority(&self) -> Result<&Authority> {
        self.authority.as_ref().context("a lab without daemons has no authority")
    }

    /// Makes another authority, with a root of its own, in the lab's directory.
    pub fn new_authority(&self, name: &str) -> Result<Authority> {
        Authority::init(&self.programs.daemon("meshctl")?, &self.scratch(name))
    }

    /// What a daemon has written so far.
    pub fn log(&self, daemon: &Daemon) -> Result<String> {
        let path = self.running(daemon)?.log();
        fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
    }

    /// The process id of a daemon, while it runs.
    pub fn pid(&self, daemon: &Daemon) -> Result<Option<u32>> {
        Ok(self.running(daemon)?.pid())
    }

    /// Waits until a daemon says that it is ready. Fails at once if it ends.
    pub async fn ready(&mut self, daemon: &Daemon) -> Result<()> {
        let why = format!("{daemon} is ready");
        let deadline = tokio::time::Instant::now() + READY_DEADLINE;
        loop {
            self.running_mut(daemon)?.ensure_alive()?;
            // Short rounds, so that a daemon that ends is noticed at once.
            let this = &*self;
            let asked =
                eventually(&why, Duration::from_secs(1), || async { this.get(daemon, "/readyz").await })
                    .await;
            match asked {
                Ok(_) => return Ok(()),
                Err(error) if tokio::time::Instant::now() >= deadline => return Err(error),
                Err(_) => {}
            }
        }
    }

    pub(super) async fn start_daemons(&mut self) -> Result<()> {
        let [hub, agent, meshctl] =
            ["mesh-apiserver", "mesh-agent", "meshctl"].map(|name| self.programs.daemon(name));
        let (hub, agent, meshctl) = (hub?, agent?, meshctl?);
        let authority = Authority::init(&meshctl, &self.site.dir().join("authority"))?;
        for (name, cluster) in &self.clusters {
            self.enrol(&authority, name, cluster.spec.id)?;
        }
        self.authority = Some(authority);
        let names: Vec<String> = self.clusters.keys().cloned().collect();
        for name in &names {
            let args = self.hub_args(name)?;
            self.launch(Daemon::hub(name), hub.clone(), args)?;
        }
        for name in &names {
            for node in self.nodes(name)? {
                let args = self.agent_args(name, &node)?;
                self.launch(Daemon::agent(name, &node), agent.clone(), args)?;
            }
        }
        let daemons: Vec<Daemon> = self.daemons.keys().cloned().collect();
        for daemon in daemons {
            self.ready(&daemon).await?;
        }
        Ok(())
    }

    pub(super) fn running(&self, daemon: &Daemon) -> Result<&Running> {
        self.daemons.get(daemon).with_context(|| format!("lab has no {daemon}"))
    }

    pub(super) fn running_mut(&mut self, daemon: &Daemon) -> Result<&mut Running> {
        self.daemons.get_mut(daemon).with_context(|| format!("lab has no {daemon}"))
    }

    fn enrol(&self, authority: &Authority, name: &str, id: u8) -> Result<()> {
        let passport = self.site.cluster_dir(name).join("pki").join("passport");
        authority.enroll(&Enrolment::of_lab_cluster(name, id), &passport)?;
        authority.leaf(&passport, Role::Hub, "n1", &self.tls_dir(name, Role::Hub))?;
        authority.leaf(&passport, Role::Admin, "n1", &self.tls_dir(name, Role::Admin))?;
        let pki = self.site.cluster_dir(name).join("pki");
        for node in self.nodes(name)? {
            authority.leaf(&passport, Role::Remote, &node, &pki.join(format!("remote-{node}")))?;
            authority.leaf(&passport, Role::Local, &node, &pki.join(format!("local-{node}")))?;
        }
        Ok(())
    }

    fn hub_args(&self, name: &str) -> Result<Vec<String>> {
        let cluster = self.cluster(name)?;
        let dir = self.site.cluster_dir(name);
        let id = cluster.spec.id.to_string();
        let source = format!("manifests:{}", cluster.manifests.dir().display());
        let data = dir.join("data").display().to_string();
        let tls = self.tls_dir(name, Role::Hub).display().to_string();
        let pairs = [
            ("--cluster-name", name),
            ("--cluster-id", &id),
            ("--source", &source),
            ("--data-dir", &data),
            ("--tls-dir", &tls),
            ("--listen", "[::]:2379"),
            ("--admin-listen", "127.0.0.1:9980"),
            ("--region", &cluster.spec.region),
        ];
        Ok(flat(&pairs, &cluster.spec.hub_args))
    }

    fn agent_args(&self, name: &str, node: &str) -> Result<Vec<String>> {
        let dir = self.site.cluster_dir(name);
        let pki = dir.join("pki");
        let hub_config = dir.join(format!("hub-{node}.yaml"));
        let local = client_config(name, self.hub_addresses(name)?, &pki.join(format!("local-{node}")));
        fs::write(&hub_config, local).context("write hub configuration")?;
        // Each node has its own client certificate, hence its own directory of peers; `peers` is that of the first node.
        let peers = if node == "n1" { self.peers_dir(name) } else { dir.join(format!("peers-{node}")) };
        fs::create_dir_all(&peers).context("create peers directory")?;
        for peer in self.clusters.keys().filter(|peer| *peer != name) {
            let text = client_config(peer, self.hub_addresses(peer)?, &pki.join(format!("remote-{node}")));
            fs::write(peers.join(peer), text).context("write peer configuration")?;
        }
        let show = |path: PathBuf| path.display().to_string();
        let (hub_config, peers) = (show(hub_config), show(peers));
        let cgroup = show(self.site.pods_cgroup(name, node));
        let pin_dir = self.site.pin_dir(name, node);
        fs::create_dir_all(&pin_dir).context("create pin directory")?;
        let pin_dir = show(pin_dir);
        let pairs = [
            ("--cluster-name", name),
            ("--node-name", node),
            ("--hub-config", &hub_config),
            ("--peers-dir", &peers),
            ("--cgroup", &cgroup),
            ("--pin-dir", &pin_dir),
            ("--admin-listen", "127.0.0.1:9970"),
            ("--probe-listen", "[::]:9971"),
        ];
        Ok(flat(&pairs, &self.cluster(name)?.spec.agent_args))
    }

    fn launch(&mut self, daemon: Daemon, program: PathBuf, args: Vec<String>) -> Result<()> {
        let place = self.place(&daemon)?;
        let file = match &daemon {
            Daemon::Hub { .. } => "hub.log".to_owned(),
            Daemon::Agent { node, .. } => format!("agent-{node}.log"),
        };
        let log = self.site.cluster_dir(daemon.cluster()).join("log").join(file);
        let running = Running::start(place, program, args, log).with_context(|| format!("start {daemon}"))?;
        self.daemons.insert(daemon, running);
        Ok(())
    }

    fn hub_addresses(&self, cluster: &str) -> Result<AddressPair> {
        Ok(self.node(cluster, "n1")?.number.addresses())
    }

    fn place(&self, daemon: &Daemon) -> Result<Place> {
        match daemon {
            Daemon::Hub { cluster } => self.node_place(cluster, "n1"),
            Daemon::Agent { cluster, node } => self.node_place(cluster, node),
        }
    }

    async fn run_at(&self, place: &Place, program: &Path, args: &[&str], input: &[u8]) -> Result<Output> {
        let mut command = place.command(program);
        command.args(args).env("ETCDCTL_API", "3").kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let run = async {
            let mut child = command.spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(input).await?;
            }
            child.wait_with_output().await
        };
        let Ok(output) = timeout(COMMAND_DEADLINE, run).await else {
            bail!("{} did not end within {COMMAND_DEADLINE:?}", program.display());
        };
        let output = output.with_context(|| format!("run {}", program.display()))?;
        Ok(Output {
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

fn flat(pairs: &[(&str, &str)], more: &[String]) -> Vec<String> {
    let known = pairs.iter().flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()]);
    known.chain(more.iter().cloned()).collect()
}
