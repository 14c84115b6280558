//! What a step has to look at again.

use std::collections::BTreeSet;

use topology::Identity;

use super::{PodKey, Published};
use crate::export::Part;
use crate::object::{ObjectKind, ObjectRef};

/// Holds the parts and pods that a step has to look at again.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    pub(super) parts: BTreeSet<Part>,
    pub(super) pods: BTreeSet<PodKey>,
    /// Whether a pod found no number, or the last pod with some number is gone.
    pub(super) renumber: bool,
    /// Numbers that objects gave to other labels, or to none.
    pub(super) renumbered: BTreeSet<Identity>,
}

impl Dirty {
    /// Marks what is computed from this object alone.
    pub(super) fn object(&mut self, reference: &ObjectRef) {
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

    pub(super) fn all(&mut self, kind: ObjectKind, namespace: &str, names: Vec<&String>) {
        for name in names {
            let namespace = namespace.to_owned();
            match kind {
                ObjectKind::Service => self.parts.insert(Part::Service(namespace, name.clone())),
                ObjectKind::EndpointSlice => self.parts.insert(Part::Slice(namespace, name.clone())),
                _ => self.pods.insert((namespace, name.clone())),
            };
        }
    }

    pub(super) fn addresses(&mut self, published: &Option<Published>) {
        let addresses = published.iter().flat_map(|published| &published.facts.addresses);
        self.parts.extend(addresses.map(|address| Part::Address(*address)));
    }
}
