//! Child processes of a lab: where they run, what they are called, how they end.

use std::fmt;
use std::fs::OpenOptions;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::site::netns_path;

/// Enters the cgroup, then the network namespace, then becomes the program; the process id stays the same. `ip netns
/// exec` would hide the cgroup and BPF file systems.
const ENTER: &str =
    r#"echo $$ >"$1/cgroup.procs" && netns=$2 && shift 2 && exec nsenter --net="$netns" -- "$@""#;

/// Names a daemon of a lab.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Daemon {
    /// The mesh-apiserver of a cluster.
    Hub {
        /// Cluster name.
        cluster: String,
    },
    /// The mesh-agent of a node.
    Agent {
        /// Cluster name.
        cluster: String,
        /// Node name.
        node: String,
    },
}

/// Holds where a process runs.
#[derive(Clone, Debug)]
pub struct Place {
    /// Name of the network namespace.
    pub netns: String,
    /// Path of the cgroup.
    pub cgroup: PathBuf,
}

/// A daemon that was started, with all that is needed to start it again.
#[derive(Debug)]
pub struct Running {
    place: Place,
    program: PathBuf,
    args: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Daemon {
    /// The hub of a cluster.
    pub fn hub(cluster: &str) -> Self {
        Self::Hub { cluster: cluster.to_owned() }
    }

    /// The agent of a node.
    pub fn agent(cluster: &str, node: &str) -> Self {
        Self::Agent { cluster: cluster.to_owned(), node: node.to_owned() }
    }

    /// The cluster it belongs to.
    pub fn cluster(&self) -> &str {
        match self {
            Self::Hub { cluster } | Self::Agent { cluster, .. } => cluster,
        }
    }

    /// The port of its admin endpoint, on loopback of its node.
    pub fn admin_port(&self) -> u16 {
        match self {
            Self::Hub { .. } => 9980,
            Self::Agent { .. } => 9970,
        }
    }
}

impl fmt::Display for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub { cluster } => write!(f, "{cluster}/hub"),
            Self::Agent { cluster, node } => write!(f, "{cluster}/{node}/agent"),
        }
    }
}

impl Place {
    /// A command that runs the program here, in a process group of its own (a Ctrl-C at the terminal reaches the test
    /// alone; what the test started ends with it, see [`crate::guardian`]).
    pub fn command(&self, program: &Path) -> Command {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", ENTER, "enter"]).arg(&self.cgroup).arg(netns_path(&self.netns)).arg(program);
        // Panics still print their backtrace; errors that are answers ("not ready yet") need none.
        command.stdin(Stdio::null()).env("RUST_LIB_BACKTRACE", "0").process_group(0);
        Command::from(command)
    }
}

impl Running {
    /// Starts a program whose output goes to the end of a log file.
    pub fn start(place: Place, program: PathBuf, args: Vec<String>, log: PathBuf) -> Result<Self> {
        let mut running = Self { place, program, args, log, child: None };
        running.again()?;
        Ok(running)
    }

    /// Starts the same program with the same arguments again. Fails while it still runs.
    pub fn again(&mut self) -> Result<()> {
        ensure!(!self.is_alive()?, "{} still runs", self.program.display());
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("open {}", self.log.display()))?;
        let errors = log.try_clone().context("second handle of the log")?;
        let child = self
            .place
            .command(&self.program)
            .args(&self.args)
            .stdout(log)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("start {}", self.program.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Changes the arguments of the next start.
    pub fn change_args(&mut self, change: impl FnOnce(&mut Vec<String>)) {
        change(&mut self.args);
    }

    /// Whether the process exists.
    pub fn is_alive(&mut self) -> Result<bool> {
        match &mut self.child {
            Some(child) => Ok(child.try_wait().context("look at a child")?.is_none()),
            None => Ok(false),
        }
    }

    /// Fails with how it ended if the process is gone.
    pub fn ensure_alive(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        if let Some(status) = child.try_wait().context("look at a child")? {
            anyhow::bail!("{} ended: {}; {}", self.program.display(), describe(status), self.log.display());
        }
        Ok(())
    }

    /// Sends a signal and waits for the end, at most `deadline`.
    pub async fn end(&mut self, signal: Signal, deadline: Duration) -> Result<ExitStatus> {
        let name = self.program.display().to_string();
        let child = self.child.as_mut().with_context(|| format!("{name} does not run"))?;
        if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            kill_process(pid, signal).with_context(|| format!("signal {name}"))?;
        }
        let ended = timeout(deadline, child.wait()).await;
        let status = ended
            .with_context(|| format!("{name} still runs {deadline:?} after {signal:?}"))?
            .with_context(|| format!("wait for {name}"))?;
        self.child = None;
        Ok(status)
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Its log file.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its command line, for people.
    pub fn command_line(&self) -> String {
        format!("{} {}", self.program.display(), self.args.join(" "))
    }
}

/// Runs a program that ends by itself and gives its standard output. Fails with its standard error if its exit code is
/// not 0.
pub fn run_to_end(program: &Path, args: &[String]) -> Result<String> {
    let output = std::process::Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {}", program.display()))?;
    ensure!(
        output.status.success(),
        "{} {}: {}\n{}{}",
        program.display(),
        args.join(" "),
        describe(output.status),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}
