//! The shared libraries of a program, as the system's loader finds them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The loader and the libraries that a program needs; none for a static one. Fails if one is not found.
pub(crate) fn of(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).env("LC_ALL", "C").output().context("run ldd")?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if [&out, &err]
        .iter()
        .any(|text| text.contains("not a dynamic executable") || text.contains("statically linked"))
    {
        return Ok(Vec::new());
    }
    if !output.status.success() {
        bail!("ldd {}: {err}", program.display());
    }
    listed(&out).with_context(|| format!("libraries of {}", program.display()))
}

/// The paths in what `ldd` says.
fn listed(text: &str) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let found = line.split_once(" => ").map_or(line, |(_name, found)| found);
        let path = found.rsplit_once(" (").map_or(found, |(path, _address)| path);
        if path.starts_with('/') {
            paths.push(PathBuf::from(path));
        } else if !path.starts_with("linux-vdso") && !path.starts_with("linux-gate") {
            bail!("{line}");
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ldd_says() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x7f)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(listed(text).expect("found"), expected);
        assert!(listed("\tlibz.so.1 => not found\n").is_err());
    }
}
