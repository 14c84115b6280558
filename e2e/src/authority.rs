//! The mesh authority of a lab, through the `meshctl` binary: the same commands an operator types.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::addressing::{SERVICE_CIDR_4, SERVICE_CIDR_6, node_block, pod_block};
use crate::process::run_to_end;

/// The trust domain of every lab.
pub const TRUST_DOMAIN: &str = "mesh.example";

/// A mesh root with its ledger.
#[derive(Clone, Debug)]
pub struct Authority {
    meshctl: PathBuf,
    dir: PathBuf,
}

/// Holds what a cluster asks for when it enrols.
#[derive(Clone, Debug)]
pub struct Enrolment {
    /// Cluster name.
    pub cluster: String,
    /// Cluster id.
    pub id: u16,
    /// Blocks of its pods.
    pub pod_cidrs: Vec<String>,
    /// Blocks of its nodes.
    pub node_cidrs: Vec<String>,
    /// Blocks of its services.
    pub service_cidrs: Vec<String>,
    /// Addresses at which its hub is reached, besides the name.
    pub hub_addresses: Vec<String>,
}

/// What a leaf certificate is for; its common name follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The hub's server certificate.
    Hub,
    /// A client of peers' hubs: `remote-<cluster>`.
    Remote,
    /// A client of the own hub: `local-<cluster>`.
    Local,
    /// An operator: `admin-<cluster>`.
    Admin,
    /// A member of the etcd behind the hub's store.
    Etcd,
    /// The hub as a client of that etcd.
    Store,
}

impl Authority {
    /// Makes a new root in this directory (`meshctl ca init`).
    pub fn init(meshctl: &Path, dir: &Path) -> Result<Self> {
        let authority = Self { meshctl: meshctl.to_owned(), dir: dir.to_owned() };
        authority.meshctl(&["ca", "init", "--dir", &show(dir), "--trust-domain", TRUST_DOMAIN])?;
        Ok(authority)
    }

    /// Enrols a cluster into `out` (`meshctl ca enroll`). Fails with what meshctl said when it refuses.
    pub fn enroll(&self, request: &Enrolment, out: &Path) -> Result<()> {
        let id = request.id.to_string();
        let (dir, out) = (show(&self.dir), show(out));
        let mut args =
            vec!["ca", "enroll", "--dir", &dir, "--cluster", &request.cluster, "--id", &id, "--out", &out];
        for (flag, values) in [
            ("--pod-cidr", &request.pod_cidrs),
            ("--node-cidr", &request.node_cidrs),
            ("--service-cidr", &request.service_cidrs),
            ("--hub-address", &request.hub_addresses),
        ] {
            for value in values {
                args.extend([flag, value]);
            }
        }
        self.meshctl(&args).with_context(|| format!("enrol {}", request.cluster))
    }

    /// Makes a leaf from an enrolled cluster's directory: `tls.crt`, `tls.key`, `ca.crt` in `out`.
    pub fn leaf(&self, cluster_dir: &Path, role: Role, node: &str, out: &Path) -> Result<()> {
        let role = match role {
            Role::Hub => "hub",
            Role::Remote => "remote",
            Role::Local => "local",
            Role::Admin => "admin",
            Role::Etcd => "etcd",
            Role::Store => "store",
        };
        let (cluster_dir, out) = (show(cluster_dir), show(out));
        self.meshctl(&[
            "ca",
            "leaf",
            "--cluster-dir",
            &cluster_dir,
            "--role",
            role,
            "--node",
            node,
            "--out",
            &out,
        ])
        .with_context(|| format!("leaf {role} for {node}"))
    }

    fn meshctl(&self, args: &[&str]) -> Result<()> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        run_to_end(&self.meshctl, &args).map(drop)
    }
}

impl Enrolment {
    /// What the lab's cluster with this id enrols with.
    pub fn of_lab_cluster(cluster: &str, id: u8) -> Self {
        let (pods, nodes) = (pod_block(id), node_block(id));
        Self {
            cluster: cluster.to_owned(),
            id: u16::from(id),
            pod_cidrs: vec![pods.v4, pods.v6],
            node_cidrs: vec![nodes.v4, nodes.v6],
            service_cidrs: vec![SERVICE_CIDR_4.to_owned(), SERVICE_CIDR_6.to_owned()],
            hub_addresses: Vec::new(),
        }
    }
}

fn show(path: &Path) -> String {
    path.display().to_string()
}
