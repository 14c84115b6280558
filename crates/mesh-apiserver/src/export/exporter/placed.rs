//! What pods bring into the mesh: who has which address and which identity.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Claimant, Delta, Dirty, Exporter, PodKey, Published, allocation};
use crate::export::Part;
use crate::export::pod::{self, Claim};
use crate::identity::Numbering;

/// What becomes of numbers that no pod has, when all have been given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IdleNumbers {
    Kept,
    Given,
}

impl Exporter {
    /// Finds out anew what a pod brings into the mesh, and marks the identities and addresses that it had and has.
    pub(super) fn place_pod(
        &mut self,
        key: &PodKey,
        idle: IdleNumbers,
        dirty: &mut Dirty,
        delta: &mut Delta,
    ) {
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
