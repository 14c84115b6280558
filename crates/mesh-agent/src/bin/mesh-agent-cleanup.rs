//! `mesh-agent-cleanup`: takes the programs and maps of an agent that has ended off its node, as `meshctl uninstall` wants it.
//!
//! New connections to global services then go where the cluster itself sends them; established ones stay.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use ebpf_loader::{CleanupError, PinError, cleanup};
use mesh_runtime::{LogFormat, Shutdown, logging};
use tracing::info;

/// Takes the programs and maps of an agent off this node.
#[derive(Debug, Parser)]
#[command(version, name = "mesh-agent-cleanup")]
struct Args {
    /// Folder on a bpffs where they are pinned.
    #[arg(long, env = "MESH_AGENT_PIN_DIR", default_value = "/sys/fs/bpf/isthmus")]
    pin_dir: PathBuf,
    /// Then wait until asked to end: for a DaemonSet, which starts anew what ends.
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
        done = clean(&args.pin_dir) => done?,
        () = shutdown.requested() => anyhow::bail!("asked to end before the agent of this node had ended"),
    }
    if args.then_wait {
        shutdown.requested().await;
    }
    Ok(())
}

/// Removes everything, as soon as no agent holds it.
async fn clean(pin_dir: &Path) -> anyhow::Result<()> {
    let mut said = false;
    loop {
        match cleanup(pin_dir) {
            Err(CleanupError::Pin(PinError::Locked { .. })) => {
                if !said {
                    info!(pin_dir = %pin_dir.display(), "waiting for the agent of this node to end");
                    said = true;
                }
                tokio::time::sleep(LOOK).await;
            }
            other => return other.with_context(|| format!("clean {}", pin_dir.display())),
        }
    }
}

/// Time between two looks for the agent's end.
const LOOK: Duration = Duration::from_millis(500);
