//! OCI archives of the programs, made without a daemon: `skopeo copy oci-archive:…`, `podman load`, `ctr images import` and
//! `crane push` take them.
//!
//! * [`archive`]: from files to an archive; the same files give the same bytes.
//! * [`libraries`]: what a program that is not static needs beside it.

mod archive;
mod libraries;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use self::archive::{Image, Item};
use crate::command::{cargo, root, run};
use crate::setup;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the archives go.
    #[arg(long, default_value = "target/images")]
    out: PathBuf,
    /// Their tag.
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    tag: String,
    /// What to build for [default: x86_64-unknown-linux-musl, which gives static programs; this machine where that cannot be had]
    #[arg(long, conflicts_with = "from")]
    target: Option<String>,
    /// How to build: `dev` is done sooner, and is large and slow
    #[arg(long, conflicts_with = "from", default_value = "release", value_parser = ["release", "dev"])]
    profile: String,
    /// Take programs from this folder, and build nothing.
    #[arg(long)]
    from: Option<PathBuf>,
}

/// One image.
struct Program {
    /// Its name, and that of the program that it starts.
    name: &'static str,
    /// Further programs in it.
    more: &'static [&'static str],
    /// User and group.
    user: &'static str,
}

const PROGRAMS: [Program; 3] = [
    Program { name: "mesh-apiserver", more: &[], user: NOBODY },
    // Root owns the BPF file system. It needs two capabilities, and the manifests give it no other.
    Program { name: "mesh-agent", more: &["mesh-agent-cleanup"], user: "0:0" },
    Program { name: "meshctl", more: &[], user: NOBODY },
];

const NOBODY: &str = "65532:65532";
const MUSL: &str = "x86_64-unknown-linux-musl";

/// Builds what is to be built, and writes an archive for each program.
pub(crate) fn image(args: &Args) -> Result<()> {
    let programs = match &args.from {
        Some(folder) => folder.clone(),
        None => build(args)?,
    };
    let out = root().join(&args.out);
    std::fs::create_dir_all(&out).with_context(|| format!("make {}", out.display()))?;
    for program in &PROGRAMS {
        let image = read(program, &programs, &args.tag)?;
        let linked = if image.files.keys().any(|path| path.contains(".so")) {
            "with shared libraries"
        } else {
            "static"
        };
        let packed = archive::pack(&image)?;
        let path = out.join(format!("{}-{}.oci.tar", program.name, args.tag));
        std::fs::write(&path, &packed.bytes).with_context(|| format!("write {}", path.display()))?;
        println!("{} {} ({linked}, {} MiB)", path.display(), packed.digest, packed.bytes.len() >> 20);
    }
    Ok(())
}

/// Builds the programs; gives their folder.
fn build(args: &Args) -> Result<PathBuf> {
    setup::setup()?;
    let target = match &args.target {
        Some(target) => Some(target.clone()),
        None if cfg!(target_arch = "x86_64") && setup::target(MUSL, "musl-gcc", "musl-tools") => {
            Some(MUSL.to_owned())
        }
        None => {
            eprintln!("not static: the shared libraries of this machine go with the programs");
            None
        }
    };
    let packages = ["-p", "mesh-apiserver", "-p", "mesh-agent", "-p", "meshctl"];
    let mut command = cargo(&["build", "--bins", "--profile", &args.profile]);
    command.args(packages);
    command.env(format!("CARGO_PROFILE_{}_STRIP", args.profile.to_uppercase()), "debuginfo");
    if let Some(target) = &target {
        command.args(["--target", target]);
    }
    run(&mut command)?;
    let target_dir =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let folder = if args.profile == "dev" { "debug" } else { &args.profile };
    Ok(target.map_or_else(|| target_dir.clone(), |target| target_dir.join(target)).join(folder))
}

fn read(program: &Program, folder: &Path, tag: &str) -> Result<Image> {
    let mut files = BTreeMap::new();
    for name in [program.name].iter().chain(program.more) {
        let path = folder.join(name);
        let content = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        for library in libraries::of(&path)? {
            let content = std::fs::read(&library).with_context(|| format!("read {}", library.display()))?;
            let Some(inside) = library.to_str().and_then(|path| path.strip_prefix('/')) else {
                bail!("{}: not an absolute path of UTF-8", library.display());
            };
            files.insert(inside.to_owned(), Item { mode: 0o755, content });
        }
        files.insert(format!("usr/bin/{name}"), Item { mode: 0o755, content });
    }
    let users = "root:x:0:0::/:/sbin/nologin\nnonroot:x:65532:65532::/:/sbin/nologin\n";
    files.insert("etc/passwd".to_owned(), Item { mode: 0o644, content: users.as_bytes().to_vec() });
    files.insert(
        "etc/group".to_owned(),
        Item { mode: 0o644, content: b"root:x:0:\nnonroot:x:65532:\n".to_vec() },
    );
    Ok(Image {
        name: format!("isthmus/{}", program.name),
        tag: tag.to_owned(),
        architecture: architecture(),
        user: program.user.to_owned(),
        entrypoint: format!("/usr/bin/{}", program.name),
        files,
    })
}

/// As OCI calls it.
fn architecture() -> String {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
    .to_owned()
}

#[cfg(test)]
mod tests;
