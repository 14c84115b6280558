//! `meshctl ca show`.

use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::bail;
use pki::authority::{Enrolment, Ledger};
use pki::deny::Denied;
use serde::Serialize;
use topology::ClusterName;

use super::output::Output;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  meshctl ca show --dir /secure/authority --cluster paris\n  \
    meshctl ca show --dir /secure/authority --cluster paris -o json | jq -r '.passports[] | .state + \" \" + .serial'")]
pub(crate) struct Args {
    /// The authority's directory; its key is not needed
    #[arg(long, value_name = "AUTHORITY_DIR")]
    dir: PathBuf,
    /// The cluster
    #[arg(long)]
    cluster: ClusterName,
    /// Form of the output
    #[arg(short, long, default_value = "text")]
    output: Output,
}

/// Holds the JSON form. STABLE FORMAT: fields are only added.
#[derive(Serialize)]
struct Report<'a> {
    cluster: &'a ClusterName,
    /// False if it has left: its name, id and addresses are free.
    enrolled: bool,
    /// In the order in which they were signed.
    passports: Vec<Passport<'a>>,
    revocations: Vec<&'a Denied>,
}

#[derive(Serialize)]
struct Passport<'a> {
    #[serde(flatten)]
    enrolment: &'a Enrolment,
    state: &'static str,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let ledger = Ledger::open(&args.dir)?;
    let now = SystemTime::now();
    let of_cluster = |enrolment: &&Enrolment| enrolment.request.cluster == args.cluster;
    let report = Report {
        cluster: &args.cluster,
        enrolled: ledger.of(&args.cluster).is_some(),
        passports: ledger
            .enrolments()
            .iter()
            .filter(of_cluster)
            .map(|enrolment| Passport { enrolment, state: ledger.state(enrolment, now).as_str() })
            .collect(),
        revocations: ledger.revocations().iter().filter(|denied| denied.cluster == args.cluster).collect(),
    };
    if report.passports.is_empty() {
        bail!("cluster {} was never enrolled here; `meshctl ca list` shows which are", args.cluster);
    }
    args.output.print(&report, || sentences(&report))
}

fn sentences(report: &Report<'_>) -> String {
    let mut lines = vec![match report.enrolled {
        true => format!("cluster {}", report.cluster),
        false => format!("cluster {}, which has left: its name, id and addresses are free", report.cluster),
    }];
    if let Some(Passport { enrolment, .. }) = report.passports.last() {
        let request = &enrolment.request;
        lines.push(format!("  id           {}", request.id));
        for (name, values) in [
            ("pods", super::list::joined(&request.pod_cidrs)),
            ("nodes", super::list::joined(&request.node_cidrs)),
            ("shared nodes", super::list::joined(&request.shared_node_cidrs)),
            ("services", super::list::joined(&request.service_cidrs)),
            ("hub", super::list::joined(&request.hub_addresses)),
        ] {
            lines.push(format!("  {name:<12} {values}"));
        }
    }
    for Passport { enrolment, state } in &report.passports {
        lines.push(format!(
            "  passport     {state}, signed {}, until {}, serial {}, key {}{}",
            enrolment.at,
            enrolment.not_after,
            enrolment.serial,
            enrolment.spki.short(),
            if enrolment.attested { ", by another authority" } else { "" },
        ));
    }
    for denied in &report.revocations {
        let reason = if denied.reason.is_empty() { "no reason given" } else { &denied.reason };
        lines.push(format!(
            "  revoked      {} at {} ({reason}), until {}",
            denied.target, denied.at, denied.until
        ));
    }
    lines.join("\n")
}
