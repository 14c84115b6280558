//! `meshctl ca enroll`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use ipnet::IpNet;
use pki::authority::{EnrolRequest, Enrolled, HubAddress, Moment};
use pki::cluster_authority::{ClusterAuthority, PASSPORT, PASSPORT_KEY};
use pki::key::{PrivateKey, SigningRequest};
use pki::{Authority, Passport, durable};
use topology::block::parse_block;
use topology::{ClusterId, ClusterName};

use super::{KeyType, parse_life};
use crate::exit::print;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    meshctl ca enroll --dir /secure/authority --cluster paris --id 1 \\\n    \
    --pod-cidr 10.1.0.0/16,fd00:10:1::/48 --node-cidr 192.168.1.0/24 --service-cidr 10.96.0.0/12 \\\n    \
    --hub-address hub.paris.example --out /etc/isthmus/paris\n\n\
    Equal names, equal ids and colliding pod and node blocks are refused (exit code 3); equal service blocks are\n\
    normal and only reported. Enrolling a cluster again with its name and id renews its passport, with a new key.")]
pub(crate) struct Args {
    /// The authority's directory (meshctl ca init)
    #[arg(long, value_name = "AUTHORITY_DIR")]
    dir: PathBuf,
    /// The cluster's name: 1 to 32 of a-z, 0-9 and '-'
    #[arg(long)]
    cluster: ClusterName,
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
    /// A request made where the cluster's key lives (meshctl ca request); without it the key is made in --out, by this
    /// command, on this machine
    #[arg(long, value_name = "FILE")]
    csr: Option<PathBuf>,
    /// Where passport.crt and ca.crt go (and passport.key, without --csr); made with mode 0700
    #[arg(long, value_name = "CLUSTER_DIR")]
    out: PathBuf,
    /// Algorithm of the key, without --csr
    #[arg(long, default_value = "p256", conflicts_with = "csr")]
    key_type: KeyType,
    /// How long the passport is valid: a number and m, h or d
    #[arg(long, default_value = "366d", value_parser = parse_life)]
    valid_for: Duration,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let authority = Authority::open(&args.dir)?.with_passport_life(args.valid_for);
    not_another_clusters(&args.out, &args.cluster)?;
    durable::private_dir(&args.out).with_context(|| format!("make {}", args.out.display()))?;
    let request = EnrolRequest {
        cluster: args.cluster,
        id: args.id,
        pod_cidrs: args.pod_cidr,
        node_cidrs: args.node_cidr,
        shared_node_cidrs: args.shared_node_cidr,
        service_cidrs: args.service_cidr,
        hub_addresses: args.hub_address,
    };
    let (enrolled, key) = match &args.csr {
        Some(path) => {
            let pem = read_request(path)?;
            let signing = SigningRequest::from_pem(&pem).with_context(|| path.display().to_string())?;
            (authority.enroll(&request, &signing)?, None)
        }
        None => {
            let key = PrivateKey::generate(args.key_type.into())?;
            let signing = SigningRequest::from_pem(&key.request()?)?;
            (authority.enroll(&request, &signing)?, Some(key))
        }
    };
    let out = &args.out;
    if let Some(key) = &key {
        key.write(&out.join(PASSPORT_KEY))?;
    }
    ClusterAuthority::write_passport(out, &enrolled.passport, std::slice::from_ref(&enrolled.root))?;
    print(&summary(&enrolled, out, key.is_some()))
}

/// A slip of the hand must not lay one cluster's passport over another's.
fn not_another_clusters(out: &Path, cluster: &ClusterName) -> anyhow::Result<()> {
    let path = out.join(PASSPORT);
    if !path.exists() {
        return Ok(());
    }
    let present = read_passport(&path)?;
    if present.uri.cluster != *cluster {
        bail!(
            "{} is the passport of cluster {}, not of {cluster}; use another --out",
            path.display(),
            present.uri.cluster
        );
    }
    Ok(())
}

fn read_passport(path: &Path) -> anyhow::Result<Passport> {
    let certificates = pki::files::read_certificates(path)?;
    let first = certificates.first().with_context(|| format!("{}: no certificate", path.display()))?;
    Passport::read(first).with_context(|| format!("{}: not a passport", path.display()))
}

/// A request is a few hundred bytes; whatever is far longer is another file.
pub(super) fn read_request(path: &Path) -> anyhow::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    let file = std::fs::File::open(path).with_context(|| format!("read {}", path.display()))?;
    file.take(64 << 10).read_to_string(&mut text).with_context(|| format!("read {}", path.display()))?;
    Ok(text)
}

fn summary(enrolled: &Enrolled, out: &Path, key_made: bool) -> String {
    let passport = &enrolled.passport;
    let verb = if enrolled.renewed { "renewed" } else { "enrolled" };
    let mut text = format!(
        "{verb} cluster {} (id {}) in {}: addresses {}, passport valid until {}\nwrote {PASSPORT} and ca.crt to {}",
        passport.uri.cluster,
        passport.uri.id,
        passport.uri.trust_domain,
        passport.blocks,
        Moment::from(passport.not_after),
        out.display()
    );
    if key_made {
        text.push_str(&format!("\nmade {PASSPORT_KEY} there, on this machine, mode 0600: keep it secret, it speaks for the cluster"));
    }
    for note in &enrolled.notes {
        text.push_str(&format!("\nnote: {note}: allowed"));
    }
    text
}
