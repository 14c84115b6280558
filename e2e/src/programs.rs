//! Where the binaries are that a lab starts.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Names a directory with the daemons, instead of the one beside the running test.
pub const BIN_DIR_VARIABLE: &str = "ISTHMUS_BIN_DIR";

/// Finds binaries: first in `ISTHMUS_BIN_DIR`, then beside the running program (for a test: its target directory).
#[derive(Clone, Debug)]
pub struct Programs {
    places: Vec<PathBuf>,
}

impl Programs {
    /// Looks up the places once.
    pub fn locate() -> Result<Self> {
        let exe = env::current_exe().context("path of the running program")?;
        let beside = exe.parent().unwrap_or_else(|| Path::new("."));
        // A test binary lies in target/debug/deps, what it starts in target/debug.
        let beside = if beside.ends_with("deps") { beside.parent().unwrap_or(beside) } else { beside };
        let mut places: Vec<PathBuf> = env::var_os(BIN_DIR_VARIABLE).map(PathBuf::from).into_iter().collect();
        places.push(beside.to_owned());
        Ok(Self { places })
    }

    /// The path of a binary that this package makes (`lab-pod`, `lab-guardian`).
    pub fn own(&self, name: &str) -> Result<PathBuf> {
        self.find(name, "e2e --bins")
    }

    /// The path of a daemon or of meshctl: binaries named as their packages.
    pub fn daemon(&self, name: &str) -> Result<PathBuf> {
        self.find(name, name)
    }

    /// Fails unless all of these are there, with the one command that builds what is missing.
    pub fn ensure_daemons(&self, names: &[&str]) -> Result<()> {
        let missing: Vec<&str> = names.iter().copied().filter(|name| self.daemon(name).is_err()).collect();
        if let Some(first) = missing.first() {
            let packages = missing.join(" -p ");
            return self.find(first, &packages).map(drop);
        }
        Ok(())
    }

    fn find(&self, name: &str, package: &str) -> Result<PathBuf> {
        for place in &self.places {
            let path = place.join(name);
            if path.is_file() {
                return path.canonicalize().with_context(|| format!("resolve {}", path.display()));
            }
        }
        let places: Vec<_> = self.places.iter().map(|place| place.display().to_string()).collect();
        bail!(
            "no {name} in {}; build it with: cargo build -p {package} (or set {BIN_DIR_VARIABLE})",
            places.join(" or ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_binary_says_what_to_build() {
        let programs = Programs { places: vec![PathBuf::from("/nonexistent")] };
        let error = programs.daemon("mesh-agent").expect_err("nothing there").to_string();
        assert!(error.contains("cargo build -p mesh-agent"), "{error}");
        let error =
            programs.ensure_daemons(&["mesh-agent", "meshctl"]).expect_err("nothing there").to_string();
        assert!(error.contains("cargo build -p mesh-agent -p meshctl"), "{error}");
    }
}
