//! `meshctl ca revoke`.

use std::path::PathBuf;

use anyhow::Context;
use clap::ArgGroup;
use pki::Authority;
use pki::authority::{Revoked, Subject};
use pki::deny::Denied;
use pki::files::{DENY_LISTS, read_certificates};
use serde::Serialize;
use topology::ClusterName;

use super::output::Output;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    meshctl ca revoke --dir /secure/authority --cluster tokyo --reason \"passport key copied\"\n  \
    meshctl ca revoke --dir /secure/authority --certificate tls.crt --reason \"node n7 lost\"\n  \
    meshctl ca export-bundle --dir /secure/authority --out bundle    # the deny list, for every member\n\n\
    A revocation counts where the new deny-list.jsonl lies beside ca.crt: hubs then refuse what is on it, and close its\n\
    connections. A cluster keeps its name, id and addresses, and gets a new passport by renew; with --leave they become\n\
    free for others, which is safe once every member has the list.")]
#[command(group(ArgGroup::new("what").required(true).args(["cluster", "certificate"])))]
pub(crate) struct Args {
    /// The authority's directory
    #[arg(long, value_name = "AUTHORITY_DIR")]
    dir: PathBuf,
    /// All passports of this cluster, with every leaf below them
    #[arg(long)]
    cluster: Option<ClusterName>,
    /// One passport or leaf, as PEM; the first certificate counts
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// The cluster leaves the mesh: its name, id and addresses become free
    #[arg(long, conflicts_with = "certificate")]
    leave: bool,
    /// Deny the one certificate, not everything that its key is certified for
    #[arg(long, conflicts_with = "cluster")]
    keep_key: bool,
    /// Why, in a few words; refused peers are told
    #[arg(long, default_value = "")]
    reason: String,
    /// Form of the output
    #[arg(short, long, default_value = "text")]
    output: Output,
}

/// Holds the JSON form. STABLE FORMAT: fields are only added.
#[derive(Serialize)]
struct Report<'a> {
    denied: &'a [Denied],
    left: bool,
    list: u64,
    deny_list: PathBuf,
    ledger_head: String,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let authority = Authority::open(&args.dir)?;
    let certificates = match &args.certificate {
        Some(path) => read_certificates(path)?,
        None => Vec::new(),
    };
    let subject = match args.cluster {
        Some(name) => Subject::Cluster { name, leave: args.leave },
        None => {
            let der = certificates.first().context("no certificate")?;
            Subject::Certificate { der, keep_key: args.keep_key }
        }
    };
    let revoked = authority.revoke(&subject, &args.reason)?;
    let report = Report {
        denied: &revoked.denied,
        left: revoked.left,
        list: revoked.list,
        deny_list: args.dir.join(DENY_LISTS),
        ledger_head: revoked.ledger_head.to_string(),
    };
    args.output.print(&report, || sentences(&revoked, &report))
}

fn sentences(revoked: &Revoked, report: &Report<'_>) -> String {
    let mut text = String::new();
    for denied in &revoked.denied {
        text.push_str(&format!(
            "revoked {} of cluster {}, until {}\n",
            denied.target, denied.cluster, denied.until
        ));
    }
    if revoked.left {
        text.push_str("the cluster has left: its name, id and addresses are free\n");
    }
    text.push_str(&format!(
        "wrote deny list {} to {}: it counts where it lies beside ca.crt (ca export-bundle --out)",
        report.list,
        report.deny_list.display()
    ));
    text
}
