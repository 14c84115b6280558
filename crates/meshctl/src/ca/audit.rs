//! `meshctl ca audit`.

use std::path::PathBuf;

use pki::Fingerprint;
use pki::authority::{Audit, audit};
use pki::files::read_certificates;
use serde::Serialize;

use super::output::Output;
use crate::exit::Unsound;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    meshctl ca audit --dir /secure/authority --since 4f0c… --certificate paris/passport.crt --certificate tokyo/passport.crt\n\n\
    Reads ledger.jsonl, root.crt and deny-list.jsonl; no key and no network. Found are lines that were changed, put in between or\n\
    taken out (not one added at the end with the right hash), enrolments that should have been refused, and certificates given here that were signed past the ledger.\n\
    What was cut off at the end is found only with --since. Exit code 3 if anything is wrong.")]
pub(crate) struct Args {
    /// The authority's directory, or a copy without root.key
    #[arg(long, value_name = "AUTHORITY_DIR")]
    dir: PathBuf,
    /// A line's SHA-256, as enroll and audit print it, that was noted earlier
    #[arg(long, value_name = "SHA256")]
    since: Option<Fingerprint>,
    /// Passports as they are in use; repeat the flag
    #[arg(long, value_name = "FILE")]
    certificate: Vec<PathBuf>,
    /// Form of the output
    #[arg(short, long, default_value = "text")]
    output: Output,
}

/// Holds the JSON form. STABLE FORMAT: fields are only added.
#[derive(Serialize)]
struct Report {
    sound: bool,
    lines: usize,
    clusters: usize,
    head: String,
    chained_from: Option<usize>,
    findings: Vec<Finding>,
}

#[derive(Serialize)]
struct Finding {
    line: Option<usize>,
    what: String,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let mut presented = Vec::new();
    for path in &args.certificate {
        // The first is the passport; what follows may be its root.
        presented.extend(read_certificates(path)?.into_iter().take(1));
    }
    let audit = audit(&args.dir, args.since, &presented)?;
    let report = Report {
        sound: audit.is_sound(),
        lines: audit.lines,
        clusters: audit.clusters,
        head: audit.head.to_string(),
        chained_from: audit.chained_from,
        findings: audit
            .findings
            .iter()
            .map(|finding| Finding { line: finding.line, what: finding.flaw.to_string() })
            .collect(),
    };
    args.output.print(&report, || sentence(&audit))?;
    if audit.is_sound() {
        return Ok(());
    }
    Err(Unsound.into())
}

fn sentence(audit: &Audit) -> String {
    let Audit { lines, head, clusters, chained_from, findings } = audit;
    let unchained = match chained_from {
        Some(..=2) => String::new(),
        Some(first) => {
            format!("; lines before {first} name none before them, so a change there could not be seen")
        }
        None if *lines < 2 => String::new(),
        None => "; no line names the one before it, so a change could not be seen".to_owned(),
    };
    let verdict = if findings.is_empty() { "sound" } else { "NOT sound" };
    let found: String = findings.iter().map(|finding| format!("wrong: {finding}\n")).collect();
    format!("{found}{lines} lines, {clusters} clusters, {verdict}{unchained}\nthe ledger ends in {head}")
}
