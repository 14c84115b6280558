//! `meshctl ca list`.

use std::fmt::Display;
use std::path::PathBuf;

use clap::ValueEnum;
use pki::Authority;
use pki::authority::{Enrolment, Ledger};
use serde::Serialize;

use crate::exit::print;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  meshctl ca list --dir /secure/authority -o json | jq -r '.clusters[].cluster'"
)]
pub(crate) struct Args {
    /// The authority's directory
    #[arg(long, value_name = "AUTHORITY_DIR")]
    dir: PathBuf,
    /// Form of the output
    #[arg(short, long, default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Aligned columns
    Table,
    /// One JSON object
    Json,
}

/// Holds the JSON form. STABLE FORMAT: fields are only added.
#[derive(Serialize)]
struct Listing<'a> {
    trust_domain: String,
    root_spki_sha256: String,
    clusters: Vec<&'a Enrolment>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let ledger = Authority::open(&args.dir)?.ledger()?;
    match args.output {
        Output::Json => print(&serde_json::to_string_pretty(&Listing {
            trust_domain: ledger.trust_domain().to_string(),
            root_spki_sha256: ledger.root().to_string(),
            clusters: ledger.current().collect(),
        })?),
        Output::Table => print(&table(&ledger)),
    }
}

fn table(ledger: &Ledger) -> String {
    let header = ["CLUSTER", "ID", "PODS", "NODES", "SERVICES", "VALID UNTIL", "KEY"].map(str::to_owned);
    let rows = ledger.current().map(|enrolment| {
        let request = &enrolment.request;
        [
            request.cluster.to_string(),
            request.id.to_string(),
            joined(&request.pod_cidrs),
            joined(request.node_cidrs.iter().chain(&request.shared_node_cidrs)),
            joined(&request.service_cidrs),
            enrolment.not_after.to_string(),
            enrolment.spki.short(),
        ]
    });
    let rows: Vec<[String; 7]> = std::iter::once(header).chain(rows).collect();
    let widths: Vec<usize> = (0..7)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0))
        .collect();
    let line = |row: &[String; 7]| {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn joined<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let joined = items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(",");
    if joined.is_empty() { "-".to_owned() } else { joined }
}
