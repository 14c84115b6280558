//! Which part depends on which object, and what changed.

mod numbered;
mod sliced;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use topology::cluster::MaxClusters;
use topology::record::config::ClusterConfig;
use topology::record::key;
use topology::{Identity, Labels, ServiceName};

use super::annotation::Sharing;
use super::pod::{Claim, PodFacts};
use super::{Cluster, Output, Part, cilium, local, namespace, node, pod, service, slice};
use crate::finding::{Finding, Reason};
use crate::identity::allocator::ALLOCATIONS;
use crate::identity::{Allocator, LabelFilter, Numbering, Registry};
use crate::index::{Change, Index, owner};
use crate::object::{Body, Object, ObjectKind, ObjectRef};

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

/// Holds the parts and pods that a step has to look at again.
#[derive(Debug, Default)]
struct Dirty {
    parts: BTreeSet<Part>,
    pods: BTreeSet<PodKey>,
    /// Whether a pod found no number, or the last pod with some number is gone.
    renumber: bool,
    /// Numbers that objects gave to other labels, or to none.
    renumbered: BTreeSet<Identity>,
}

/// What becomes of numbers that no pod has, when all have been given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IdleNumbers {
    Kept,
    Given,
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

    /// Finds out anew what a pod brings into the mesh, and marks the identities and addresses that it had and has.
    fn place_pod(&mut self, key: &PodKey, idle: IdleNumbers, dirty: &mut Dirty, delta: &mut Delta) {
        let (namespace, name) = key;
        let space = self.index.space(namespace).and_then(|space| space.object());
        let facts = self
            .index
            .pod(namespace, name)
            .filter(|_| self.numbering != Numbering::Cilium)
            .and_then(|pod| pod::facts(&self.cluster, &self.filter, namespace, name, pod, space).0);
        let own = facts.map(|mut facts| {
            let in_use = |identity| idle == IdleNumbers::Kept || self.users.contains_key(&identity);
            let identity = match self.identities.allocate(&facts.labels, in_use) {
                Ok((identity, new)) => {
                    if new {
                        let (key, value) = allocation(identity, &facts.labels);
                        delta.puts.insert(key, value);
                    }
                    if let Some(labels) = self.identities.labels(identity) {
                        facts.labels = Arc::clone(labels);
                    }
                    Some(identity)
                }
                // Shown as a finding of the pod's part.
                Err(_) => None,
            };
            Published { facts, identity }
        });
        let after = own.or_else(|| self.cilium_endpoint(namespace, name));
        dirty.parts.insert(Part::Pod(namespace.clone(), name.clone()));
        let unnumbered = |published: &Published| published.identity.is_none();
        match self.numbering != Numbering::Cilium && after.as_ref().is_some_and(unnumbered) {
            true => dirty.renumber |= self.unnumbered.insert(key.clone()),
            false => drop(self.unnumbered.remove(key)),
        };
        let before = self.pods.remove(key);
        if before == after {
            // The pod itself may have changed in what its addresses' records say: ports, service account, host.
            dirty.addresses(&after);
        } else {
            dirty.addresses(&before);
            dirty.addresses(&after);
            self.withdraw(key, before, dirty);
            self.enter(key, after.as_ref(), dirty);
        }
        if let Some(published) = after {
            self.pods.insert(key.clone(), published);
        }
    }

    fn withdraw(&mut self, key: &PodKey, published: Option<Published>, dirty: &mut Dirty) {
        let Some(Published { facts, identity }) = published else { return };
        for address in &facts.addresses {
            forget(
                &mut self.claims,
                address,
                |claims| place(claims, &facts.claim).map(|at| claims.remove(at)),
                Vec::is_empty,
            );
        }
        if let Some(identity) = identity {
            dirty.parts.insert(Part::Identity(identity));
            forget(&mut self.users, &identity, |users| users.remove(key), BTreeSet::is_empty);
            dirty.renumber |= !self.users.contains_key(&identity);
            self.note(identity);
        }
        if let Some(node) = &facts.node {
            forget(&mut self.pods_on, node, |pods| pods.remove(key), BTreeSet::is_empty);
        }
    }

    fn enter(&mut self, key: &PodKey, published: Option<&Published>, dirty: &mut Dirty) {
        let Some(Published { facts, identity }) = published else { return };
        for address in &facts.addresses {
            let claims = self.claims.entry(*address).or_insert_with(|| Vec::with_capacity(1));
            if let Err(at) = place(claims, &facts.claim) {
                claims.insert(at, (Arc::clone(&facts.claim), *identity));
            }
        }
        if let Some(identity) = identity {
            dirty.parts.insert(Part::Identity(*identity));
            self.users.entry(*identity).or_default().insert(key.clone());
            self.note(*identity);
        }
        if let Some(node) = &facts.node {
            self.pods_on.entry(node.clone()).or_default().insert(key.clone());
        }
    }

    /// What a part publishes now.
    fn compute(&self, part: &Part) -> Output {
        match part {
            Part::Config => self.config(),
            Part::Foreign => self.foreign(),
            Part::Node(name) if self.numbering == Numbering::Cilium => match self.index.cilium_node(name) {
                Some(object) => cilium::node_record(&self.cluster, name, object),
                None => Output::default(),
            },
            Part::Identity(identity) if self.numbering == Numbering::Cilium => {
                self.cilium_identity(*identity)
            }
            Part::Node(name) => match self.index.node(name) {
                Some(object) => node::record(&self.cluster, name, object),
                None => Output::default(),
            },
            Part::Identity(identity) => match self.identities.labels(*identity) {
                Some(labels) if self.users.contains_key(identity) => {
                    pod::identity_record(&self.cluster, *identity, labels)
                }
                _ => Output::default(),
            },
            Part::Address(address) => self.address(*address),
            Part::Pod(namespace, name) => self.pod_findings(namespace, name),
            Part::Service(namespace, name) => self.service(namespace, name),
            Part::Slice(namespace, name) => self.slice(namespace, name),
        }
    }

    fn config(&self) -> Output {
        let mut output = Output::default();
        let config = ClusterConfig::of_hub(self.cluster.id, self.cluster.max);
        output.publish(key::cluster_config(&self.cluster.name), config.encode());
        output
    }

    fn address(&self, address: IpAddr) -> Output {
        let mut claims = self.claims.get(&address).into_iter().flatten();
        let Some((first, identity)) = claims.next() else { return Output::default() };
        let mut output = if self.numbering == Numbering::Cilium {
            match self.index.cilium_endpoint(&first.namespace, &first.name) {
                Some(endpoint) => cilium::address_record(&self.cluster, address, endpoint),
                None => return Output::default(),
            }
        } else {
            let Some(pod) = self.index.pod(&first.namespace, &first.name) else { return Output::default() };
            let node = pod.node.as_deref().and_then(|name| self.index.node(name));
            let node = node.map(|node| &**node);
            pod::address_record(&self.cluster, address, *identity, first, pod, node)
        };
        for (other, _) in claims {
            output.findings.push(
                Finding::error(Reason::AddressClaimedTwice, format_args!("Pod {}/{}", other.namespace, other.name))
                    .found(format_args!(
                        "claims address {address}, which Pod {}/{} has",
                        first.namespace, first.name
                    ))
                    .expected("each address to belong to one pod")
                    .so("the older pod, else the one whose name comes first, keeps the address; correct status.podIPs"),
            );
        }
        output
    }

    fn pod_findings(&self, namespace: &str, name: &str) -> Output {
        let Some(object) = self.index.pod(namespace, name).filter(|_| self.numbering != Numbering::Cilium)
        else {
            return Output::default();
        };
        let space = self.index.space(namespace).and_then(|space| space.object());
        let (facts, mut findings) = pod::facts(&self.cluster, &self.filter, namespace, name, object, space);
        let identity = self.pods.get(&(namespace.to_owned(), name.to_owned())).and_then(|pod| pod.identity);
        if facts.is_some() && identity.is_none() {
            let (_, all) = self.identities.usage();
            findings.push(
                Finding::error(Reason::IdentitiesExhausted, format_args!("Pod {namespace}/{name}"))
                    .found(format_args!(
                        "its labels have no identity, and all {all} of the cluster are in use"
                    ))
                    .expected("fewer distinct sets of labels")
                    .so("published as unknown (identity 0)"),
            );
        }
        Output { findings, ..Output::default() }
    }

    fn service(&self, namespace: &str, name: &str) -> Output {
        let mut output = Output::default();
        let Some(space) = self.index.space(namespace) else { return output };
        let Some(object) = space.services().get(name) else { return output };
        if service::is_external_name(object) {
            return output;
        }
        let Ok(service_name) = ServiceName::new(namespace, name) else { return output };
        let label = format!("Service {service_name}");
        let sharing = Sharing::of(object, &label, &mut output.findings);
        let published = self.is_published(namespace, sharing);
        if published {
            let value = service::value(&self.cluster, namespace, name, object, space.slices_of(name));
            output.publish(key::service(&self.cluster.name, &service_name), value.encode());
        } else if sharing.shared {
            output.findings.push(
                Finding::info(Reason::NothingExported, &label)
                    .found(format_args!(
                        "the service is global, but namespace {namespace} takes no part in the mesh"
                    ))
                    .so(format_args!(
                        "its backends are not published; annotate the namespace {}=true",
                        namespace::GLOBAL
                    )),
            );
        }
        let own = space.slices_of(name);
        let value = local::value(service_name, object, sharing, published, own, &mut output.findings);
        // Where Cilium runs, pods are not read.
        let tells = self.numbering != Numbering::Cilium && value.backends.is_empty();
        if let Some(selector) = service::selector(object).filter(|_| tells) {
            let has_endpoints =
                space.slices_of(name).any(|(_, slice)| slice.endpoints.iter().flatten().next().is_some());
            if !has_endpoints && !service::selects_any(selector, space.pods().values().map(|pod| &**pod)) {
                output.findings.push(
                    Finding::info(Reason::SelectorMatchesNothing, &label)
                        .found(format_args!("selector {} matches no pod", service::selector_text(selector)))
                        .expected(format_args!(
                            "a pod of namespace {namespace} with these labels, or endpoint slices"
                        ))
                        .so("the service has no backends in this cluster"),
                );
            }
        }
        output.publish(key::local_service(&value.name), value.encode());
        output
    }

    fn slice(&self, namespace: &str, name: &str) -> Output {
        let Some(object) = self.index.slice(namespace, name) else { return Output::default() };
        let Some(service_name) = owner(object).filter(|_| service::is_exported(object)) else {
            return Output::default();
        };
        let Some(service) = self.index.service(namespace, service_name) else {
            let finding =
                Finding::info(Reason::ServiceMissing, format_args!("EndpointSlice {namespace}/{name}"))
                    .found(format_args!("it names Service {namespace}/{service_name}, which is not there"))
                    .so("not used");
            return Output { findings: vec![finding], ..Output::default() };
        };
        let sharing = Sharing::of(service, "", &mut Vec::new());
        match self.is_published(namespace, sharing) && !service::is_external_name(service) {
            true => slice::record(&self.cluster, namespace, name, object),
            false => Output::default(),
        }
    }

    fn is_published(&self, namespace: &str, sharing: Sharing) -> bool {
        let object = self.index.space(namespace).and_then(|space| space.object());
        sharing.shared && namespace::is_global(&self.cluster, object)
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

impl Dirty {
    /// Marks what is computed from this object alone.
    fn object(&mut self, reference: &ObjectRef) {
        let (namespace, name) = (reference.namespace().to_owned(), reference.name().to_owned());
        match reference.kind() {
            ObjectKind::Node | ObjectKind::CiliumNode => self.parts.insert(Part::Node(name)),
            ObjectKind::Service => self.parts.insert(Part::Service(namespace, name)),
            ObjectKind::EndpointSlice => self.parts.insert(Part::Slice(namespace, name)),
            ObjectKind::Pod | ObjectKind::CiliumEndpoint => self.pods.insert((namespace, name)),
            ObjectKind::CiliumIdentity => {
                reference.identity().is_some_and(|identity| self.parts.insert(Part::Identity(identity)))
            }
            ObjectKind::Namespace
            | ObjectKind::MeshIdentity
            | ObjectKind::CiliumEndpointSlice
            | ObjectKind::NetworkPolicy
            | ObjectKind::CiliumNetworkPolicy
            | ObjectKind::CiliumClusterwideNetworkPolicy => false,
        };
    }

    fn all(&mut self, kind: ObjectKind, namespace: &str, names: Vec<&String>) {
        for name in names {
            let namespace = namespace.to_owned();
            match kind {
                ObjectKind::Service => self.parts.insert(Part::Service(namespace, name.clone())),
                ObjectKind::EndpointSlice => self.parts.insert(Part::Slice(namespace, name.clone())),
                _ => self.pods.insert((namespace, name.clone())),
            };
        }
    }

    fn addresses(&mut self, published: &Option<Published>) {
        let addresses = published.iter().flat_map(|published| &published.facts.addresses);
        self.parts.extend(addresses.map(|address| Part::Address(*address)));
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

/// Where a claim is, or where it is to be. A pod withdraws its claim before it makes another.
fn place(claims: &[Claimant], claim: &Claim) -> Result<usize, usize> {
    claims.binary_search_by(|(other, _)| (**other).cmp(claim))
}

/// Removes something from the collection of a key, and the collection when it is empty.
fn forget<K: Ord, V, R>(
    map: &mut BTreeMap<K, V>,
    key: &K,
    remove: impl FnOnce(&mut V) -> R,
    is_empty: impl FnOnce(&V) -> bool,
) {
    if let Some(held) = map.get_mut(key) {
        remove(held);
        if is_empty(held) {
            map.remove(key);
        }
    }
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
