//! `mesh-agent-cleanup` on a node with a real agent: nothing of a killed one is left, nothing is taken from one that runs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::programs::Programs;
use e2e::scenario::{self, CLUSTERS, SOON, UDP4, URL4, answered_by};
use e2e::{Daemon, Lab, eventually};
use tokio::process::Command;
use tokio::time::timeout;

/// A command that takes what is pinned here off the node.
fn cleanup(program: &Path, pins: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.arg("--pin-dir").arg(pins).args(more).env("RUST_BACKTRACE", "0").kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn ended(mut command: Command) -> Result<(bool, String)> {
    let output = timeout(SOON, command.output()).await.context("the cleanup does not end")??;
    Ok(said(&output))
}

fn said(output: &Output) -> (bool, String) {
    let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    (output.status.success(), text.concat())
}

fn program() -> Result<PathBuf> {
    Programs::locate()?.daemon("mesh-agent-cleanup")
}

/// Nobody answers at the service's address: nothing translates it, and nothing else here has it.
async fn nobody_translates(lab: &Lab) -> Result<()> {
    let client = lab.client("paris", "n1")?;
    for tally in [
        client.http(URL4).count(5).timeout(Duration::from_millis(300)).run().await?,
        client.udp(UDP4).count(5).timeout(Duration::from_millis(300)).run().await?,
    ] {
        ensure!(tally.answered() == 0, "somebody answered: {tally}");
    }
    Ok(())
}

#[tokio::test]
async fn nothing_of_a_killed_agent_is_left() -> Result<()> {
    let mut lab = scenario::running("agent-cleanup").await?;
    let agent = Daemon::agent("paris", "n1");
    let pins = lab.site().pin_dir("paris", "n1");
    let program = program()?;
    lab.kill(&agent).await?;
    answered_by(&lab.client("paris", "n1")?, &CLUSTERS).await.context("traffic outlives the agent")?;

    // Without rights it says so, and takes nothing.
    let copy = lab.scratch("mesh-agent-cleanup");
    fs::copy(&program, &copy)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&copy).arg("--pin-dir").arg(&pins);
    command.stdin(Stdio::null()).env("RUST_BACKTRACE", "0");
    let (success, text) = ended(command).await?;
    ensure!(!success && text.contains("this needs root, with the capability BPF"), "{text}");
    answered_by(&lab.client("paris", "n1")?, &CLUSTERS).await.context("nothing was taken")?;

    let (success, text) = ended(cleanup(&program, &pins, &[])).await?;
    ensure!(success, "{text}");
    ensure!(!pins.exists(), "{} is still there", pins.display());
    nobody_translates(&lab).await?;
    // The agent of another cluster on this machine is another's. (It asks paris last, since nobody there answers probes.)
    let berlin = lab.client("berlin", "n1")?.http(URL4).count(30).run().await?;
    ensure!(berlin.failed() == 0 && berlin.answered() == 30, "{berlin}");
    let (success, text) = ended(cleanup(&program, &pins, &[])).await?;
    ensure!(success, "a second time: {text}");

    lab.restart(&agent).await?;
    answered_by(&lab.client("paris", "n1")?, &CLUSTERS).await?;
    lab.finish().await
}

#[tokio::test]
async fn nothing_is_taken_from_an_agent_that_runs() -> Result<()> {
    let mut lab = scenario::running("cleanup-waits").await?;
    let agent = Daemon::agent("paris", "n1");
    let pins = lab.site().pin_dir("paris", "n1");
    let program = program()?;
    let (success, text) = ended(cleanup(&program, &pins, &[])).await?;
    ensure!(!success && text.contains("an agent of this node runs"), "{text}");
    answered_by(&lab.client("paris", "n1")?, &CLUSTERS).await?;

    // As `meshctl uninstall` has it: on the node before the agent ends.
    let log = lab.scratch("cleanup.log");
    let mut command = cleanup(&program, &pins, &["--wait"]);
    command.stdout(fs::File::create(&log)?).stderr(fs::File::options().append(true).open(&log)?);
    let mut waiting = command.spawn().context("start the cleanup")?;
    eventually("the cleanup waits", SOON, || async {
        let text = fs::read_to_string(&log)?;
        ensure!(text.contains("waiting for the agent of this node to end"), "{text}");
        Ok(())
    })
    .await?;
    answered_by(&lab.client("paris", "n1")?, &CLUSTERS).await?;
    ensure!(waiting.try_wait()?.is_none(), "it did not wait: {}", fs::read_to_string(&log)?);
    lab.terminate(&agent).await?;
    let status = timeout(SOON, waiting.wait()).await.context("the cleanup does not end")??;
    ensure!(status.success() && !pins.exists(), "{status}: {}", fs::read_to_string(&log)?);
    nobody_translates(&lab).await?;

    lab.restart(&agent).await?;
    answered_by(&lab.client("paris", "n1")?, &CLUSTERS).await?;
    lab.finish().await
}
