//! The operator's command line.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    meshctl::run(meshctl::Args::parse())
}
