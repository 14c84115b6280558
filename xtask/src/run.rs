//! Building, and running what was built.

use anyhow::Result;

use crate::command::{cargo, run};
use crate::setup;

/// All tests. The lab starts the daemons as programs, so they are built first.
pub(crate) fn test(args: &[String]) -> Result<()> {
    setup::setup()?;
    run(&mut cargo(&["build", "--workspace", "--bins"]))?;
    run(cargo(&["nextest", "run", "--workspace", "--no-tests=warn"]).args(args))?;
    if args.is_empty() {
        run(&mut cargo(&["test", "--workspace", "--doc", "--quiet"]))?;
    }
    Ok(())
}

/// The demo.
pub(crate) fn demo(args: &[String]) -> Result<()> {
    setup::setup()?;
    run(&mut cargo(&["build", "--workspace", "--bins"]))?;
    run(cargo(&["run", "--quiet", "--bin", "lab-demo", "--"]).args(args))
}
