//! `mesh-agent`: one a node. See the library's documentation, and `mesh-agent --help`.

use clap::Parser;
use mesh_agent::app::{Args, build};
use mesh_runtime::{Shutdown, logging};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    logging::init(args.log_format, "info")?;
    let shutdown = Shutdown::on_signals()?;
    build(args).await?.run(shutdown).await
}
