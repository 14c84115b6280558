//! Builds `ebpf/programs` for the BPF target and leaves the object in `$OUT_DIR/sock_lb.o`.
//!
//! The programs need another compiler than the rest: one with `core` for `bpfel-unknown-none`, and `bpf-linker`.
//! `BPF_RUSTC` and `BPF_LINKER` choose them; see `ebpf/README.md`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

/// What mends a machine without the BPF toolchain.
const REMEDY: &str = "run `cargo xtask setup`, which installs the BPF toolchain";

fn main() {
    if let Err(message) = build() {
        // One sentence: cargo prints it under the crate's name.
        eprintln!("{message}");
        exit(1);
    }
}

fn build() -> Result<(), String> {
    let manifest_dir = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out_dir = PathBuf::from(variable("OUT_DIR")?);
    let programs = manifest_dir.join("../programs");
    for name in ["BPF_RUSTC", "BPF_LINKER", "ISTHMUS_TOOLS"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    for path in [
        "../programs/Cargo.toml",
        "../programs/Cargo.lock",
        "../programs/src",
        "../types/Cargo.toml",
        "../types/src",
    ] {
        println!("cargo:rerun-if-changed={}", manifest_dir.join(path).display());
    }
    println!("cargo:rerun-if-changed=build.rs");

    let rustc = find_rustc()?;
    let linker = find_linker()?;
    let endian = variable("CARGO_CFG_TARGET_ENDIAN")?;
    let target = if endian == "big" { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };
    require_core(&rustc, target)?;

    let arch = variable("CARGO_CFG_TARGET_ARCH")?;
    let target_dir = out_dir.join("bpf-target");
    let flags = [
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        "-Cdebuginfo=2".to_owned(),
        format!("-Clinker={}", linker.display()),
        "-Clink-arg=--btf".to_owned(),
    ]
    .join("\u{1f}");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_from_outer_cargo) {
            cargo.env_remove(name);
        }
    }
    cargo
        .current_dir(&programs)
        .args(["build", "--release", "--locked", "--bins", "--target", target, "--target-dir"])
        .arg(&target_dir)
        .env("RUSTC", &rustc)
        // aya-ebpf names BPF registers in inline assembly, which a stable compiler allows only so.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags);
    let status = cargo.status().map_err(|error| format!("cannot run cargo for the BPF programs: {error}"))?;
    if !status.success() {
        return Err(format!("the BPF programs do not build ({status}); the compiler's messages are above"));
    }
    let built = target_dir.join(target).join("release/sock_lb");
    strip(&built, &out_dir.join("sock_lb.o"))
}

/// A variable that cargo sets for build scripts.
fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name} should be set by cargo: {error}"))
}

/// Whether the outer cargo exported this for its own build; the inner one must not inherit it.
fn is_from_outer_cargo(name: &str) -> bool {
    let prefixes =
        ["RUSTC", "CARGO_CFG_", "CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_FEATURE_", "CARGO_PROFILE_", "DEP_"];
    let names = [
        "RUSTFLAGS",
        "RUSTDOC",
        "RUSTDOCFLAGS",
        "RUSTUP_TOOLCHAIN",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_TARGET_DIR",
        "CARGO_BUILD_TARGET",
        "CARGO_BUILD_RUSTFLAGS",
        "CARGO_MAKEFLAGS",
        "CARGO_PRIMARY_PACKAGE",
        "CLIPPY_ARGS",
        "CLIPPY_CONF_DIR",
        "DEBUG",
        "HOST",
        "NUM_JOBS",
        "OPT_LEVEL",
        "OUT_DIR",
        "PROFILE",
        "TARGET",
    ];
    prefixes.iter().any(|prefix| name.starts_with(prefix)) || names.contains(&name)
}

fn find_rustc() -> Result<PathBuf, String> {
    let rustc = env::var_os("BPF_RUSTC").map_or_else(|| PathBuf::from("/usr/bin/rustc"), PathBuf::from);
    if Command::new(&rustc).arg("--version").output().is_ok_and(|output| output.status.success()) {
        return Ok(rustc);
    }
    Err(format!(
        "no compiler for the BPF programs at {} (BPF_RUSTC names another): {REMEDY}",
        rustc.display()
    ))
}

/// Fails if the compiler lacks `core` for the BPF target, which would end in a page of errors otherwise.
fn require_core(rustc: &Path, target: &str) -> Result<(), String> {
    let output = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", target])
        .output()
        .map_err(|error| format!("cannot run {}: {error}", rustc.display()))?;
    let libdir = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if output.status.success() && libdir.is_dir() {
        return Ok(());
    }
    Err(format!("{} has no core library for {target}: {REMEDY}", rustc.display()))
}

fn find_linker() -> Result<PathBuf, String> {
    if let Some(linker) = env::var_os("BPF_LINKER") {
        let linker = PathBuf::from(linker);
        return if linker.is_file() {
            Ok(linker)
        } else {
            Err(format!("BPF_LINKER names {}, which is not a file: {REMEDY}", linker.display()))
        };
    }
    let on_path =
        env::var_os("PATH").map(|path| env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    let tools = env::var_os("ISTHMUS_TOOLS").map(|dir| PathBuf::from(dir).join("bin"));
    let home = env::var_os("HOME").map(|dir| PathBuf::from(dir).join(".local/isthmus-tools/bin"));
    on_path
        .into_iter()
        .chain(tools)
        .chain(home)
        .map(|dir| dir.join("bpf-linker"))
        .find(|path| path.is_file())
        .ok_or_else(|| format!("bpf-linker is neither in PATH nor in ~/.local/isthmus-tools/bin: {REMEDY}"))
}

/// Copies the object without DWARF (BTF stays); without a `llvm-strip` as it is, which only costs space.
fn strip(built: &Path, object: &Path) -> Result<(), String> {
    for tool in ["/usr/lib/llvm-22/bin/llvm-strip", "llvm-strip"] {
        let stripped = Command::new(tool).arg("-g").arg("-o").arg(object).arg(built).status();
        if stripped.is_ok_and(|status| status.success()) {
            return Ok(());
        }
    }
    std::fs::copy(built, object)
        .map(|_| ())
        .map_err(|error| format!("cannot copy {} to {}: {error}", built.display(), object.display()))
}
