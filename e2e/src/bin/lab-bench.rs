//! Benchmarks of whole programs. Exit code 1 if a target is missed.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use e2e::bench;

/// Benchmarks of the daemons as they are shipped.
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
    /// The hub beside etcd: lists, fan-out, cold starts, restarts, durable puts.
    Wire(bench::wire::Options),
    /// A hub that follows an API server with a large cluster: list to published, memory, single changes.
    Source(bench::source::Options),
    /// What a connection costs in certificates: mutual handshakes with both kinds of keys, and with a long deny list.
    Pki(bench::pki::Options),
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    // The text of each figure, and whether its target is met.
    let figures: Vec<(String, bool)> = match Cli::parse().bench {
        Bench::FirstLight { changes } => {
            let rows = bench::first_light(changes).await?;
            rows.iter().map(|row| (row.to_string(), row.is_met())).collect()
        }
        Bench::Wire(options) => {
            let lines = bench::wire::wire(&options).await?;
            lines.iter().map(|line| (line.to_string(), line.is_met())).collect()
        }
        Bench::Source(options) => {
            let rows = bench::source::source(&options).await?;
            rows.iter().map(|row| (row.to_string(), row.is_met())).collect()
        }
        Bench::Pki(options) => {
            let rows = tokio::task::spawn_blocking(move || bench::pki::pki(&options)).await??;
            rows.iter().map(|row| (row.to_string(), row.is_met())).collect()
        }
    };
    for (text, _) in &figures {
        println!("{text}");
    }
    let missed = figures.iter().filter(|(_, is_met)| !is_met).count();
    if missed > 0 {
        eprintln!("{missed} of {} figures missed their target", figures.len());
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
