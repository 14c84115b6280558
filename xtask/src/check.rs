//! Everything that can be said about the code without running it.

use anyhow::Result;

use crate::command::{cargo, run};
use crate::{layers, setup};

/// Formatting, imports, lints, documentation, licences; ends at the first that fails.
pub(crate) fn check() -> Result<()> {
    setup::setup()?;
    run(&mut cargo(&["fmt", "--all", "--check"]))?;
    let programs = ["fmt", "--manifest-path", "ebpf/programs/Cargo.toml", "--check"];
    run(&mut cargo(&programs))?;
    layers::check()?;
    run(&mut cargo(&["deny", "--log-level", "error", "check", "bans", "licenses", "sources"]))?;
    run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    run(cargo(&["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
}
