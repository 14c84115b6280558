//! `mesh-apiserver`: the hub of a cluster. See `mesh-apiserver --help`.

use std::process::ExitCode;

use clap::Parser;
use mesh_apiserver::app::{Args, build};
use mesh_apiserver::serve::MAX_CONNECTIONS;
use mesh_runtime::{Shutdown, logging, open_files};
use tikv_jemallocator::Jemalloc;
use tracing::error;

/// What many threads allocate and free, glibc's allocator gives back to the kernel and asks for again: a fifth of the time of
/// a put.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!(error = format_args!("{failure:#}"), "hub failed");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    // The source tells itself what goes wrong with the API server: once, and not at each attempt.
    logging::init(args.log_format, "info,kube_client=off,kube_runtime=off")?;
    open_files::raise_limit(MAX_CONNECTIONS as u64 + 1024);
    let shutdown = Shutdown::on_signals()?;
    build(args, shutdown).await?.run().await
}
