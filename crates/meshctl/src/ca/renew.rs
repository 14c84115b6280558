//! `meshctl ca renew`.

use std::path::PathBuf;
use std::time::Duration;

use pki::Authority;
use topology::ClusterName;

use super::enrolled::{Key, finish, prepare};
use super::output::Output;
use super::parse_life;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    meshctl ca renew --dir /secure/authority --cluster paris --csr passport.csr --out paris\n\n\
    Name, id, addresses and hub names stay as they were enrolled; to change them, enroll again. The key is always a new\n\
    one. The older passport stays valid until it ends, so that leaves can be replaced without haste.")]
pub(crate) struct Args {
    /// The authority's directory
    #[arg(long, value_name = "AUTHORITY_DIR")]
    dir: PathBuf,
    /// The enrolled cluster
    #[arg(long)]
    cluster: ClusterName,
    #[command(flatten)]
    key: Key,
    /// Where passport.crt and ca.crt go (and passport.key, without --csr); made with mode 0700
    #[arg(long, value_name = "CLUSTER_DIR")]
    out: PathBuf,
    /// How long the passport is valid, never longer than the root: a number and m, h or d
    #[arg(long, default_value = "366d", value_parser = parse_life)]
    valid_for: Duration,
    /// Form of the output
    #[arg(short, long, default_value = "text")]
    output: Output,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let authority = Authority::open(&args.dir)?.with_passport_life(args.valid_for);
    prepare(&args.out, &args.cluster)?;
    let (signing, key) = args.key.request()?;
    let enrolled = authority.renew(&args.cluster, &signing)?;
    finish(&authority, &enrolled, key.as_ref(), &args.out, &[], args.output)
}
