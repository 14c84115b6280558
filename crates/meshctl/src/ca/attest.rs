//! `meshctl ca attest`.

use std::path::PathBuf;

use anyhow::Context;
use pki::Authority;
use pki::authority::EnrolRequest;
use pki::files::read_certificates;

use super::enrolled::{Claim, finish, prepare};
use super::output::Output;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    meshctl ca attest --dir /secure/authority --certificate passport.crt --organisation-ca organisation.crt \\\n    \
    --cluster tokyo --id 2 --pod-cidr 10.2.0.0/16 --out tokyo\n\n\
    For an organisation's own authority that cannot write address blocks (RFC 3779) into a certificate. The certificate\n\
    must be a passport otherwise: a CA with path length 0, the URI spiffe://<trust-domain>/cluster/<name>/id/<id>, and\n\
    permitted DNS names, IPv4 and IPv6 addresses, none beyond the flags. The addresses are signed beside it, for its key\n\
    alone, after the same check as in enroll. Whoever judges the cluster needs ca.crt and block-statements.jsonl.")]
pub(crate) struct Args {
    /// The authority's directory
    #[arg(long, value_name = "AUTHORITY_DIR")]
    dir: PathBuf,
    /// The passport that the organisation's authority signed, as PEM; the first certificate counts
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
    /// Root certificates of that authority; they go into ca.crt, with the mesh's
    #[arg(long, value_name = "FILE")]
    organisation_ca: PathBuf,
    #[command(flatten)]
    claim: Claim,
    /// Where passport.crt, ca.crt and block-statements.jsonl go; made with mode 0700
    #[arg(long, value_name = "CLUSTER_DIR")]
    out: PathBuf,
    /// Form of the output
    #[arg(short, long, default_value = "text")]
    output: Output,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let authority = Authority::open(&args.dir)?;
    let certificates = read_certificates(&args.certificate)?;
    let first =
        certificates.first().with_context(|| format!("{}: no certificate", args.certificate.display()))?;
    let organisation = read_certificates(&args.organisation_ca)?;
    prepare(&args.out, &args.claim.cluster)?;
    let enrolled = authority.attest(&EnrolRequest::from(args.claim), first)?;
    finish(&authority, &enrolled, None, &args.out, &organisation, args.output)
}
