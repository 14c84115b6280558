//! Who says which number a pod has: the objects of our own identities, and those of Cilium.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use topology::{Identity, Labels};

use super::{Delta, Dirty, Exporter, Published, allocation};
use crate::export::pod::{Claim, PodFacts};
use crate::export::{Output, Part, namespace, pod};
use crate::finding::{Finding, Reason};
use crate::identity::registrar::Want;
use crate::identity::{LabelFilter, Numbering, Registry};
use crate::object::MeshIdentity;

impl Exporter {
    /// Lets only some labels count. To be called before the first objects.
    #[must_use]
    pub fn filtering(self, filter: LabelFilter) -> Self {
        Self { filter, ..self }
    }

    /// Who gives numbers now.
    pub fn numbering(&self) -> Numbering {
        self.numbering
    }

    /// Lets somebody else give numbers, from the next step on; returns whether that is new. That step computes
    /// everything anew.
    pub fn number_by(&mut self, numbering: Numbering) -> bool {
        let changed = std::mem::replace(&mut self.numbering, numbering) != numbering;
        self.stale |= changed;
        changed
    }

    /// Numbers that pods have and no object gives them, with what is to be done about it. Nobody is to see these numbers
    /// before. O(such numbers).
    pub fn open(&self) -> impl Iterator<Item = (Identity, Want)> + '_ {
        self.open.iter().filter_map(|identity| {
            let labels = self.identities.labels(*identity)?;
            let want = match self.registry.object(*identity) {
                Some(object) => Want::Unmarked(Arc::clone(object)),
                None => Want::Exists(Arc::clone(labels)),
            };
            Some((*identity, want))
        })
    }

    /// The objects of numbers that no pod has. O(objects).
    pub fn idle(&self) -> impl Iterator<Item = (Identity, Arc<MeshIdentity>)> + '_ {
        let objects = self.registry.objects().filter(|(identity, _)| !self.is_used(*identity));
        objects.map(|(identity, object)| (identity, Arc::clone(object)))
    }

    /// Whether a pod has a number.
    pub fn is_used(&self, identity: Identity) -> bool {
        self.users.contains_key(&identity)
    }

    /// The records that name a number. O(pods that have it).
    pub fn records_of(&self, identity: Identity) -> Vec<(String, Bytes)> {
        let pods = self.users.get(&identity).into_iter().flatten();
        let addresses = pods.filter_map(|pod| self.pods.get(pod)).flat_map(|pod| &pod.facts.addresses);
        let parts = addresses.map(|address| Part::Address(*address));
        let parts = std::iter::once(Part::Identity(identity)).chain(parts);
        let outputs = parts.filter_map(|part| self.outputs.get(&part));
        outputs.flat_map(|output| output.records.iter().cloned()).collect()
    }

    /// Numbers that pods or objects have, and numbers that there are.
    pub fn numbers_in_use(&self) -> (usize, usize) {
        let (_, all) = self.identities.usage();
        let used = match self.numbering {
            Numbering::Store => self.users.len(),
            Numbering::Objects => self.users.len().max(self.registry.len()),
            Numbering::Cilium => self.index.cilium_identities().len(),
        };
        (used, all)
    }

    /// Marks everything, and reads anew what objects say.
    pub(super) fn all_dirty(&mut self, dirty: &mut Dirty) {
        for reference in self.index.references() {
            dirty.object(&reference);
        }
        dirty.sliced(&self.index);
        self.registry = Registry::default();
        self.identities.unreserve_all();
        self.open.clear();
        self.foreign.clear();
        dirty.parts.insert(Part::Foreign);
        let identities: Vec<Identity> = match self.numbering {
            Numbering::Store => Vec::new(),
            Numbering::Objects => self.index.mesh_identities().keys().copied().collect(),
            Numbering::Cilium => self.index.cilium_identities().keys().copied().collect(),
        };
        // First all that there are: which of two counts is known then, and no number goes back and forth.
        let mut touched = BTreeSet::new();
        for identity in &identities {
            touched.extend(self.register(*identity, dirty));
        }
        for labels in touched {
            self.settle(&labels, dirty);
        }
        let used: Vec<Identity> = self.users.keys().copied().collect();
        for identity in used {
            self.note(identity);
        }
    }

    /// Takes in that an object of a number changed, came or went.
    pub(super) fn number_changed(&mut self, identity: Identity, dirty: &mut Dirty) {
        for labels in self.register(identity, dirty) {
            self.settle(&labels, dirty);
        }
        self.note(identity);
    }

    /// Takes in the object of a number as it is now, or that there is none; returns labels whose number may have changed.
    fn register(&mut self, identity: Identity, dirty: &mut Dirty) -> Vec<Arc<Labels>> {
        let range = super::identity_range(&self.cluster);
        // Our own numbers begin after the first one, which nobody has.
        let is_given = self.numbering == Numbering::Cilium || identity.0 != *range.start();
        let ours = range.contains(&identity.0) && is_given;
        let is_there = match self.numbering {
            Numbering::Store => return Vec::new(),
            Numbering::Objects => self.index.mesh_identities().contains_key(&identity),
            Numbering::Cilium => self.index.cilium_identities().contains_key(&identity),
        };
        let changed = match is_there && !ours {
            true => self.foreign.insert(identity),
            false => self.foreign.remove(&identity),
        };
        if changed {
            dirty.parts.insert(Part::Foreign);
        }
        if self.numbering == Numbering::Cilium || !ours {
            return Vec::new();
        }
        let object = self.index.mesh_identities().get(&identity).cloned();
        self.identities.reserve(identity, object.is_some());
        if let Some(object) = &object
            && self.identities.labels(identity).is_some_and(|labels| *labels != object.labels)
        {
            // The number is another's, who was first.
            self.displace(identity, dirty);
            self.identities.forget(identity);
        }
        self.registry.set(identity, object)
    }

    /// Gives labels the number that an object gives them.
    fn settle(&mut self, labels: &Arc<Labels>, dirty: &mut Dirty) {
        let before = self.identities.number(labels);
        match self.registry.number(labels) {
            Some(winner) if before != Some(winner) => {
                for identity in before.into_iter().chain([winner]) {
                    self.displace(identity, dirty);
                }
                self.identities.claim(winner, Arc::clone(labels));
                dirty.renumber = true;
            }
            Some(_) => {}
            None => {
                // Its object is gone. Whoever has the number keeps it, and the object is made again.
                if let Some(identity) = before.filter(|identity| !self.is_used(*identity)) {
                    self.displace(identity, dirty);
                    self.identities.forget(identity);
                    dirty.renumber = true;
                }
            }
        }
        for identity in before.into_iter().chain(self.registry.number(labels)) {
            self.note(identity);
        }
    }

    /// Marks what depends on whose a number is.
    fn displace(&self, identity: Identity, dirty: &mut Dirty) {
        dirty.pods.extend(self.users.get(&identity).into_iter().flatten().cloned());
        dirty.parts.insert(Part::Identity(identity));
        dirty.renumbered.insert(identity);
    }

    /// Finds out anew whether a number waits for its object.
    pub(super) fn note(&mut self, identity: Identity) {
        let labels = self.identities.labels(identity);
        let waits = self.numbering == Numbering::Objects
            && self.is_used(identity)
            && labels.is_some_and(|labels| !self.registry.says(identity, labels));
        match waits {
            true => self.open.insert(identity),
            false => self.open.remove(&identity),
        };
    }

    /// Writes down whose the numbers are that objects gave.
    pub(super) fn write_renumbered(&mut self, renumbered: BTreeSet<Identity>, delta: &mut Delta) {
        for identity in renumbered {
            self.note(identity);
            match self.identities.labels(identity) {
                Some(labels) => {
                    let (key, value) = allocation(identity, labels);
                    delta.deletes.remove(&key);
                    delta.puts.insert(key, value);
                }
                None => {
                    let (key, _) = allocation(identity, &Labels::default());
                    delta.puts.remove(&key);
                    delta.deletes.insert(key);
                }
            }
        }
    }

    /// What an endpoint of Cilium brings into the mesh.
    pub(super) fn cilium_endpoint(&self, space: &str, name: &str) -> Option<Published> {
        let endpoint = self.index.cilium_endpoint(space, name);
        let endpoint = endpoint.filter(|_| self.numbering == Numbering::Cilium)?;
        let object = self.index.space(space).and_then(|space| space.object());
        let facts = PodFacts {
            labels: Arc::default(),
            addresses: endpoint.addresses.clone(),
            node: None,
            claim: Arc::new(Claim::new(endpoint.created, space, name)),
        };
        namespace::is_global(&self.cluster, object).then_some(Published { facts, identity: None })
    }

    /// The record of an identity of Cilium. One without labels has none, as in stock; nor has one of another cluster.
    pub(super) fn cilium_identity(&self, identity: Identity) -> Output {
        let found = self.index.cilium_identities().get(&identity);
        let found = found.filter(|found| found.labels.iter().next().is_some());
        let Some(found) = found.filter(|_| !self.foreign.contains(&identity)) else {
            return Output::default();
        };
        let space = found.namespace().and_then(|namespace| self.index.space(namespace));
        match namespace::is_global(&self.cluster, space.and_then(|space| space.object())) {
            true => pod::identity_record(&self.cluster, identity, &found.labels),
            false => Output::default(),
        }
    }

    /// One finding for all identities whose numbers are not of this cluster: there may be thousands.
    pub(super) fn foreign(&self) -> Output {
        let mut output = Output::default();
        let Some(first) = self.foreign.first() else { return output };
        let range = super::identity_range(&self.cluster);
        let (kind, advice) = match self.numbering {
            Numbering::Cilium => (
                "CiliumIdentity",
                "not published; cluster-id in cilium-config and --cluster-id must be the same",
            ),
            _ => ("MeshIdentity", "not used; delete them, or correct --cluster-id"),
        };
        output.findings.push(
            Finding::error(Reason::IdentityForeign, format_args!("{kind} {first}"))
                .found("the number of this one, and perhaps of others, is not one of this cluster")
                .expected(format_args!("{} to {}", range.start(), range.end()))
                .so(advice),
        );
        output
    }
}

#[cfg(test)]
mod tests;
