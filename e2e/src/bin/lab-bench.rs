//! Benchmarks in a lab. Exit code 1 if a target is missed.

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use e2e::bench;

/// Benchmarks of a whole mesh, in network namespaces.
#[derive(Parser)]
#[command(name = "lab-bench")]
struct Cli {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Manifest change to map entry in another cluster; cost of connect() with and without sock_lb.
    FirstLight {
        /// How many changes of an endpoint.
        #[arg(long, default_value_t = 400)]
        changes: u64,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    let Bench::FirstLight { changes } = Cli::parse().bench;
    let rows = bench::first_light(changes).await?;
    for row in &rows {
        println!("{row}");
    }
    let missed = rows.iter().filter(|row| !row.is_met()).count();
    if missed > 0 {
        bail!("{missed} of {} figures missed their target", rows.len());
    }
    Ok(())
}
