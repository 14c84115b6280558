//! The demo. Exit code 0 if everything that it claims held.

use std::process::ExitCode;

use clap::Parser;
use e2e::demo;

/// Three clusters on this machine, one global service, and what happens when a path is cut.
#[derive(Parser)]
#[command(name = "lab-demo")]
struct Cli {
    /// Leave everything running at the end, and print how to look inside.
    #[arg(long)]
    keep: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match demo::run(Cli::parse().keep).await {
        Ok(summary) => {
            println!("\nSummary: everything held");
            for line in summary.lines() {
                println!("  ok: {line}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("\nSummary: the demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}
