//! `mesh-agent-cleanup`: takes the programs and maps of an agent that has ended off its node, as `meshctl uninstall` wants it.
//!
//! New connections to global services then go where the cluster itself sends them; established ones stay. Nothing is taken
//! from an agent that runs: it would go on writing into maps that nobody reads, and attach again at its next start. Its hold
//! on the pin directory is a lock that ends with the process, however it ends, so there is never a stale one to break.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use ebpf_loader::{CleanupError, PinError, cleanup};
use mesh_runtime::{LogFormat, Shutdown, logging};
use tracing::info;

/// Takes the programs and maps of an agent that has ended off this node. What is not there is no error: it can be run again.
///
/// Refuses, and changes nothing, while an agent runs. Needs root, with the capability BPF.
#[derive(Debug, Parser)]
#[command(version, name = "mesh-agent-cleanup")]
struct Args {
    /// Folder on a bpffs where they are pinned.
    #[arg(long, env = "MESH_AGENT_PIN_DIR", default_value = "/sys/fs/bpf/isthmus")]
    pin_dir: PathBuf,
    /// Wait for the end of an agent that runs, instead of refusing.
    #[arg(long)]
    wait: bool,
    /// Afterwards wait until asked to end: for a DaemonSet, which starts anew what ends.
    #[arg(long)]
    then_wait: bool,
    /// How log lines look.
    #[arg(long, env = "MESH_AGENT_LOG_FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    logging::init(args.log_format, "info")?;
    let shutdown = Shutdown::on_signals()?;
    tokio::select! {
        done = clean(&args.pin_dir, args.wait) => done?,
        () = shutdown.requested() => anyhow::bail!("asked to end before the agent of this node had ended"),
    }
    if args.then_wait {
        shutdown.requested().await;
    }
    Ok(())
}

/// Removes everything, as soon as no agent holds it if `wait`.
async fn clean(pin_dir: &Path, wait: bool) -> anyhow::Result<()> {
    let mut said = false;
    loop {
        let error = match cleanup(pin_dir) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let held = matches!(error, CleanupError::Pin(PinError::Locked { .. }));
        let hint = match held {
            true => {
                "an agent of this node runs: end it first, or let --wait wait for its end; nothing was changed"
            }
            false if is_for_want_of_rights(&error) => "this needs root, with the capability BPF",
            false => "the node is not clean yet: run it again when this is mended",
        };
        if !held || !wait {
            return Err(error).context(hint).with_context(|| format!("clean {}", pin_dir.display()));
        }
        if !said {
            info!(pin_dir = %pin_dir.display(), "waiting for the agent of this node to end");
            said = true;
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn is_for_want_of_rights(error: &CleanupError) -> bool {
    let source = match error {
        CleanupError::Pin(PinError::Io { source, .. }) | CleanupError::Detach { source, .. } => source,
        CleanupError::Pin(_) => return false,
    };
    source.kind() == io::ErrorKind::PermissionDenied
}

/// Time between two looks for the agent's end.
const LOOK: Duration = Duration::from_millis(500);
