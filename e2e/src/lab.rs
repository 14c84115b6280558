//! The lab as a test holds it.

mod builder;
mod daemons;
mod faults;
mod report;
mod workload;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::addressing::NodeNumber;
use crate::authority::Authority;
use crate::client::Client;
use crate::guardian::Guardian;
use crate::manifest::{Manifests, ServiceManifest};
use crate::path::Link;
use crate::process::{Daemon, Place, Running};
use crate::programs::Programs;
use crate::remains::{self, Directory, Remains};
use crate::site::Site;

pub use builder::{ClusterSpec, LabBuilder};
pub use daemons::Output;
pub use workload::PodSpec;

use workload::Pod;

/// Keeps every lab running after its test when set to anything (as [`LabBuilder::keep`]).
pub const KEEP_VARIABLE: &str = "ISTHMUS_LAB_KEEP";
/// The pod that every node has from the start, to ask from.
pub const CLIENT_POD: &str = "client";

/// A running lab. [`Lab::finish`] ends it well; dropping it without that counts as a failure: it says where to look,
/// and keeps the logs. Either way nothing else stays, unless the lab is to be kept.
#[derive(Debug)]
pub struct Lab {
    name: String,
    site: Site,
    programs: Programs,
    guardian: Guardian,
    clusters: BTreeMap<String, Cluster>,
    daemons: BTreeMap<Daemon, Running>,
    programs_started: Vec<Running>,
    cuts: BTreeSet<Link>,
    authority: Option<Authority>,
    keep: bool,
    ended: bool,
}

/// One cluster of a lab.
#[derive(Debug)]
struct Cluster {
    spec: ClusterSpec,
    manifests: Manifests,
    nodes: BTreeMap<String, Node>,
    namespaces: BTreeSet<String>,
    services: BTreeMap<(String, String), ServiceManifest>,
    pods: BTreeMap<String, Pod>,
}

/// One node of a cluster.
#[derive(Debug)]
struct Node {
    number: NodeNumber,
    netns: String,
    zone: String,
    next_pod: u8,
}

impl Lab {
    /// Begins to describe a lab. The name appears in messages only.
    pub fn builder(name: &str) -> LabBuilder {
        LabBuilder::new(name)
    }

    /// A client in the pod `client` of a node.
    pub fn client(&self, cluster: &str, node: &str) -> Result<Client> {
        let pod = self.pod_of(cluster, &client_pod(node))?;
        let place = Place { netns: pod.netns(), cgroup: self.site.pods_cgroup(cluster, node) };
        Ok(Client::new(place, self.programs.own("lab-pod")?))
    }

    /// A client on a node itself, outside every pod: no `sock_lb` there.
    pub fn host_client(&self, cluster: &str, node: &str) -> Result<Client> {
        Ok(Client::new(self.node_place(cluster, node)?, self.programs.own("lab-pod")?))
    }

    /// A client in the namespace of a node's client pod, but outside the pods' cgroup: the same way through the network,
    /// without `sock_lb`.
    pub fn client_outside_cgroup(&self, cluster: &str, node: &str) -> Result<Client> {
        let netns = self.pod_of(cluster, &client_pod(node))?.netns();
        let place = Place { netns, cgroup: self.site.daemons_cgroup() };
        Ok(Client::new(place, self.programs.own("lab-pod")?))
    }

    /// Where the lab keeps its things.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// A path in the lab's directory for a file that a test needs.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.site.dir().join(name)
    }

    /// The process id of the guardian.
    pub fn guardian_pid(&self) -> u32 {
        self.guardian.pid()
    }

    /// The names of the clusters.
    pub fn clusters(&self) -> impl Iterator<Item = &str> {
        self.clusters.keys().map(String::as_str)
    }

    /// The names of a cluster's nodes.
    pub fn nodes(&self, cluster: &str) -> Result<Vec<String>> {
        Ok(self.cluster(cluster)?.nodes.keys().cloned().collect())
    }

    /// Ends the lab well: removes everything and checks that nothing is left. A lab that is to be kept stays, and how to
    /// look inside is printed.
    pub async fn finish(mut self) -> Result<()> {
        self.ended = true;
        if self.keep {
            return self.leave_running();
        }
        for running in self.daemons.values_mut() {
            running.ensure_alive().context("at the end of the lab")?;
        }
        remains::remove(&self.site, Directory::Remove)?;
        self.guardian.dismiss()?;
        let left = Remains::of(&self.site)?;
        ensure!(left.is_empty(), "lab {} is not gone: {left}", self.site.id());
        Ok(())
    }

    fn leave_running(&mut self) -> Result<()> {
        remains::mark_kept(&self.site)?;
        self.guardian.dismiss()?;
        println!("{}", self.how_to_look_inside());
        Ok(())
    }

    fn cluster(&self, name: &str) -> Result<&Cluster> {
        self.clusters.get(name).with_context(|| format!("lab has no cluster {name}"))
    }

    fn cluster_mut(&mut self, name: &str) -> Result<&mut Cluster> {
        self.clusters.get_mut(name).with_context(|| format!("lab has no cluster {name}"))
    }

    fn node(&self, cluster: &str, node: &str) -> Result<&Node> {
        let nodes = &self.cluster(cluster)?.nodes;
        nodes.get(node).with_context(|| format!("cluster {cluster} has no node {node}"))
    }

    fn node_place(&self, cluster: &str, node: &str) -> Result<Place> {
        let netns = self.node(cluster, node)?.netns.clone();
        Ok(Place { netns, cgroup: self.site.daemons_cgroup() })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        eprintln!("{}", self.failure_report());
        let ended = if self.keep {
            self.leave_running()
        } else {
            // What cannot be removed here the guardian tries again, so it is dismissed only after a success.
            remains::remove(&self.site, Directory::Leave).and_then(|()| self.guardian.dismiss())
        };
        if let Err(error) = ended {
            eprintln!("lab {}: {error:#}", self.site.id());
        }
    }
}

/// The name of the client pod of a node; pod names are unique in a cluster.
fn client_pod(node: &str) -> String {
    format!("{CLIENT_POD}-{node}")
}
