//! Measurements: each prints one row a target.

use anyhow::Result;
use clap::ValueEnum;

use crate::command::{cargo, run};
use crate::setup;

/// What can be measured.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Name {
    /// From a manifest to a map entry in another cluster; what connect() costs with and without us.
    FirstLight,
    /// The hub beside etcd: lists, fan-out, cold starts, restarts, durable puts; takes up to six minutes.
    Wire,
    /// A hub that follows an API server: 10 000 services, 100 000 endpoints, 1000 nodes.
    Source,
    /// What a connection costs in certificates: mutual handshakes, with both kinds of keys and a long deny list.
    Pki,
}

/// Measures with optimised programs. The arguments go to the benchmark.
pub(crate) fn bench(name: Name, args: &[String]) -> Result<()> {
    setup::setup()?;
    run(&mut cargo(&["build", "--workspace", "--bins", "--release"]))?;
    let bench = match name {
        Name::FirstLight => "first-light",
        Name::Wire => "wire",
        Name::Source => "source",
        Name::Pki => "pki",
    };
    // Not by --package: its own features would have half of the dependencies built anew.
    let mut command = cargo(&["run", "--quiet", "--release", "--bin", "lab-bench", "--", bench]);
    run(command.args(args))
}
