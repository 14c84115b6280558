//! `meshctl ca leaf`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use pki::authority::{HubAddress, Moment};
use pki::key::{PrivateKey, SigningRequest};
use pki::{ClusterAuthority, LeafRole, LeafSpec};
use serde::Serialize;
use topology::NodeName;

use super::output::Output;
use super::{KeyType, parse_life};

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    meshctl ca leaf --cluster-dir /etc/isthmus/paris --role hub --node n1 --out /etc/isthmus/hub\n  \
    meshctl ca leaf --cluster-dir /etc/isthmus/paris --role local --node n1 --out /etc/isthmus/agent\n  \
    meshctl ca leaf --cluster-dir /etc/isthmus/paris --role etcd --node e1 --name etcd-1.isthmus.svc --out /etc/isthmus/etcd\n  \
    meshctl ca leaf --cluster-dir /etc/isthmus/paris --role store --node n1 --out /etc/isthmus/store\n\n\
    Roles: hub serves; remote is a client of other clusters' hubs (CN remote-<cluster>); local is an agent of the own\n\
    hub (local-<cluster>); admin administers the own hub (admin-<cluster>);\n\
    etcd is a member of the etcd behind the hub's store (mesh-apiserver --store etcd:…), store is the hub as its client.\n\
    For these two ca.crt is the cluster's passport.")]
pub(crate) struct Args {
    /// Directory with passport.crt, passport.key and ca.crt
    #[arg(long, value_name = "CLUSTER_DIR")]
    cluster_dir: PathBuf,
    /// What the holder is: hub, remote, local, admin, etcd or store
    #[arg(long)]
    role: LeafRole,
    /// The node or machine that holds the key
    #[arg(long)]
    node: NodeName,
    /// Where tls.crt (leaf, then passport), ca.crt and tls.key go; made with mode 0700
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Further name or address of a hub or an etcd; the passport must permit it (names below svc and cluster.local always are)
    #[arg(long, value_delimiter = ',')]
    name: Vec<HubAddress>,
    /// A request made where the key lives; without it the key is made in --out, by this command
    #[arg(long, value_name = "FILE")]
    csr: Option<PathBuf>,
    /// Algorithm of the key, without --csr
    #[arg(long, default_value = "p256", conflicts_with = "csr")]
    key_type: KeyType,
    /// How long it is valid, never longer than the passport: a number and m, h or d [default: 24h for remote, local and admin, else 30d]
    #[arg(long, value_parser = parse_life)]
    valid_for: Option<Duration>,
    /// Form of the output
    #[arg(short, long, default_value = "text")]
    output: Output,
}

/// Holds the JSON form. STABLE FORMAT: fields are only added.
#[derive(Serialize)]
struct Report {
    cluster: String,
    role: &'static str,
    node: String,
    common_name: String,
    not_after: Moment,
    out: PathBuf,
    /// Whether the key was made there.
    key_made: bool,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let authority = ClusterAuthority::open(&args.cluster_dir)?;
    let mut spec = LeafSpec::new(args.role, args.node);
    spec.life = args.valid_for.unwrap_or(spec.life);
    for name in args.name {
        match name {
            HubAddress::Name(name) => spec.dns_names.push(name),
            HubAddress::Address(address) => spec.addresses.push(IpAddr::to_canonical(&address)),
        }
    }
    let (signing, key) = match &args.csr {
        Some(path) => {
            let pem = super::enrolled::read_request(path)?;
            (SigningRequest::from_pem(&pem).with_context(|| path.display().to_string())?, None)
        }
        None => {
            let key = PrivateKey::generate(args.key_type.into())?;
            (SigningRequest::from_pem(&key.request()?)?, Some(key))
        }
    };
    let leaf = authority.issue_leaf(&spec, &signing)?;
    leaf.write(&args.out, key.as_ref())?;
    let files = if key.is_some() {
        "tls.crt, ca.crt and tls.key (made there, mode 0600)"
    } else {
        "tls.crt and ca.crt"
    };
    let why = match args.role {
        LeafRole::Etcd => {
            let name = pki::profile::store_name(&authority.passport().uri.cluster);
            format!("{ETCD} --client-cert-allowed-hostname={name}")
        }
        LeafRole::Store => STORE.to_owned(),
        LeafRole::Hub | LeafRole::Remote | LeafRole::Local | LeafRole::Admin => String::new(),
    };
    let cluster = &authority.passport().uri.cluster;
    let report = Report {
        cluster: cluster.to_string(),
        role: args.role.as_str(),
        node: spec.node.to_string(),
        common_name: spec.role.common_name(cluster),
        not_after: leaf.expires().into(),
        out: args.out,
        key_made: key.is_some(),
    };
    args.output.print(&report, || {
        let Report { cluster, node, common_name, not_after, out, .. } = &report;
        format!(
            "issued {common_name} for {node} of cluster {cluster}, valid until {not_after}\nwrote {files} to {}{why}",
            out.display()
        )
    })
}

/// Why an etcd is not to trust the mesh root.
const ETCD: &str = "\n\
    ca.crt is this cluster's passport, not the mesh root. etcd takes the name in a certificate at its word, whoever issued it:\n\
    one that trusts the root lets every member of the mesh issue itself root or admin-<cluster>, and read and write\n\
    everything. Start it with --cert-file=tls.crt --key-file=tls.key --trusted-ca-file=ca.crt --client-cert-auth\n\
    --enable-grpc-gateway=false";
const STORE: &str = "\n\
    ca.crt is this cluster's passport, not the mesh root, under which every member of the mesh could be the store.\n\
    For mesh-apiserver --store-tls-dir";
