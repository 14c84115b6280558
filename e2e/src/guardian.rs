//! The guardian: a process that outlives the test and cleans up after it, however it died.
//!
//! It holds the read end of a pipe whose write end only the owner has. When the owner ends in any way, the kernel closes
//! the write end; end of file without a word means: remove the lab. A lab that ended well, or is meant to stay, says so
//! first.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::remains::{self, Directory};
use crate::site::Site;

const DISMISSED: &[u8] = b"done";

/// The owner's side. Dropping it without [`Guardian::dismiss`] makes the guardian remove the lab.
#[derive(Debug)]
pub struct Guardian {
    child: Child,
}

impl Guardian {
    /// Starts the guardian of a lab. Its messages go to `guardian.log` in the lab's directory.
    pub fn post(program: &Path, site: &Site) -> Result<Self> {
        let path = site.dir().join("guardian.log");
        let log = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        let child = Command::new(program)
            .args(["watch", &site.id().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            // Neither a Ctrl-C at the owner's terminal nor a kill of its process group ends the guardian.
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        Ok(Self { child })
    }

    /// Tells it that nothing is left to do, and waits for its end.
    pub fn dismiss(&mut self) -> Result<()> {
        if let Some(mut pipe) = self.child.stdin.take() {
            // A guardian that is gone already is no failure: whoever ended it, there is nothing to dismiss.
            match pipe.write_all(DISMISSED) {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                    return Err(error).context("dismiss the guardian");
                }
                _ => {}
            }
        }
        self.child.wait().context("wait for the guardian")?;
        Ok(())
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

/// The guardian's side: waits for the owner's word or end on `pipe`, then does what is due.
pub fn watch(site: &Site, mut pipe: impl Read) -> Result<()> {
    let mut word = Vec::new();
    pipe.by_ref().take(64).read_to_end(&mut word).context("read from the owner")?;
    if word == DISMISSED {
        return Ok(());
    }
    let _lock = remains::lock()?;
    remains::remove(site, Directory::Leave)
}
