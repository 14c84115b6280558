//! `cargo xtask`: one word for each thing that is done with this repository. CI uses the same words.

mod bench;
mod check;
mod command;
mod image;
mod layers;
mod run;
mod setup;
mod soak;

use clap::{Parser, Subcommand};

/// Everything that is done with this repository, in one word each.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    word: Word,
}

#[derive(Subcommand)]
enum Word {
    /// Install what is missing on Debian or Ubuntu, and say what it is for.
    Setup,
    /// Formatting, lints, documentation, licences, and who imports whom.
    Check,
    /// All tests: unit, property, story, kernel and lab. Arguments go to nextest.
    Test {
        /// Such as `-p topology`, or a part of a test's name.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// The long form of what `test` runs short; without a name, all of it.
    Soak {
        /// Which.
        #[arg(value_parser = soak::names())]
        name: Option<String>,
    },
    /// Three clusters on this machine, one global service, a cut and a recovery.
    Demo {
        /// Arguments of the demo itself, such as `--keep`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Measure, and print a row for each target; ends with 1 if one is missed.
    Bench {
        /// Which: see `cargo xtask bench --help`.
        name: bench::Name,
        /// Arguments of the benchmark itself, such as `--quick`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// OCI archives of hub, agent and meshctl, without a daemon.
    Image(image::Args),
    /// What CI does: check, then test.
    Ci,
}

fn main() -> anyhow::Result<()> {
    match Args::parse().word {
        Word::Setup => setup::setup(),
        Word::Check => check::check(),
        Word::Test { args } => run::test(&args),
        Word::Soak { name } => soak::soak(name.as_deref()),
        Word::Demo { args } => run::demo(&args),
        Word::Bench { name, args } => bench::bench(name, &args),
        Word::Image(args) => image::image(&args),
        Word::Ci => {
            check::check()?;
            run::test(&[])
        }
    }
}
