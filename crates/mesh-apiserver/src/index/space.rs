//! What is in one namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::object::{Body, CiliumEndpoint, ObjectKind, ObjectRef, Pod};

/// Holds what is in one namespace. Objects may be there before their Namespace object is.
#[derive(Clone, Debug, Default)]
pub struct Space {
    object: Option<Arc<Namespace>>,
    services: BTreeMap<String, Arc<Service>>,
    slices: BTreeMap<String, Arc<EndpointSlice>>,
    /// Names of slices, by the service that they say they belong to.
    slices_of: BTreeMap<String, BTreeSet<String>>,
    pods: BTreeMap<String, Arc<Pod>>,
    endpoints: BTreeMap<String, Arc<CiliumEndpoint>>,
    /// Endpoints of which slices tell, by the names of the endpoint and of the slice.
    sliced: BTreeMap<String, BTreeMap<String, Arc<CiliumEndpoint>>>,
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

    /// The endpoints of Cilium, by name.
    pub fn endpoints(&self) -> &BTreeMap<String, Arc<CiliumEndpoint>> {
        &self.endpoints
    }

    /// The endpoint slices that say they belong to `service`, in the order of their names.
    pub fn slices_of<'a>(&'a self, service: &str) -> impl Iterator<Item = (&'a str, &'a EndpointSlice)> {
        let names = self.slices_of.get(service).into_iter().flatten();
        names.filter_map(|name| self.slices.get(name).map(|slice| (name.as_str(), &**slice)))
    }

    /// An endpoint of Cilium: its own object, else what the first slice by name says of it.
    pub(super) fn endpoint(&self, name: &str) -> Option<&Arc<CiliumEndpoint>> {
        self.endpoints.get(name).or_else(|| self.sliced.get(name)?.values().next())
    }

    /// Names of all endpoints of Cilium; one that is an object and in a slice comes twice.
    pub fn endpoint_names(&self) -> impl Iterator<Item = &String> {
        self.endpoints.keys().chain(self.sliced.keys())
    }

    pub(super) fn insert_object(&mut self, object: Arc<Namespace>) -> Option<Arc<Namespace>> {
        self.object.replace(object)
    }

    /// A slice tells of an endpoint.
    pub(super) fn slice_in(&mut self, slice: &str, endpoint: &Arc<CiliumEndpoint>) {
        let told = self.sliced.entry(endpoint.name.to_string()).or_default();
        told.insert(slice.to_owned(), Arc::clone(endpoint));
    }

    /// A slice tells of an endpoint no more.
    pub(super) fn slice_out(&mut self, slice: &str, endpoint: &str) {
        if let Some(told) = self.sliced.get_mut(endpoint) {
            told.remove(slice);
            if told.is_empty() {
                self.sliced.remove(endpoint);
            }
        }
    }

    pub(super) fn insert(&mut self, name: String, body: Body) -> Option<Body> {
        match body {
            Body::Service(service) => self.services.insert(name, service).map(Body::Service),
            Body::Pod(pod) => self.pods.insert(name, pod).map(Body::Pod),
            Body::CiliumEndpoint(endpoint) => self.endpoints.insert(name, endpoint).map(Body::CiliumEndpoint),
            Body::EndpointSlice(slice) => {
                let service = owner(&slice).map(str::to_owned);
                let before = self.slices.insert(name.clone(), slice);
                self.unlink(&name, before.as_deref());
                if let Some(service) = service {
                    self.slices_of.entry(service).or_default().insert(name);
                }
                before.map(Body::EndpointSlice)
            }
            Body::Node(_)
            | Body::Namespace(_)
            | Body::MeshIdentity(_)
            | Body::CiliumIdentity(_)
            | Body::CiliumNode(_)
            | Body::CiliumEndpointSlice(_)
            | Body::Policy(_) => None,
        }
    }

    pub(super) fn remove(&mut self, reference: &ObjectRef) -> Option<Body> {
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
            ObjectKind::CiliumEndpoint => self.endpoints.remove(name).map(Body::CiliumEndpoint),
            ObjectKind::Node
            | ObjectKind::MeshIdentity
            | ObjectKind::CiliumIdentity
            | ObjectKind::CiliumNode
            | ObjectKind::CiliumEndpointSlice
            | ObjectKind::NetworkPolicy
            | ObjectKind::CiliumNetworkPolicy
            | ObjectKind::CiliumClusterwideNetworkPolicy => None,
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

    pub(super) fn is_empty(&self) -> bool {
        self.object.is_none()
            && self.services.is_empty()
            && self.slices.is_empty()
            && self.pods.is_empty()
            && self.endpoints.is_empty()
            && self.sliced.is_empty()
    }
}

/// The service that a slice says it belongs to.
pub fn owner(slice: &EndpointSlice) -> Option<&str> {
    let label = slice.metadata.labels.as_ref()?.get("kubernetes.io/service-name")?;
    (!label.is_empty()).then_some(label.as_str())
}
