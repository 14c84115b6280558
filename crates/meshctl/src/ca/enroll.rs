//! `meshctl ca enroll`.

use std::path::PathBuf;
use std::time::Duration;

use pki::Authority;
use pki::authority::EnrolRequest;

use super::enrolled::{Claim, Key, finish, prepare};
use super::output::Output;
use super::parse_life;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    meshctl ca enroll --dir /secure/authority --cluster paris --id 1 \\\n    \
    --pod-cidr 10.1.0.0/16,fd00:10:1::/48 --node-cidr 192.168.1.0/24 --service-cidr 10.96.0.0/12 \\\n    \
    --hub-address hub.paris.example --out /etc/isthmus/paris\n\n\
    Equal names, equal ids and colliding pod and node blocks are refused (exit code 3); equal service blocks are\n\
    normal and only reported. Enrolling a cluster again with its name and id renews its passport, with a new key.")]
pub(crate) struct Args {
    /// The authority's directory (meshctl ca init)
    #[arg(long, value_name = "AUTHORITY_DIR")]
    dir: PathBuf,
    #[command(flatten)]
    claim: Claim,
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

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let authority = Authority::open(&args.dir)?.with_passport_life(args.valid_for);
    prepare(&args.out, &args.claim.cluster)?;
    let request = EnrolRequest::from(args.claim);
    let (signing, key) = args.key.request()?;
    let enrolled = authority.enroll(&request, &signing)?;
    finish(&authority, &enrolled, key.as_ref(), &args.out, &[], args.output)
}
