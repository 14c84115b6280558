//! `meshctl ca init`.

use std::path::PathBuf;

use pki::{Authority, TrustDomain};
use serde::Serialize;

use super::KeyType;
use super::output::Output;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  meshctl ca init --dir /secure/authority --trust-domain mesh.example")]
pub(crate) struct Args {
    /// Directory for the root key and the ledger; made with mode 0700. Whoever has it can enrol clusters: keep it
    /// off the clusters, with a backup
    #[arg(long, value_name = "AUTHORITY_DIR")]
    dir: PathBuf,
    /// Name of the mesh in every certificate's URI, spiffe://<trust-domain>/…
    #[arg(long)]
    trust_domain: TrustDomain,
    /// Algorithm of the root key
    #[arg(long, default_value = "p256")]
    key_type: KeyType,
    /// Form of the output
    #[arg(short, long, default_value = "text")]
    output: Output,
}

/// Holds the JSON form. STABLE FORMAT: fields are only added.
#[derive(Serialize)]
struct Report {
    trust_domain: String,
    root_spki_sha256: String,
    dir: PathBuf,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let authority = Authority::init(&args.dir, args.trust_domain, args.key_type.into())?;
    let report = Report {
        trust_domain: authority.trust_domain().to_string(),
        root_spki_sha256: authority.ledger()?.root().to_string(),
        dir: args.dir,
    };
    args.output.print(&report, || {
        format!(
            "made the authority of {} in {}: root.key (keep it secret), root.crt, ledger.jsonl\nroot key SHA-256 {}",
            report.trust_domain,
            report.dir.display(),
            report.root_spki_sha256,
        )
    })
}
