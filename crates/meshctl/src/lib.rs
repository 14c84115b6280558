//! `meshctl`: what an operator of a mesh types.
//!
//! ```text
//! meshctl ca init          a new mesh: root key and ledger                    -> AUTHORITY_DIR
//! meshctl ca request       a key for a cluster, and a request to sign it      -> CLUSTER_DIR
//! meshctl ca enroll        a passport for a cluster, unless it collides       -> CLUSTER_DIR
//! meshctl ca leaf          a certificate for a hub, an agent, an operator     -> a directory like a Secret's
//! meshctl ca renew         a new passport for an enrolled cluster             -> CLUSTER_DIR
//! meshctl ca attest        addresses for another authority's passport         -> CLUSTER_DIR
//! meshctl ca list, show    what is enrolled
//! meshctl ca revoke        the deny list of what no longer counts
//! meshctl ca audit         whether the ledger can be what happened
//! meshctl ca export-bundle the root, the deny list and the statements, for all members
//! meshctl install          hub and agents into a cluster, or their objects as text
//! meshctl uninstall        takes away what install made, and nothing else
//! ```
//!
//! Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 failed, 2 wrong usage,
//! 3 refused by a rule of the mesh (nothing was changed), or, of `ca audit`, something is wrong.

mod ca;
mod cluster;
mod exit;
pub mod install;
mod uninstall;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Operates an Isthmus mesh.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES, max_term_width = 110)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Certificates: the mesh's root, passports of clusters, leaves of nodes
    #[command(subcommand)]
    Ca(ca::Command),
    /// Install hub and agents into a cluster, or print what would be
    Install(Box<install::Args>),
    /// Take away what install made: agents, then the hub, and nothing else
    Uninstall(uninstall::Args),
}

/// Runs one command and reports its outcome as an exit code; errors are printed to standard error.
pub fn run(args: Args) -> ExitCode {
    let outcome = match args.command {
        Command::Ca(command) => ca::run(command),
        Command::Install(args) => install::run(&args),
        Command::Uninstall(args) => uninstall::run(&args),
    };
    exit::report(outcome)
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused by a rule of the mesh (nothing was changed) or found wrong by an audit";
