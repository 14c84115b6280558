//! Running other programs: what is run is shown, and a failure says what failed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A cargo command in the root of the repository, with our tools in its path.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root()).env("PATH", path_with_tools());
    // What `cargo run` tells us of this package. Build scripts (ring's) ask to run again when it changes, so that each
    // turn from `cargo build` to `cargo xtask` and back would build half of the dependencies anew.
    let of_xtask = |name: &std::ffi::OsStr| {
        let name = name.to_string_lossy();
        name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
    };
    for (name, _) in std::env::vars_os().filter(|(name, _)| of_xtask(name)) {
        command.env_remove(name);
    }
    command
}

/// Runs a command with its output shown; fails if it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = describe(command);
    eprintln!("→ {line}");
    let status = command.status().with_context(|| format!("run {line}"))?;
    if !status.success() {
        bail!("{line}: {status}");
    }
    Ok(())
}

/// True if a command ends well; its output is thrown away.
pub(crate) fn succeeds(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).env("PATH", path_with_tools()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Where `setup` puts what cargo installs: `$ISTHMUS_TOOLS`, or `~/.local/isthmus-tools`.
pub(crate) fn tools() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".local/isthmus-tools");
    std::env::var_os("ISTHMUS_TOOLS").map_or_else(home, PathBuf::from)
}

fn path_with_tools() -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut parts: Vec<PathBuf> = std::env::split_paths(&path).collect();
    parts.push(tools().join("bin"));
    parts.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    std::env::join_paths(parts).unwrap_or(path)
}

fn describe(command: &Command) -> String {
    let mut words = vec![Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy()));
    words.join(" ")
}
