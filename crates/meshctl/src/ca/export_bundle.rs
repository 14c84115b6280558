//! `meshctl ca export-bundle`.

use std::path::PathBuf;

use anyhow::Context;
use pki::files::certificates_pem;
use pki::{Authority, durable};
use serde::Serialize;

use super::output::Output;
use crate::exit::print;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  meshctl ca export-bundle --dir /secure/authority > ca.crt\n  \
    meshctl ca export-bundle --dir /secure/authority --out bundle    # ca.crt, deny-list.jsonl, block-statements.jsonl\n\n\
    The files of --out belong beside tls.crt and tls.key of every hub and agent, or under the same names into its Secret.\n\
    Nothing in them is secret; the last two are there only if something was revoked, or stated.")]
pub(crate) struct Args {
    /// The authority's directory
    #[arg(long, value_name = "AUTHORITY_DIR")]
    dir: PathBuf,
    /// Write the files here instead of printing the root; made with mode 0700
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Form of the output
    #[arg(short, long, default_value = "text")]
    output: Output,
}

/// Holds the JSON form. STABLE FORMAT: fields are only added.
#[derive(Serialize)]
struct Report {
    trust_domain: String,
    /// PEM.
    roots: String,
    /// Signed documents, one a line; empty if there are none.
    deny_lists: String,
    block_statements: String,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let authority = Authority::open(&args.dir)?;
    let bundle = authority.bundle()?;
    let report = Report {
        trust_domain: authority.trust_domain().to_string(),
        roots: certificates_pem(&bundle.roots),
        deny_lists: bundle.deny_lists.clone(),
        block_statements: bundle.statements.clone(),
    };
    let Some(out) = &args.out else {
        return args.output.print(&report, || report.roots.trim_end().to_owned());
    };
    durable::private_dir(out).with_context(|| format!("make {}", out.display()))?;
    bundle.write(out)?;
    // A list that a crash kept from being written is written here.
    bundle.write_documents(&args.dir)?;
    match args.output {
        Output::Text => print(&format!("wrote the bundle of {} to {}", report.trust_domain, out.display())),
        Output::Json => args.output.print(&report, String::new),
    }
}
