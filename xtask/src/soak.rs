//! The long forms of what `test` runs short.

use anyhow::{Result, bail};
use clap::builder::{PossibleValue, PossibleValuesParser};

use crate::command::{cargo, run};
use crate::setup;

/// One long run.
struct Soak {
    name: &'static str,
    /// What is run, as `--help` says it.
    what: &'static str,
    /// Which tests, as a nextest filter expression.
    filter: &'static str,
    /// What makes them long.
    env: &'static [(&'static str, &'static str)],
}

/// All of them, in the order in which `cargo xtask soak` runs them.
const SOAKS: [Soak; 1] = [Soak {
    name: "crash",
    what: "a writer of the store is killed at 200 moments; nothing acknowledged is lost, revisions only grow",
    filter: "package(kvstore) & test(killed_writer_loses_nothing)",
    env: &[("KVSTORE_CRASH_ROUNDS", "200")],
}];

/// The names that the command line takes.
pub(crate) fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(SOAKS.map(|soak| PossibleValue::new(soak.name).help(soak.what)))
}

/// Runs one, or all of them: each to its end, what it prints shown as it goes. Fails with the names of those that failed.
pub(crate) fn soak(name: Option<&str>) -> Result<()> {
    setup::setup()?;
    run(&mut cargo(&["build", "--workspace", "--bins"]))?;
    let chosen: Vec<&Soak> = SOAKS.iter().filter(|soak| name.is_none_or(|name| name == soak.name)).collect();
    let mut failed = Vec::new();
    for (n, soak) in chosen.iter().enumerate() {
        eprintln!("soak {} ({} of {}): {}", soak.name, n + 1, chosen.len(), soak.what);
        let arguments =
            ["nextest", "run", "--workspace", "--profile", "soak", "--no-capture", "-E", soak.filter];
        if let Err(error) = run(cargo(&arguments).envs(soak.env.iter().copied())) {
            eprintln!("soak {}: {error:#}", soak.name);
            failed.push(soak.name);
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}; one of them again: cargo xtask soak NAME", failed.join(", "));
    }
    Ok(())
}
