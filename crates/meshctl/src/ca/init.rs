//! `meshctl ca init`.

use std::path::PathBuf;

use pki::{Authority, TrustDomain};

use super::KeyType;
use crate::exit::print;

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
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let authority = Authority::init(&args.dir, args.trust_domain, args.key_type.into())?;
    let root = authority.ledger()?.root();
    print(&format!(
        "made the authority of {} in {}: root.key (keep it secret), root.crt, ledger.jsonl\nroot key SHA-256 {root}",
        authority.trust_domain(),
        args.dir.display(),
    ))
}
