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
}

/// Measures with optimised programs.
pub(crate) fn bench(name: Name) -> Result<()> {
    setup::setup()?;
    run(&mut cargo(&["build", "--workspace", "--bins", "--release"]))?;
    let bench = match name {
        Name::FirstLight => "first-light",
    };
    run(&mut cargo(&["run", "--quiet", "--release", "--package", "e2e", "--bin", "lab-bench", "--", bench]))
}
