//! Which part depends on which object, and what changed.

mod computed;
mod dirty;
mod numbered;
mod placed;
mod sliced;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use topology::cluster::MaxClusters;
use topology::{Identity, Labels};

use super::pod::{Claim, PodFacts};
use super::{Cluster, Output, Part, service};
use crate::finding::Finding;
use crate::identity::allocator::ALLOCATIONS;
use crate::identity::{Allocator, LabelFilter, Numbering, Registry};
use crate::index::{Change, Index, owner};
use crate::object::{Body, Object, ObjectKind, ObjectRef};
use dirty::Dirty;
use placed::IdleNumbers;

/// Keeps what is published in step with the objects.
///
/// Whatever the order in which objects came, the same objects give the same records; only which number a set of
/// labels has depends on which came first.
#[derive(Clone, Debug)]
pub struct Exporter {
    cluster: Cluster,
    filter: LabelFilter,
    numbering: Numbering,
    index: Index,
    identities: Allocator,
    /// The objects that give numbers, while objects do.
    registry: Registry,
    /// Numbers in use without an object that says so, while objects do.
    open: BTreeSet<Identity>,
    /// Identities whose numbers are not this cluster's.
    foreign: BTreeSet<Identity>,
    /// Everything is to be computed anew.
    stale: bool,
    outputs: BTreeMap<Part, Output>,
    /// The parts whose output has findings: few, so that all findings can be shown after each change.
    odd: BTreeSet<Part>,
    pods: BTreeMap<PodKey, Published>,
    /// Who claims an address, in order: the first has it. Nearly always one alone.
    claims: BTreeMap<IpAddr, Vec<Claimant>>,
    users: BTreeMap<Identity, BTreeSet<PodKey>>,
    /// Pods for which there was no number. They are looked at again when one may have become free.
    unnumbered: BTreeSet<PodKey>,
    pods_on: BTreeMap<String, BTreeSet<PodKey>>,
}

/// A claim, and the identity of the pod whose it is.
type Claimant = (Arc<Claim>, Option<Identity>);

/// Namespace and name of a pod.
type PodKey = (String, String);

/// Holds what a pod brings into the mesh at present.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Published {
    facts: PodFacts,
    identity: Option<Identity>,
}

/// What a step changes: puts and deletes that together are one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Records that are new or have other bytes than before.
    pub puts: BTreeMap<String, Bytes>,
    /// Keys that are no more.
    pub deletes: BTreeSet<String>,
    /// Findings that were not there before.
    pub appeared: Vec<Finding>,
    /// Findings that are gone.
    pub cleared: Vec<Finding>,
}

impl Exporter {
    /// An exporter that knows no objects yet. `identities` holds the allocations of earlier runs.
    pub fn new(cluster: Cluster, identities: Allocator) -> Self {
        let mut exporter = Self {
            cluster,
            filter: LabelFilter::default(),
            numbering: Numbering::Store,
            index: Index::default(),
            identities,
            registry: Registry::default(),
            open: BTreeSet::new(),
            foreign: BTreeSet::new(),
            stale: false,
            outputs: BTreeMap::new(),
            odd: BTreeSet::new(),
            pods: BTreeMap::new(),
            claims: BTreeMap::new(),
            users: BTreeMap::new(),
            unnumbered: BTreeSet::new(),
            pods_on: BTreeMap::new(),
        };
        let config = exporter.compute(&Part::Config);
        exporter.outputs.insert(Part::Config, config);
        exporter
    }

    /// Makes changes of single objects. The cost is that of the parts that they touch.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> Delta {
        let mut dirty = Dirty::default();
        for change in changes {
            self.apply_one(change, &mut dirty);
        }
        if std::mem::take(&mut self.stale) {
            self.all_dirty(&mut dirty);
        }
        self.recompute(dirty)
    }

    /// Replaces all objects.
    pub fn reset(&mut self, objects: impl IntoIterator<Item = Object>) -> Delta {
        let mut dirty = Dirty::default();
        let before: Vec<ObjectRef> = self.index.references().collect();
        dirty.sliced(&self.index);
        self.index = Index::default();
        for object in objects {
            self.index.apply(Change::Apply(object));
        }
        for reference in before {
            dirty.object(&reference);
        }
        self.stale = false;
        self.all_dirty(&mut dirty);
        self.recompute(dirty)
    }

    /// Everything that is to be in the store, with the allocations of identities.
    pub fn desired(&self) -> BTreeMap<String, Bytes> {
        let records = self.outputs.values().flat_map(|output| &output.records);
        let records = records.map(|(key, value)| (key.clone(), value.clone()));
        let allocations =
            self.identities.allocations().map(|(identity, labels)| allocation(identity, labels));
        records.chain(allocations).collect()
    }

    /// All that is odd at present. O(findings).
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        let outputs = self.odd.iter().filter_map(|part| self.outputs.get(part));
        outputs.flat_map(|output| &output.findings)
    }

    /// The objects.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Who has which number.
    pub fn identities(&self) -> &Allocator {
        &self.identities
    }

    /// Makes a change in the index and marks what depends on it.
    fn apply_one(&mut self, change: Change, dirty: &mut Dirty) {
        let reference = change.reference().clone();
        let after = match &change {
            Change::Apply(object) => Some(object.body().clone()),
            Change::Delete(_) => None,
        };
        let before = self.index.apply(change);
        if before == after {
            return;
        }
        dirty.object(&reference);
        let (namespace, name) = (reference.namespace(), reference.name());
        match reference.kind() {
            ObjectKind::Node => {
                // The host addresses of its pods may come from it.
                for pod in self.pods_on.get(name).into_iter().flatten() {
                    let addresses = self.pods.get(pod).into_iter().flat_map(|pod| &pod.facts.addresses);
                    dirty.parts.extend(addresses.map(|address| Part::Address(*address)));
                }
            }
            ObjectKind::Namespace => {
                for (kind, names) in self.index.space(name).into_iter().flat_map(names_within) {
                    dirty.all(kind, name, names);
                }
                dirty.parts.extend(self.index.cilium_identities_of(name).map(Part::Identity));
            }
            ObjectKind::Service => {
                let slices = self.index.space(namespace).into_iter().flat_map(|space| space.slices_of(name));
                dirty
                    .parts
                    .extend(slices.map(|(slice, _)| Part::Slice(namespace.to_owned(), slice.to_owned())));
            }
            ObjectKind::EndpointSlice => {
                for service in [&before, &after].into_iter().filter_map(|body| match body {
                    Some(Body::EndpointSlice(slice)) => owner(slice),
                    _ => None,
                }) {
                    dirty.parts.insert(Part::Service(namespace.to_owned(), service.to_owned()));
                }
            }
            ObjectKind::Pod => self.mark_selecting(namespace, [before.as_ref(), after.as_ref()], dirty),
            ObjectKind::MeshIdentity | ObjectKind::CiliumIdentity => {
                if let Some(identity) = reference.identity() {
                    self.number_changed(identity, dirty);
                }
            }
            ObjectKind::CiliumEndpointSlice => dirty.slice(before.as_ref(), after.as_ref()),
            ObjectKind::CiliumEndpoint
            | ObjectKind::CiliumNode
            | ObjectKind::NetworkPolicy
            | ObjectKind::CiliumNetworkPolicy
            | ObjectKind::CiliumClusterwideNetworkPolicy => {}
        }
    }

    /// Marks the services whose selector matches the pod as it was or as it is, if its labels changed: they may
    /// have been without any pod.
    fn mark_selecting(&self, namespace: &str, pods: [Option<&Body>; 2], dirty: &mut Dirty) {
        let labels = |body: Option<&Body>| match body {
            Some(Body::Pod(pod)) => Some(pod.labels.clone()),
            _ => None,
        };
        let [before, after] = pods.map(labels);
        if before == after {
            return;
        }
        for (name, service) in self.index.space(namespace).into_iter().flat_map(|space| space.services()) {
            let Some(selector) = service::selector(service) else { continue };
            if [&before, &after].into_iter().flatten().any(|labels| service::selects(selector, Some(labels)))
            {
                dirty.parts.insert(Part::Service(namespace.to_owned(), name.clone()));
            }
        }
    }

    /// Looks again at what is dirty, and says what changed.
    fn recompute(&mut self, mut dirty: Dirty) -> Delta {
        let mut delta = Delta::default();
        for pod in std::mem::take(&mut dirty.pods) {
            self.place_pod(&pod, IdleNumbers::Kept, &mut dirty, &mut delta);
        }
        // Only now is it known which numbers no pod has: after a restart they all come with this step.
        if dirty.renumber {
            for pod in self.unnumbered.clone() {
                self.place_pod(&pod, IdleNumbers::Given, &mut dirty, &mut delta);
            }
        }
        self.write_renumbered(std::mem::take(&mut dirty.renumbered), &mut delta);
        for part in dirty.parts {
            let output = self.compute(&part);
            self.replace(part, output, &mut delta);
        }
        delta
    }

    /// Makes `output` what a part publishes, and adds the difference to `delta`.
    fn replace(&mut self, part: Part, output: Output, delta: &mut Delta) {
        match output.findings.is_empty() {
            true => self.odd.remove(&part),
            false => self.odd.insert(part.clone()),
        };
        let before = match output.is_empty() {
            true => self.outputs.remove(&part),
            false => self.outputs.insert(part.clone(), output),
        };
        let empty = Output::default();
        let (before, after) = (before.as_ref().unwrap_or(&empty), self.outputs.get(&part).unwrap_or(&empty));
        for (key, value) in &after.records {
            if before.record(key) != Some(value) {
                delta.puts.insert(key.clone(), value.clone());
            }
        }
        let gone = before.records.iter().map(|(key, _)| key).filter(|key| after.record(key).is_none());
        delta.deletes.extend(gone.cloned());
        let new = after.findings.iter().filter(|finding| !before.findings.contains(finding));
        delta.appeared.extend(new.cloned());
        let gone = before.findings.iter().filter(|finding| !after.findings.contains(finding));
        delta.cleared.extend(gone.cloned());
    }
}

impl Delta {
    /// Nothing to write. Findings may have changed all the same.
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.deletes.is_empty()
    }
}

fn names_within(space: &crate::index::Space) -> [(ObjectKind, Vec<&String>); 4] {
    [
        (ObjectKind::CiliumEndpoint, space.endpoint_names().collect()),
        (ObjectKind::Service, space.services().keys().collect()),
        (ObjectKind::EndpointSlice, space.slices().keys().collect()),
        (ObjectKind::Pod, space.pods().keys().collect()),
    ]
}

fn allocation(identity: Identity, labels: &Labels) -> (String, Bytes) {
    (format!("{ALLOCATIONS}{identity}"), Bytes::from(labels.to_string()))
}

/// The numbers that a cluster's allocator may give.
pub fn identity_range(cluster: &Cluster) -> std::ops::RangeInclusive<u32> {
    let max: MaxClusters = cluster.max;
    Identity::range_of(cluster.id, max)
}

#[cfg(test)]
mod tests;
