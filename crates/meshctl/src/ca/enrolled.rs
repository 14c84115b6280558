//! What `enroll`, `renew` and `attest` have in common: where the passport goes, and what is said about it.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use ipnet::IpNet;
use pki::authority::{EnrolRequest, Enrolled, HubAddress, Moment};
use pki::blocks::Blocks;
use pki::cluster_authority::{ClusterAuthority, PASSPORT, PASSPORT_KEY};
use pki::files::{AUTHORITIES, CertificateDer, DENY_LISTS, STATEMENTS};
use pki::key::{PrivateKey, SigningRequest};
use pki::{Authority, Passport, durable};
use serde::Serialize;
use topology::block::parse_block;
use topology::{ClusterId, ClusterName};

use super::KeyType;
use super::output::Output;

/// A cluster's claim, as flags.
#[derive(Debug, clap::Args)]
pub(super) struct Claim {
    /// The cluster's name: 1 to 32 of a-z, 0-9 and '-'
    #[arg(long)]
    pub(super) cluster: ClusterName,
    /// Its id in the mesh: 1 to 255 (511 where every member allows it)
    #[arg(long)]
    id: ClusterId,
    /// Addresses of its pods; repeat the flag or separate by commas
    #[arg(long, required = true, value_delimiter = ',', value_parser = parse_block)]
    pod_cidr: Vec<IpNet>,
    /// Addresses of its nodes
    #[arg(long, value_delimiter = ',', value_parser = parse_block)]
    node_cidr: Vec<IpNet>,
    /// Addresses of its nodes in a subnet that nodes of other clusters are in, too
    #[arg(long, value_delimiter = ',', value_parser = parse_block)]
    shared_node_cidr: Vec<IpNet>,
    /// Addresses of its services
    #[arg(long, value_delimiter = ',', value_parser = parse_block)]
    service_cidr: Vec<IpNet>,
    /// Address or DNS name of its hub, beside <cluster>.mesh.cilium.io
    #[arg(long, value_delimiter = ',')]
    hub_address: Vec<HubAddress>,
}

/// Where the key of a new passport is.
#[derive(Debug, clap::Args)]
pub(super) struct Key {
    /// A request made where the cluster's key lives (meshctl ca request); without it the key is made in --out, by this
    /// command, on this machine
    #[arg(long, value_name = "FILE")]
    csr: Option<PathBuf>,
    /// Algorithm of the key, without --csr
    #[arg(long, default_value = "p256", conflicts_with = "csr")]
    key_type: KeyType,
}

/// Holds the JSON form. STABLE FORMAT: fields are only added.
#[derive(Serialize)]
struct Report<'a> {
    cluster: &'a ClusterName,
    id: ClusterId,
    trust_domain: String,
    renewed: bool,
    addresses: String,
    not_after: Moment,
    spki_sha256: String,
    certificate_sha256: String,
    out: &'a Path,
    files: Vec<&'static str>,
    /// Overlaps that are allowed.
    notes: Vec<String>,
    ledger_head: String,
}

impl From<Claim> for EnrolRequest {
    fn from(claim: Claim) -> Self {
        Self {
            cluster: claim.cluster,
            id: claim.id,
            pod_cidrs: claim.pod_cidr,
            node_cidrs: claim.node_cidr,
            shared_node_cidrs: claim.shared_node_cidr,
            service_cidrs: claim.service_cidr,
            hub_addresses: claim.hub_address,
        }
    }
}

impl Key {
    /// The request to sign, and the key if it was made here.
    pub(super) fn request(&self) -> anyhow::Result<(SigningRequest, Option<PrivateKey>)> {
        match &self.csr {
            Some(path) => {
                let pem = read_request(path)?;
                Ok((SigningRequest::from_pem(&pem).with_context(|| path.display().to_string())?, None))
            }
            None => {
                let key = PrivateKey::generate(self.key_type.into())?;
                Ok((SigningRequest::from_pem(&key.request()?)?, Some(key)))
            }
        }
    }
}

/// Makes the directory for a cluster's passport. A slip of the hand must not lay one cluster's passport over another's.
pub(super) fn prepare(out: &Path, cluster: &ClusterName) -> anyhow::Result<()> {
    let path = out.join(PASSPORT);
    if path.exists() {
        let present = read_passport(&path)?.uri.cluster;
        if present != *cluster {
            bail!(
                "{} is the passport of cluster {present}, not of {cluster}; use another --out",
                path.display()
            );
        }
    }
    durable::private_dir(out).with_context(|| format!("make {}", out.display()))
}

/// Whose passport it is; its addresses may lie beside it and do not matter here.
fn read_passport(path: &Path) -> anyhow::Result<Passport> {
    let certificates = pki::files::read_certificates(path)?;
    let first = certificates.first().with_context(|| format!("{}: no certificate", path.display()))?;
    Passport::read_with_blocks(first, Blocks::default())
        .with_context(|| format!("{}: not a passport", path.display()))
}

/// A request is a few hundred bytes; whatever is far longer is another file.
pub(super) fn read_request(path: &Path) -> anyhow::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    let file = std::fs::File::open(path).with_context(|| format!("read {}", path.display()))?;
    file.take(64 << 10).read_to_string(&mut text).with_context(|| format!("read {}", path.display()))?;
    Ok(text)
}

/// Writes what an enrolment gave and says so. `more` are further authorities to accept.
pub(super) fn finish(
    authority: &Authority,
    enrolled: &Enrolled,
    key: Option<&PrivateKey>,
    out: &Path,
    more: &[CertificateDer<'static>],
    output: Output,
) -> anyhow::Result<()> {
    if let Some(key) = key {
        key.write(&out.join(PASSPORT_KEY))?;
    }
    authority.bundle()?.write_documents(out)?;
    let roots: Vec<_> = more.iter().chain([&enrolled.root]).cloned().collect();
    ClusterAuthority::write_passport(out, &enrolled.passport, &roots)?;
    let mut files = vec![PASSPORT, AUTHORITIES];
    files.extend([STATEMENTS, DENY_LISTS].into_iter().filter(|name| out.join(name).exists()));
    files.extend(key.map(|_| PASSPORT_KEY));
    let passport = &enrolled.passport;
    let report = Report {
        cluster: &passport.uri.cluster,
        id: passport.uri.id,
        trust_domain: passport.uri.trust_domain.to_string(),
        renewed: enrolled.renewed,
        addresses: passport.blocks.to_string(),
        not_after: passport.not_after.into(),
        spki_sha256: passport.spki.to_string(),
        certificate_sha256: passport.fingerprint.to_string(),
        out,
        files,
        notes: enrolled.notes.iter().map(ToString::to_string).collect(),
        ledger_head: enrolled.ledger_head.to_string(),
    };
    output.print(&report, || sentences(&report, key.is_some(), enrolled.statement.is_some()))
}

fn sentences(report: &Report<'_>, key_made: bool, stated: bool) -> String {
    let Report { cluster, id, trust_domain, addresses, not_after, ledger_head, .. } = report;
    let verb = if report.renewed { "renewed" } else { "enrolled" };
    let what = if stated { "passport of another authority, addresses stated" } else { "passport valid" };
    let written: Vec<&str> = report.files.iter().copied().filter(|name| *name != PASSPORT_KEY).collect();
    let (last, first) = written.split_last().map_or(("", &[][..]), |(last, first)| (*last, first));
    let mut text = format!(
        "{verb} cluster {cluster} (id {id}) in {trust_domain}: addresses {addresses}, {what} until {not_after}\n\
         wrote {} and {last} to {}",
        first.join(", "),
        report.out.display()
    );
    if key_made {
        text.push_str(&format!("\nmade {PASSPORT_KEY} there, on this machine, mode 0600: keep it secret, it speaks for the cluster"));
    }
    for note in &report.notes {
        text.push_str(&format!("\nnote: {note}: allowed"));
    }
    text.push_str(&format!("\nthe ledger ends in {ledger_head}: noted elsewhere, it proves later that nothing was changed (ca audit --since)"));
    text
}
