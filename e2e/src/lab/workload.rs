//! Pods, services and other objects of a lab's clusters. Each change is made as Kubernetes would show it: the object's
//! manifest, and the endpoint slices that follow.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tokio::time::timeout;

use super::{Cluster, Lab, Node};
use crate::addressing::AddressPair;
use crate::endpoints;
use crate::manifest::pod::PodManifest;
use crate::manifest::service::{Family, ServiceManifest};
use crate::manifest::{self};
use crate::network::{self, PodCable};
use crate::process::Place;

const READY_DEADLINE: Duration = Duration::from_secs(20);

/// A pod that is being described.
#[derive(Debug)]
#[must_use = "a pod begins with start()"]
pub struct PodSpec<'lab> {
    lab: &'lab mut Lab,
    cluster: String,
    node: String,
    namespace: String,
    name: String,
    labels: BTreeMap<String, String>,
    http: Vec<u16>,
    udp: Vec<u16>,
}

/// A pod of a lab.
#[derive(Debug)]
pub(super) struct Pod {
    pub(super) manifest: PodManifest,
    netns: String,
    child: Option<Child>,
}

impl Pod {
    pub(super) fn netns(&self) -> String {
        self.netns.clone()
    }
}

impl PodSpec<'_> {
    /// Adds a label.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Serves HTTP on this port.
    pub fn serves_http(mut self, port: u16) -> Self {
        self.http.push(port);
        self
    }

    /// Echoes UDP on this port.
    pub fn serves_udp(mut self, port: u16) -> Self {
        self.udp.push(port);
        self
    }

    /// Starts it: namespace, cable, process (if it serves something), and, once its ports are bound, its Pod object and
    /// the endpoint slices. Gives its addresses.
    pub async fn start(self) -> Result<AddressPair> {
        let Self { lab, cluster, node, namespace, name, labels, http, udp } = self;
        ensure!(
            !lab.cluster(&cluster)?.pods.contains_key(&name),
            "cluster {cluster} has a pod {name} already"
        );
        let netns = lab.site.pod_netns(&cluster, &node, &name);
        let place = Place { netns: netns.clone(), cgroup: lab.site.pods_cgroup(&cluster, &node) };
        let Node { number, netns: node_netns, next_pod, .. } = lab
            .cluster_mut(&cluster)?
            .nodes
            .get_mut(&node)
            .with_context(|| format!("cluster {cluster} has no node {node}"))?;
        let pod_number = *next_pod;
        *next_pod = pod_number.checked_add(1).context("a node of the lab has room for 245 pods")?;
        let (addresses, host) = (number.pod(pod_number), number.addresses());
        network::lay_pod(&PodCable {
            node_netns: node_netns.clone(),
            pod_netns: netns.clone(),
            interface: format!("p{pod_number}"),
            addresses,
            node_addresses: host,
        })
        .with_context(|| format!("cable pod {cluster}/{node}/{name}"))?;
        let child = if http.is_empty() && udp.is_empty() {
            None
        } else {
            let log = lab.site.cluster_dir(&cluster).join("log").join(format!("pod-{name}.log"));
            let mut command = place.command(&lab.programs.own("lab-pod")?);
            command.args(["serve", "--name", &format!("{cluster}/{node}/{name}")]);
            for (flag, ports) in [("--http", &http), ("--udp", &udp)] {
                for port in ports {
                    command.args([flag, &port.to_string()]);
                }
            }
            command.stderr(File::create(&log).with_context(|| format!("create {}", log.display()))?);
            Some(serving(command).await.with_context(|| format!("pod {name}; see {}", log.display()))?)
        };
        let manifest =
            PodManifest { namespace, name: name.clone(), labels, node, host, addresses, ready: true };
        lab.ensure_namespace(&cluster, &manifest.namespace)?;
        let object = manifest.object();
        let cluster = lab.cluster_mut(&cluster)?;
        cluster.write(&object)?;
        cluster.pods.insert(name, Pod { manifest, netns, child });
        cluster.write_slices()?;
        Ok(addresses)
    }
}

impl Lab {
    /// Begins to describe a pod on a node. Its name must be unique in the cluster.
    pub fn pod(&mut self, cluster: &str, node: &str, namespace: &str, name: &str) -> PodSpec<'_> {
        PodSpec {
            lab: self,
            cluster: cluster.to_owned(),
            node: node.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            labels: BTreeMap::new(),
            http: Vec::new(),
            udp: Vec::new(),
        }
    }

    /// Ends a pod: first its endpoint and its object go, then its process and its namespace, as when a pod is deleted.
    pub async fn stop_pod(&mut self, cluster: &str, name: &str) -> Result<()> {
        let cluster = self.cluster_mut(cluster)?;
        let mut pod = cluster.pods.remove(name).with_context(|| format!("no pod {name}"))?;
        cluster.write_slices()?;
        cluster.manifests.delete(&file_name("Pod", &pod.manifest.namespace, name))?;
        if let Some(child) = &mut pod.child {
            child.kill().await.with_context(|| format!("end pod {name}"))?;
        }
        network::remove_netns(&[pod.netns])
    }

    /// Sets whether a pod is ready; its process goes on either way.
    pub fn set_pod_ready(&mut self, cluster: &str, name: &str, ready: bool) -> Result<()> {
        let cluster = self.cluster_mut(cluster)?;
        let pod = cluster.pods.get_mut(name).with_context(|| format!("no pod {name}"))?;
        pod.manifest.ready = ready;
        let object = pod.manifest.object();
        cluster.write(&object)?;
        cluster.write_slices()
    }

    /// Creates or changes a service, and its endpoint slices.
    pub fn service(&mut self, cluster: &str, service: ServiceManifest) -> Result<()> {
        self.ensure_namespace(cluster, service.namespace())?;
        let cluster = self.cluster_mut(cluster)?;
        cluster.write(&service.object())?;
        cluster.services.insert((service.namespace().to_owned(), service.name().to_owned()), service);
        cluster.write_slices()
    }

    /// Deletes a service, and its endpoint slices.
    pub fn delete_service(&mut self, cluster: &str, namespace: &str, name: &str) -> Result<()> {
        let cluster = self.cluster_mut(cluster)?;
        let key = (namespace.to_owned(), name.to_owned());
        let service =
            cluster.services.remove(&key).with_context(|| format!("no service {namespace}/{name}"))?;
        cluster.manifests.delete(&file_name("Service", namespace, name))?;
        for family in service.families() {
            let slice = endpoints::slice_name(name, family);
            cluster.manifests.delete(&file_name("EndpointSlice", namespace, &slice))?;
        }
        Ok(())
    }

    /// Creates or changes a namespace. (Objects of a namespace that does not exist create it without annotations.)
    pub fn namespace(&mut self, cluster: &str, name: &str, annotations: &[(&str, &str)]) -> Result<()> {
        let cluster = self.cluster_mut(cluster)?;
        cluster.namespaces.insert(name.to_owned());
        cluster.write(&manifest::namespace(name, annotations))
    }

    /// Writes any text as the manifest `<name>.yaml` of a cluster: also text that is no manifest. Gives the file's path.
    pub fn manifest(&mut self, cluster: &str, name: &str, text: &str) -> Result<PathBuf> {
        self.cluster(cluster)?.manifests.write(&name.replace('/', "."), text)
    }

    /// Deletes the manifest `<name>.yaml` of a cluster.
    pub fn delete_manifest(&mut self, cluster: &str, name: &str) -> Result<()> {
        self.cluster(cluster)?.manifests.delete(&name.replace('/', "."))
    }

    /// The addresses of a pod.
    pub fn pod_addresses(&self, cluster: &str, name: &str) -> Result<AddressPair> {
        Ok(self.pod_of(cluster, name)?.manifest.addresses)
    }

    /// The addresses of a node.
    pub fn node_addresses(&self, cluster: &str, node: &str) -> Result<AddressPair> {
        Ok(self.node(cluster, node)?.number.addresses())
    }

    pub(super) fn pod_of(&self, cluster: &str, name: &str) -> Result<&Pod> {
        let pods = &self.cluster(cluster)?.pods;
        pods.get(name).with_context(|| format!("cluster {cluster} has no pod {name}"))
    }

    fn ensure_namespace(&mut self, cluster: &str, name: &str) -> Result<()> {
        if self.cluster(cluster)?.namespaces.contains(name) {
            return Ok(());
        }
        self.namespace(cluster, name, &[])
    }
}

impl Cluster {
    /// Writes an object to the file that its kind, namespace and name give.
    fn write(&self, object: &Value) -> Result<()> {
        let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
        let metadata = &object["metadata"];
        let file = file_name(&text(&object["kind"]), &text(&metadata["namespace"]), &text(&metadata["name"]));
        self.manifests.write(&file, &manifest::yaml(object)?).map(drop)
    }

    /// Brings every endpoint slice up to date.
    fn write_slices(&self) -> Result<()> {
        for service in self.services.values() {
            for family in service.families() {
                self.write(&self.slice(service, family))?;
            }
        }
        Ok(())
    }

    fn slice(&self, service: &ServiceManifest, family: Family) -> Value {
        let pods = self.pods.values().map(|pod| {
            let zone = self.nodes.get(&pod.manifest.node).map_or("", |node| node.zone.as_str());
            (&pod.manifest, zone)
        });
        endpoints::slice(service, family, pods)
    }
}

/// The file of an object: `shop.service.echo`.
fn file_name(kind: &str, namespace: &str, name: &str) -> String {
    let parts = [namespace, &kind.to_ascii_lowercase(), name];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".")
}

/// Starts a server and waits until it says that its ports are bound.
async fn serving(mut command: tokio::process::Command) -> Result<Child> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("start")?;
    let stdout = child.stdout.take().context("output of the pod")?;
    let mut line = String::new();
    let mut reader = BufReader::new(stdout);
    let read = timeout(READY_DEADLINE, reader.read_line(&mut line));
    read.await.with_context(|| format!("not ready within {READY_DEADLINE:?}"))?.context("read")?;
    if line.trim() != "ready" {
        bail!("expected the line `ready`, got {line:?}");
    }
    Ok(child)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_read_as_objects() {
        assert_eq!(file_name("Service", "shop", "echo"), "shop.service.echo");
        assert_eq!(file_name("Namespace", "", "shop"), "namespace.shop");
    }
}
