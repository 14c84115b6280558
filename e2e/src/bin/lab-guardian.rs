//! Looks after labs: removes the lab of an owner that died, and lists or removes labs by hand.

use std::io::stdin;

use anyhow::Result;
use clap::{Parser, Subcommand};
use e2e::guardian;
use e2e::remains::{self, Directory, Remains};
use e2e::site::{LabId, Site};

/// Guardian of labs (clusters as network namespaces).
#[derive(Parser)]
#[command(name = "lab-guardian")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Waits for the end of the owner on standard input, then removes the lab. Started by the lab itself.
    Watch {
        /// The lab.
        id: LabId,
    },
    /// Lists labs of which something exists.
    List,
    /// Removes labs: the one with this id, or all whose owner is gone.
    Clean {
        /// The lab; without it, every lab whose owner is gone and that was not meant to stay.
        id: Option<LabId>,
    },
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Watch { id } => guardian::watch(&Site::of(id)?, stdin().lock()),
        Command::List => {
            for id in remains::all()? {
                let site = Site::of(id.clone())?;
                let owner = if remains::has_owner(&site) { "runs" } else { "gone" };
                println!("{id} owner {owner}; {}; {}", site.dir().display(), Remains::of(&site)?);
            }
            Ok(())
        }
        Command::Clean { id: Some(id) } => {
            remains::remove(&Site::of(id.clone())?, Directory::Remove)?;
            println!("removed lab {id}");
            Ok(())
        }
        Command::Clean { id: None } => {
            for id in remains::sweep()? {
                println!("removed lab {id}");
            }
            Ok(())
        }
    }
}
