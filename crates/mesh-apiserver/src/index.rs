//! The objects of the own cluster at one moment, as plain state that any source can feed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::object::{Body, Object, ObjectKind, ObjectRef, Pod};

/// All objects that are known.
#[derive(Clone, Debug, Default)]
pub struct Index {
    nodes: BTreeMap<String, Arc<Node>>,
    spaces: BTreeMap<String, Space>,
}

/// Holds what is in one namespace. Objects may be there before their Namespace object is.
#[derive(Clone, Debug, Default)]
pub struct Space {
    object: Option<Arc<Namespace>>,
    services: BTreeMap<String, Arc<Service>>,
    slices: BTreeMap<String, Arc<EndpointSlice>>,
    /// Names of slices, by the service that they say they belong to.
    slices_of: BTreeMap<String, BTreeSet<String>>,
    pods: BTreeMap<String, Arc<Pod>>,
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
                match object.body().clone() {
                    Body::Node(node) => self.nodes.insert(name, node).map(Body::Node),
                    Body::Namespace(object) => {
                        self.spaces.entry(name).or_default().object.replace(object).map(Body::Namespace)
                    }
                    body => self.spaces.entry(namespace).or_default().insert(name, body),
                }
            }
            Change::Delete(reference) => self.delete(&reference),
        }
    }

    fn delete(&mut self, reference: &ObjectRef) -> Option<Body> {
        let space = match reference.kind() {
            ObjectKind::Node => return self.nodes.remove(reference.name()).map(Body::Node),
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

    /// References of all objects.
    pub fn references(&self) -> impl Iterator<Item = ObjectRef> + '_ {
        let reference = |kind, namespace: Option<&str>, name: &str| {
            ObjectRef::new(kind, namespace, name)
                .expect("only objects with sound references are in the index")
        };
        let nodes = self.nodes.keys().map(move |name| reference(ObjectKind::Node, None, name));
        let spaced = self.spaces.iter().flat_map(move |(namespace, space)| {
            let within = move |kind| move |name: &String| reference(kind, Some(namespace), name);
            let object = space.object.iter().map(move |_| reference(ObjectKind::Namespace, None, namespace));
            object
                .chain(space.services.keys().map(within(ObjectKind::Service)))
                .chain(space.slices.keys().map(within(ObjectKind::EndpointSlice)))
                .chain(space.pods.keys().map(within(ObjectKind::Pod)))
        });
        nodes.chain(spaced)
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
        self.space(namespace)?.services.get(name)
    }

    /// An endpoint slice.
    pub fn slice(&self, namespace: &str, name: &str) -> Option<&Arc<EndpointSlice>> {
        self.space(namespace)?.slices.get(name)
    }

    /// A pod.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&Arc<Pod>> {
        self.space(namespace)?.pods.get(name)
    }

    /// Number of objects of each kind.
    pub fn counts(&self) -> BTreeMap<ObjectKind, usize> {
        let sum = |of: fn(&Space) -> usize| self.spaces.values().map(of).sum();
        BTreeMap::from([
            (ObjectKind::Namespace, sum(|space| usize::from(space.object.is_some()))),
            (ObjectKind::Node, self.nodes.len()),
            (ObjectKind::Service, sum(|space| space.services.len())),
            (ObjectKind::EndpointSlice, sum(|space| space.slices.len())),
            (ObjectKind::Pod, sum(|space| space.pods.len())),
        ])
    }
}

impl Space {
    /// The Namespace object, if it is known.
    pub fn object(&self) -> Option<&Namespace> {
        self.object.as_deref()
    }

    /// The services, by name.
    pub fn services(&self) -> &BTreeMap<String, Arc<Service>> {
        &self.services
    }

    /// The endpoint slices, by name.
    pub fn slices(&self) -> &BTreeMap<String, Arc<EndpointSlice>> {
        &self.slices
    }

    /// The pods, by name.
    pub fn pods(&self) -> &BTreeMap<String, Arc<Pod>> {
        &self.pods
    }

    /// The endpoint slices that say they belong to `service`, in the order of their names.
    pub fn slices_of<'a>(&'a self, service: &str) -> impl Iterator<Item = (&'a str, &'a EndpointSlice)> {
        let names = self.slices_of.get(service).into_iter().flatten();
        names.filter_map(|name| self.slices.get(name).map(|slice| (name.as_str(), &**slice)))
    }

    fn insert(&mut self, name: String, body: Body) -> Option<Body> {
        match body {
            Body::Service(service) => self.services.insert(name, service).map(Body::Service),
            Body::Pod(pod) => self.pods.insert(name, pod).map(Body::Pod),
            Body::EndpointSlice(slice) => {
                let service = owner(&slice).map(str::to_owned);
                let before = self.slices.insert(name.clone(), slice);
                self.unlink(&name, before.as_deref());
                if let Some(service) = service {
                    self.slices_of.entry(service).or_default().insert(name);
                }
                before.map(Body::EndpointSlice)
            }
            Body::Node(_) | Body::Namespace(_) => None,
        }
    }

    fn remove(&mut self, reference: &ObjectRef) -> Option<Body> {
        let name = reference.name();
        match reference.kind() {
            ObjectKind::Namespace => self.object.take().map(Body::Namespace),
            ObjectKind::Service => self.services.remove(name).map(Body::Service),
            ObjectKind::Pod => self.pods.remove(name).map(Body::Pod),
            ObjectKind::EndpointSlice => {
                let before = self.slices.remove(name);
                self.unlink(name, before.as_deref());
                before.map(Body::EndpointSlice)
            }
            ObjectKind::Node => None,
        }
    }

    fn unlink(&mut self, name: &str, slice: Option<&EndpointSlice>) {
        let Some(service) = slice.and_then(owner) else { return };
        if let Some(names) = self.slices_of.get_mut(service) {
            names.remove(name);
            if names.is_empty() {
                self.slices_of.remove(service);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.object.is_none() && self.services.is_empty() && self.slices.is_empty() && self.pods.is_empty()
    }
}

/// The service that a slice says it belongs to.
pub fn owner(slice: &EndpointSlice) -> Option<&str> {
    let label = slice.metadata.labels.as_ref()?.get("kubernetes.io/service-name")?;
    (!label.is_empty()).then_some(label.as_str())
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
