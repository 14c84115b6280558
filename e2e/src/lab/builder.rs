//! Describing a lab, and making it: namespaces first, then certificates, then daemons.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, ensure};

use super::{CLIENT_POD, Cluster, KEEP_VARIABLE, Lab, Node, client_pod};
use crate::addressing::NodeNumber;
use crate::guardian::Guardian;
use crate::manifest::{self, Manifests};
use crate::network::{self, NodeCable};
use crate::path;
use crate::programs::Programs;
use crate::remains;
use crate::site::{self, LabId, Site};

/// Describes one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSpec {
    pub(super) name: String,
    pub(super) id: u8,
    pub(super) region: String,
    pub(super) nodes: u8,
    pub(super) hub_args: Vec<String>,
    pub(super) agent_args: Vec<String>,
}

/// Describes a lab.
#[derive(Clone, Debug)]
#[must_use = "a lab is made by start()"]
pub struct LabBuilder {
    name: String,
    clusters: Vec<ClusterSpec>,
    daemons: bool,
    keep: bool,
}

impl ClusterSpec {
    /// A cluster with one node. The id is 1 to 95 (its addresses follow from it).
    pub fn new(name: &str, id: u8) -> Self {
        Self {
            name: name.to_owned(),
            id,
            region: "lab".to_owned(),
            nodes: 1,
            hub_args: Vec::new(),
            agent_args: Vec::new(),
        }
    }

    /// The region of its nodes; each node is a zone of its own.
    pub fn region(mut self, region: &str) -> Self {
        self.region = region.to_owned();
        self
    }

    /// How many nodes: `n1`, `n2` …; the hub runs on the first.
    pub fn nodes(mut self, nodes: u8) -> Self {
        self.nodes = nodes;
        self
    }

    /// Adds an argument to the hub's command line.
    pub fn hub_arg(mut self, arg: &str) -> Self {
        self.hub_args.push(arg.to_owned());
        self
    }

    /// Adds an argument to every agent's command line.
    pub fn agent_arg(mut self, arg: &str) -> Self {
        self.agent_args.push(arg.to_owned());
        self
    }
}

impl LabBuilder {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            clusters: Vec::new(),
            daemons: true,
            keep: std::env::var_os(KEEP_VARIABLE).is_some(),
        }
    }

    /// Adds a cluster.
    pub fn cluster(mut self, spec: ClusterSpec) -> Self {
        self.clusters.push(spec);
        self
    }

    /// Makes namespaces, pods and cables only: no certificates, hubs, agents.
    pub fn without_daemons(mut self) -> Self {
        self.daemons = false;
        self
    }

    /// Leaves the lab running after its end, and prints how to look inside and how to remove it.
    pub fn keep(mut self, keep: bool) -> Self {
        self.keep = keep;
        self
    }

    /// Makes the lab and waits until every daemon says that it is ready. Leftovers of earlier labs are removed first.
    pub async fn start(self) -> Result<Lab> {
        let programs = Programs::locate()?;
        let guardian_program = programs.own("lab-guardian")?;
        if self.daemons {
            programs.ensure_daemons(&["mesh-apiserver", "mesh-agent", "meshctl"])?;
        }
        site::ensure_bpffs()?;
        let swept = remains::sweep().context("remove leftovers of earlier labs")?;
        if !swept.is_empty() {
            eprintln!("lab {}: removed leftovers of {} earlier labs", self.name, swept.len());
        }
        let site = {
            let _lock = remains::lock()?;
            let site = Site::of(LabId::random())?;
            remains::claim(&site)?;
            site
        };
        let guardian = Guardian::post(&guardian_program, &site)?;
        // From here on the lab exists: a failure below drops it, which reports and cleans up.
        let mut lab = Lab {
            name: self.name,
            site,
            programs,
            guardian,
            clusters: BTreeMap::new(),
            daemons: BTreeMap::new(),
            programs_started: Vec::new(),
            cuts: BTreeSet::new(),
            authority: None,
            keep: self.keep,
            ended: false,
        };
        lab.lay_out(&self.clusters)?;
        for spec in &self.clusters {
            for node in lab.nodes(&spec.name)? {
                lab.pod(&spec.name, &node, "lab", &client_pod(&node))
                    .label("app", CLIENT_POD)
                    .start()
                    .await?;
            }
        }
        if self.daemons {
            lab.start_daemons().await?;
        }
        Ok(lab)
    }
}

impl Lab {
    /// Makes directories, cgroups, the router, the nodes and their objects.
    fn lay_out(&mut self, specs: &[ClusterSpec]) -> Result<()> {
        fs::create_dir_all(self.site.daemons_cgroup()).context("create cgroup (the lab needs root)")?;
        fs::create_dir_all(self.site.pins()).context("create pin directory")?;
        let mut cables = Vec::new();
        for spec in specs {
            let dir = self.site.cluster_dir(&spec.name);
            fs::create_dir_all(dir.join("log")).with_context(|| format!("create {}", dir.display()))?;
            let mut cluster = Cluster {
                manifests: Manifests::create(&dir)?,
                spec: spec.clone(),
                nodes: BTreeMap::new(),
                namespaces: BTreeSet::new(),
                services: BTreeMap::new(),
                pods: BTreeMap::new(),
            };
            for index in 1..=spec.nodes {
                let name = format!("n{index}");
                let number = NodeNumber::new(spec.id, index)?;
                let netns = self.site.node_netns(&spec.name, &name);
                let zone = format!("{}-{index}", spec.region);
                let object = manifest::node::node(&name, number, &spec.region, &zone);
                cluster.manifests.write(&format!("node.{name}"), &manifest::yaml(&object)?)?;
                fs::create_dir_all(self.site.pods_cgroup(&spec.name, &name)).context("create cgroup")?;
                cables.push(NodeCable { netns: netns.clone(), number });
                cluster.nodes.insert(name, Node { number, netns, zone, next_pod: 10 });
            }
            let double = self.clusters.insert(spec.name.clone(), cluster);
            ensure!(double.is_none(), "two clusters named {}", spec.name);
        }
        network::lay_wan(&self.site.wan(), &cables)?;
        path::apply(&self.site.wan(), &self.cuts, &self.cluster_ids())
    }

    pub(super) fn cluster_ids(&self) -> BTreeMap<String, u8> {
        self.clusters.iter().map(|(name, cluster)| (name.clone(), cluster.spec.id)).collect()
    }
}
