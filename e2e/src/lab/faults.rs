//! What a test does to a lab: cuts links, ends and restarts daemons.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::Lab;
use crate::path::{self, Link};
use crate::process::{Daemon, Running};

/// How long a daemon may take to end, also when it drains.
const END_DEADLINE: Duration = Duration::from_secs(15);

impl Lab {
    /// Drops this traffic from now on.
    pub fn cut(&mut self, link: Link) -> Result<()> {
        for cluster in link.clusters() {
            self.cluster(cluster)?;
        }
        self.cuts.insert(link);
        path::apply(&self.site.wan(), &self.cuts, &self.cluster_ids())
    }

    /// Lets this traffic through again. Fails if it was not cut.
    pub fn heal(&mut self, link: &Link) -> Result<()> {
        ensure!(self.cuts.remove(link), "{link} is not cut; cut are {:?}", self.cuts);
        path::apply(&self.site.wan(), &self.cuts, &self.cluster_ids())
    }

    /// Ends a daemon without warning (`kill -9`) and waits until it is gone.
    pub async fn kill(&mut self, daemon: &Daemon) -> Result<()> {
        self.running_mut(daemon)?.end(Signal::KILL, END_DEADLINE).await.map(drop)
    }

    /// Asks a daemon to end (SIGTERM), and waits. Fails unless its exit code is 0.
    pub async fn terminate(&mut self, daemon: &Daemon) -> Result<()> {
        let status = self.running_mut(daemon)?.end(Signal::TERM, END_DEADLINE).await?;
        ensure!(status.success(), "{daemon} ended with {status} after SIGTERM");
        Ok(())
    }

    /// Gives a flag of a daemon another value; it counts from the next start.
    pub fn set_flag(&mut self, daemon: &Daemon, flag: &str, value: &str) -> Result<()> {
        let running = self.running_mut(daemon)?;
        let mut found = false;
        running.change_args(|args| {
            let position = args.iter().position(|arg| arg == flag);
            if let Some(old) = position.and_then(|position| args.get_mut(position + 1)) {
                value.clone_into(old);
                found = true;
            }
        });
        ensure!(found, "{daemon} has no flag {flag}: {}", running.command_line());
        Ok(())
    }

    /// Starts a program on a node for as long as the lab lives, beside the daemons. Its output goes to `<name>.log`
    /// among the cluster's logs.
    pub fn start_program(
        &mut self,
        cluster: &str,
        node: &str,
        name: &str,
        program: &Path,
        args: &[&str],
    ) -> Result<()> {
        let place = self.node_place(cluster, node)?;
        let log = self.site.cluster_dir(cluster).join("log").join(format!("{name}.log"));
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let running = Running::start(place, program.to_owned(), args, log)
            .with_context(|| format!("start {name} on {cluster}/{node}"))?;
        self.programs_started.push(running);
        Ok(())
    }

    /// Starts a daemon that was ended again, with the same command line, and waits until it is ready.
    pub async fn restart(&mut self, daemon: &Daemon) -> Result<()> {
        self.running_mut(daemon)?.again()?;
        self.ready(daemon).await
    }
}
