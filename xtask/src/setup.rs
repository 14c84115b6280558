//! What building and testing needs beside a Rust toolchain: found, or installed with a word on what it is for.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{cargo, run, succeeds, tools};

/// A Debian package, how to see that it is there, and what it is for.
struct Package {
    names: &'static [&'static str],
    present: Present,
    purpose: &'static str,
}

enum Present {
    File(&'static str),
    Program(&'static str),
}

const PACKAGES: [Package; 8] = [
    Package {
        names: &["rustc-web", "libstd-rust-web-dev-bpf"],
        present: Present::File("/usr/lib/rustlib/bpfel-unknown-none"),
        purpose: "compiles the BPF programs: Debian's rustc brings `core` for bpfel-unknown-none",
    },
    Package {
        names: &["llvm-22-dev"],
        present: Present::File("/usr/lib/llvm-22/bin/llvm-config"),
        purpose: "what bpf-linker is built with",
    },
    Package {
        names: &["etcd-server"],
        present: Present::Program("etcd"),
        purpose: "the real etcd, which our store is compared with",
    },
    Package {
        names: &["etcd-client"],
        present: Present::Program("etcdctl"),
        purpose: "a stock client of our hub's API",
    },
    Package {
        names: &["iproute2"],
        present: Present::Program("ip"),
        purpose: "network namespaces: the clusters of the lab",
    },
    Package { names: &["nftables"], present: Present::Program("nft"), purpose: "cutting links in the lab" },
    Package {
        names: &["openssl"],
        present: Present::Program("openssl"),
        purpose: "a second opinion on certificates",
    },
    Package {
        names: &["util-linux"],
        present: Present::Program("nsenter"),
        purpose: "entering the lab's namespaces",
    },
];

/// Something that cargo installs.
struct Tool {
    name: &'static str,
    version: &'static str,
    args: &'static [&'static str],
    probe: &'static [&'static str],
    purpose: &'static str,
}

const TOOLS: [Tool; 3] = [
    Tool {
        name: "bpf-linker",
        version: "=0.13.0",
        args: &["--no-default-features", "--features", "llvm-22"],
        probe: &["bpf-linker", "--version"],
        purpose: "links the BPF programs",
    },
    Tool {
        name: "cargo-nextest",
        version: "^0.9",
        args: &[],
        probe: &["cargo-nextest", "nextest", "--version"],
        purpose: "runs the tests",
    },
    Tool {
        name: "cargo-deny",
        version: "^0.20",
        args: &[],
        probe: &["cargo-deny", "--version"],
        purpose: "checks licences and sources of dependencies",
    },
];

/// Installs what is missing. Nothing is said, and nothing done, where all is there.
pub(crate) fn setup() -> Result<()> {
    packages()?;
    for tool in &TOOLS {
        install(tool)?;
    }
    bpffs()
}

/// Whether programs can be built for another target: with rustup's standard library for it, and this C compiler of a Debian
/// package. Installs what is missing. What cannot be had is said, and is no failure.
pub(crate) fn target(name: &str, compiler: &str, package: &str) -> bool {
    let library = || {
        let listed = Command::new("rustc").args(["--print", "target-libdir", "--target", name]).output();
        listed.is_ok_and(|listed| Path::new(String::from_utf8_lossy(&listed.stdout).trim()).is_dir())
    };
    let has_compiler = || succeeds(compiler, &["--version"]);
    let mut tries = Vec::new();
    if !library() {
        eprintln!("missing: the standard library for {name} (static programs)");
        let mut command = Command::new("rustup");
        command.args(["target", "add", name]);
        tries.push(command);
    }
    if !has_compiler() {
        eprintln!("missing: {package} (C compiler for {name})");
        let mut command = Command::new("apt-get");
        command.args(INSTALL).arg(package).env("DEBIAN_FRONTEND", "noninteractive");
        tries.push(command);
    }
    for mut command in tries {
        if let Err(error) = run(&mut command) {
            eprintln!("{error:#}");
        }
    }
    library() && has_compiler()
}

/// Maps and programs are pinned on a BPF file system; systemd mounts it, a bare machine may not have it.
fn bpffs() -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    if mounts.lines().any(|line| line.split(' ').nth(1) == Some(BPFFS)) {
        return Ok(());
    }
    eprintln!("missing: a BPF file system on {BPFFS} (where maps and programs are pinned)");
    run(Command::new("mount").args(["-t", "bpf", "bpf", BPFFS]))
}

const BPFFS: &str = "/sys/fs/bpf";
const INSTALL: [&str; 4] = ["-qq", "-y", "--no-install-recommends", "install"];

fn packages() -> Result<()> {
    let missing: Vec<&Package> = PACKAGES.iter().filter(|package| !package.present.holds()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for package in &missing {
        eprintln!("missing: {} ({})", package.names.join(" "), package.purpose);
    }
    let names: Vec<&str> = missing.iter().flat_map(|package| package.names).copied().collect();
    if !succeeds("apt-get", &["--version"]) {
        bail!("no apt-get here: install what is named above ({}) your distribution's way", names.join(" "));
    }
    run(Command::new("apt-get").args(["-qq", "update"]))?;
    run(Command::new("apt-get").args(INSTALL).args(&names).env("DEBIAN_FRONTEND", "noninteractive"))?;
    for package in missing {
        if !package.present.holds() {
            bail!(
                "{} installed, but {} is still not there",
                package.names.join(" "),
                package.present.describe()
            );
        }
    }
    Ok(())
}

fn install(tool: &Tool) -> Result<()> {
    let [program, args @ ..] = tool.probe else { return Ok(()) };
    if succeeds(program, args) {
        return Ok(());
    }
    let root = tools();
    eprintln!(
        "missing: {} ({}), built into {}; this takes a minute",
        tool.name,
        tool.purpose,
        root.display()
    );
    let mut command = cargo(&["install", "--quiet", "--locked", tool.name, "--version", tool.version]);
    // Outside the repository, so that its toolchain file and configuration do not count.
    command.args(tool.args).arg("--root").arg(&root).current_dir("/").env("LLVM_PREFIX", "/usr/lib/llvm-22");
    run(&mut command)
}

impl Present {
    fn holds(&self) -> bool {
        match self {
            Self::File(path) => Path::new(path).exists(),
            Self::Program(name) => ["/usr/local/bin", "/usr/bin", "/usr/sbin", "/bin", "/sbin"]
                .iter()
                .any(|dir| Path::new(dir).join(name).exists()),
        }
    }

    fn describe(&self) -> &str {
        match self {
            Self::File(path) => path,
            Self::Program(name) => name,
        }
    }
}
