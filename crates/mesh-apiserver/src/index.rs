//! The objects of the own cluster at one moment, as plain state that any source can feed.

mod space;

pub use space::{Space, owner};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use topology::Identity;

use crate::object::{
    Body, CiliumEndpoint, CiliumEndpointSlice, CiliumIdentity, CiliumNode, MeshIdentity, Object, ObjectKind,
    ObjectRef, Pod,
};

/// All objects that are known.
#[derive(Clone, Debug, Default)]
pub struct Index {
    nodes: BTreeMap<String, Arc<Node>>,
    spaces: BTreeMap<String, Space>,
    cilium_nodes: BTreeMap<String, Arc<CiliumNode>>,
    cilium_identities: BTreeMap<Identity, Arc<CiliumIdentity>>,
    /// Those that name a namespace, by it.
    cilium_identities_of: BTreeMap<String, BTreeSet<Identity>>,
    /// Their endpoints are in the namespaces.
    cilium_slices: BTreeMap<String, Arc<CiliumEndpointSlice>>,
    mesh_identities: BTreeMap<Identity, Arc<MeshIdentity>>,
}

/// One change of one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The object is now as given.
    Apply(Object),
    /// The object is no more.
    Delete(ObjectRef),
}

impl Change {
    /// The object that changes.
    pub fn reference(&self) -> &ObjectRef {
        match self {
            Self::Apply(object) => object.reference(),
            Self::Delete(reference) => reference,
        }
    }
}

impl Index {
    /// Makes a change; returns the object as it was before. O(log objects).
    pub fn apply(&mut self, change: Change) -> Option<Body> {
        match change {
            Change::Apply(object) => {
                let reference = object.reference();
                let (namespace, name) = (reference.namespace().to_owned(), reference.name().to_owned());
                let identity = reference.identity();
                match object.body().clone() {
                    Body::Node(node) => self.nodes.insert(name, node).map(Body::Node),
                    Body::CiliumNode(node) => self.cilium_nodes.insert(name, node).map(Body::CiliumNode),
                    Body::MeshIdentity(object) => {
                        self.mesh_identities.insert(identity?, object).map(Body::MeshIdentity)
                    }
                    Body::CiliumIdentity(object) => {
                        let before = self.delete_cilium_identity(identity?);
                        if let Some(namespace) = object.namespace() {
                            let of = self.cilium_identities_of.entry(namespace.to_owned()).or_default();
                            of.insert(identity?);
                        }
                        self.cilium_identities.insert(identity?, object);
                        before.map(Body::CiliumIdentity)
                    }
                    Body::CiliumEndpointSlice(slice) => {
                        let before = self.delete_cilium_slice(&name);
                        for endpoint in &slice.endpoints {
                            let space = self.spaces.entry(slice.namespace.to_string()).or_default();
                            space.slice_in(&name, endpoint);
                        }
                        self.cilium_slices.insert(name, slice);
                        before.map(Body::CiliumEndpointSlice)
                    }
                    Body::Namespace(object) => {
                        self.spaces.entry(name).or_default().insert_object(object).map(Body::Namespace)
                    }
                    // No record is made of them.
                    Body::Policy(_) => None,
                    body => self.spaces.entry(namespace).or_default().insert(name, body),
                }
            }
            Change::Delete(reference) => self.delete(&reference),
        }
    }

    fn delete(&mut self, reference: &ObjectRef) -> Option<Body> {
        let space = match reference.kind() {
            ObjectKind::Node => return self.nodes.remove(reference.name()).map(Body::Node),
            ObjectKind::CiliumNode => {
                return self.cilium_nodes.remove(reference.name()).map(Body::CiliumNode);
            }
            ObjectKind::MeshIdentity => {
                return self.mesh_identities.remove(&reference.identity()?).map(Body::MeshIdentity);
            }
            ObjectKind::CiliumIdentity => {
                return self.delete_cilium_identity(reference.identity()?).map(Body::CiliumIdentity);
            }
            ObjectKind::CiliumEndpointSlice => {
                return self.delete_cilium_slice(reference.name()).map(Body::CiliumEndpointSlice);
            }
            ObjectKind::Namespace => reference.name(),
            _ => reference.namespace(),
        };
        let held = self.spaces.get_mut(space)?;
        let before = held.remove(reference);
        if held.is_empty() {
            self.spaces.remove(space);
        }
        before
    }

    fn delete_cilium_identity(&mut self, identity: Identity) -> Option<Arc<CiliumIdentity>> {
        let before = self.cilium_identities.remove(&identity)?;
        if let Some(namespace) = before.namespace()
            && let Some(of) = self.cilium_identities_of.get_mut(namespace)
        {
            of.remove(&identity);
            if of.is_empty() {
                self.cilium_identities_of.remove(namespace);
            }
        }
        Some(before)
    }

    fn delete_cilium_slice(&mut self, name: &str) -> Option<Arc<CiliumEndpointSlice>> {
        let before = self.cilium_slices.remove(name)?;
        if let Some(space) = self.spaces.get_mut(&*before.namespace) {
            for endpoint in &before.endpoints {
                space.slice_out(name, &endpoint.name);
            }
            if space.is_empty() {
                self.spaces.remove(&*before.namespace);
            }
        }
        Some(before)
    }

    /// References of all objects.
    pub fn references(&self) -> impl Iterator<Item = ObjectRef> + '_ {
        let reference = |kind, namespace: Option<&str>, name: &str| {
            ObjectRef::new(kind, namespace, name)
                .expect("only objects with sound references are in the index")
        };
        let nodes = self.nodes.keys().map(move |name| reference(ObjectKind::Node, None, name));
        let cilium_nodes = self.cilium_nodes.keys();
        let cilium_nodes = cilium_nodes.map(move |name| reference(ObjectKind::CiliumNode, None, name));
        let numbered = move |kind| move |identity: &Identity| reference(kind, None, &identity.to_string());
        let ours = self.mesh_identities.keys().map(numbered(ObjectKind::MeshIdentity));
        let theirs = self.cilium_identities.keys().map(numbered(ObjectKind::CiliumIdentity));
        let spaced = self.spaces.iter().flat_map(move |(namespace, space)| {
            let within = move |kind| move |name: &String| reference(kind, Some(namespace), name);
            let object =
                space.object().into_iter().map(move |_| reference(ObjectKind::Namespace, None, namespace));
            object
                .chain(space.services().keys().map(within(ObjectKind::Service)))
                .chain(space.slices().keys().map(within(ObjectKind::EndpointSlice)))
                .chain(space.pods().keys().map(within(ObjectKind::Pod)))
                .chain(space.endpoints().keys().map(within(ObjectKind::CiliumEndpoint)))
        });
        let slices = self.cilium_slices.keys();
        let slices = slices.map(move |name| reference(ObjectKind::CiliumEndpointSlice, None, name));
        nodes.chain(cilium_nodes).chain(ours).chain(theirs).chain(slices).chain(spaced)
    }

    /// The namespace with what is in it.
    pub fn space(&self, namespace: &str) -> Option<&Space> {
        self.spaces.get(namespace)
    }

    /// A node.
    pub fn node(&self, name: &str) -> Option<&Arc<Node>> {
        self.nodes.get(name)
    }

    /// A service.
    pub fn service(&self, namespace: &str, name: &str) -> Option<&Arc<Service>> {
        self.space(namespace)?.services().get(name)
    }

    /// An endpoint slice.
    pub fn slice(&self, namespace: &str, name: &str) -> Option<&Arc<EndpointSlice>> {
        self.space(namespace)?.slices().get(name)
    }

    /// A pod.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&Arc<Pod>> {
        self.space(namespace)?.pods().get(name)
    }

    /// A node as Cilium has it.
    pub fn cilium_node(&self, name: &str) -> Option<&Arc<CiliumNode>> {
        self.cilium_nodes.get(name)
    }

    /// An endpoint of Cilium: its own object, else what the first slice by name says of it.
    pub fn cilium_endpoint(&self, namespace: &str, name: &str) -> Option<&Arc<CiliumEndpoint>> {
        self.space(namespace)?.endpoint(name)
    }

    /// The endpoints that slices tell of, by namespace and name; one of several slices comes several times.
    pub fn sliced(&self) -> impl Iterator<Item = (&str, &str)> {
        let endpoints = self.cilium_slices.values().flat_map(|slice| &slice.endpoints);
        endpoints.map(|endpoint| (&*endpoint.namespace, &*endpoint.name))
    }

    /// The identities of Cilium, by number.
    pub fn cilium_identities(&self) -> &BTreeMap<Identity, Arc<CiliumIdentity>> {
        &self.cilium_identities
    }

    /// The identities of Cilium whose labels name a namespace.
    pub fn cilium_identities_of(&self, namespace: &str) -> impl Iterator<Item = Identity> + '_ {
        self.cilium_identities_of.get(namespace).into_iter().flatten().copied()
    }

    /// Our own identities as the API server has them, by number.
    pub fn mesh_identities(&self) -> &BTreeMap<Identity, Arc<MeshIdentity>> {
        &self.mesh_identities
    }

    /// Number of objects of each kind that is followed everywhere, and of others that there are.
    pub fn counts(&self) -> BTreeMap<ObjectKind, usize> {
        let sum = |of: fn(&Space) -> usize| self.spaces.values().map(of).sum();
        let custom = [
            (ObjectKind::MeshIdentity, self.mesh_identities.len()),
            (ObjectKind::CiliumIdentity, self.cilium_identities.len()),
            (ObjectKind::CiliumEndpoint, sum(|space| space.endpoints().len())),
            (ObjectKind::CiliumNode, self.cilium_nodes.len()),
            (ObjectKind::CiliumEndpointSlice, self.cilium_slices.len()),
        ];
        let mut counts = BTreeMap::from([
            (ObjectKind::Namespace, sum(|space| usize::from(space.object().is_some()))),
            (ObjectKind::Node, self.nodes.len()),
            (ObjectKind::Service, sum(|space| space.services().len())),
            (ObjectKind::EndpointSlice, sum(|space| space.slices().len())),
            (ObjectKind::Pod, sum(|space| space.pods().len())),
        ]);
        counts.extend(custom.into_iter().filter(|(_, count)| *count > 0));
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(name: &str, service: &str) -> Object {
        let mut slice = EndpointSlice::default();
        slice.metadata.namespace = Some("shop".to_owned());
        slice.metadata.name = Some(name.to_owned());
        slice.metadata.labels = Some(BTreeMap::from([("kubernetes.io/service-name".into(), service.into())]));
        Object::try_from(Body::EndpointSlice(Arc::new(slice))).expect("a sound slice")
    }

    #[test]
    fn a_slice_can_change_its_service() {
        let mut index = Index::default();
        index.apply(Change::Apply(slice("s1", "cart")));
        index.apply(Change::Apply(slice("s2", "cart")));
        index.apply(Change::Apply(slice("s1", "cash")));
        let names = |index: &Index, service: &str| -> Vec<String> {
            let space = index.space("shop").into_iter();
            space
                .flat_map(|s| s.slices_of(service).map(|(name, _)| name.to_owned()).collect::<Vec<_>>())
                .collect()
        };
        assert_eq!((names(&index, "cart"), names(&index, "cash")), (vec!["s2".into()], vec!["s1".into()]));
        for reference in index.references().collect::<Vec<_>>() {
            assert!(index.apply(Change::Delete(reference)).is_some());
        }
        assert!(index.space("shop").is_none(), "empty namespaces are forgotten");
    }
}
