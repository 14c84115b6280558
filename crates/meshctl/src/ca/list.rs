//! `meshctl ca list`.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::SystemTime;

use pki::authority::{Enrolment, Ledger};
use serde::Serialize;

use super::output::Output;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  meshctl ca list --dir /secure/authority -o json | jq -r '.clusters[].cluster'"
)]
pub(crate) struct Args {
    /// The authority's directory; its key is not needed
    #[arg(long, value_name = "AUTHORITY_DIR")]
    dir: PathBuf,
    /// Form of the output
    #[arg(short, long, default_value = "text")]
    output: Output,
}

/// Holds the JSON form. STABLE FORMAT: fields are only added.
#[derive(Serialize)]
struct Listing<'a> {
    trust_domain: String,
    root_spki_sha256: String,
    /// SHA-256 of the ledger's last line.
    ledger_head: String,
    clusters: Vec<Listed<'a>>,
}

#[derive(Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    enrolment: &'a Enrolment,
    state: &'static str,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let ledger = Ledger::open(&args.dir)?;
    let now = SystemTime::now();
    let listed = |enrolment| Listed { enrolment, state: ledger.state(enrolment, now).as_str() };
    let listing = Listing {
        trust_domain: ledger.trust_domain().to_string(),
        root_spki_sha256: ledger.root().to_string(),
        ledger_head: ledger.head().to_string(),
        clusters: ledger.current().map(listed).collect(),
    };
    args.output.print(&listing, || table(&listing))
}

fn table(listing: &Listing<'_>) -> String {
    let header =
        ["CLUSTER", "ID", "PODS", "NODES", "SERVICES", "VALID UNTIL", "KEY", "STATE"].map(str::to_owned);
    let rows = listing.clusters.iter().map(|Listed { enrolment, state }| {
        let request = &enrolment.request;
        [
            request.cluster.to_string(),
            request.id.to_string(),
            joined(&request.pod_cidrs),
            joined(request.node_cidrs.iter().chain(&request.shared_node_cidrs)),
            joined(&request.service_cidrs),
            enrolment.not_after.to_string(),
            enrolment.spki.short(),
            (*state).to_owned(),
        ]
    });
    let rows: Vec<[String; COLUMNS]> = std::iter::once(header).chain(rows).collect();
    let widths: Vec<usize> = (0..COLUMNS)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0))
        .collect();
    let line = |row: &[String; COLUMNS]| {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

pub(super) fn joined<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let joined = items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(",");
    if joined.is_empty() { "-".to_owned() } else { joined }
}

const COLUMNS: usize = 8;
