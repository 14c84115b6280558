//! The own cluster's global services, and the slices of other clusters' backends that it has, as the hub tells them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::sync::watch;
use topology::ServiceName;
use topology::record::local::LocalService;

use crate::export::annotation::Sharing;
use crate::export::{local, service};
use crate::index::{Change, Index, owner};
use crate::object::{Body, ObjectKind};
use crate::source::SourceEvent;

/// The own objects at one moment. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub struct Own {
    /// Services and slices have all been read.
    pub complete: bool,
    /// Global services, and whatever has slices of other clusters' backends; by name.
    pub services: OrdMap<ServiceName, Arc<OwnService>>,
}

/// A service of the own cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OwnService {
    /// The service with its own backends; `None` if slices name a service that is not there, or that is not global.
    pub global: Option<GlobalService>,
    /// Slices of other clusters' backends, by name, whoever wrote them.
    pub slices: BTreeMap<String, Arc<EndpointSlice>>,
}

/// A global service with its own backends.
#[derive(Clone, Debug, PartialEq)]
pub struct GlobalService {
    /// As it is in the API server.
    pub object: Arc<Service>,
    /// As the own agents are told.
    pub local: LocalService,
}

/// Tells others of the own objects.
#[derive(Clone, Debug)]
pub struct Teller(watch::Sender<Own>);

impl Teller {
    /// With whoever listens.
    pub fn new() -> (Self, watch::Receiver<Own>) {
        let (sender, receiver) = watch::channel(Own::default());
        (Self(sender), receiver)
    }

    /// Nothing is known any more: another hub begins.
    pub fn begin(&self) {
        self.0.send_replace(Own::default());
    }

    /// The services that an event touches; to be asked before the event is in the index.
    pub fn touched(&self, event: &SourceEvent, index: &Index) -> BTreeSet<ServiceName> {
        let changes = match event {
            SourceEvent::Unread => return BTreeSet::new(),
            // All that there was. All that there is follows with `tell`.
            SourceEvent::Reset(_) => return self.0.borrow().services.keys().cloned().collect(),
            SourceEvent::Changes(changes) => changes,
        };
        let mut touched = BTreeSet::new();
        for change in changes {
            let reference = change.reference();
            let namespace = reference.namespace();
            let mut touch = |name: &str| touched.extend(ServiceName::new(namespace, name).ok());
            match reference.kind() {
                ObjectKind::Service => touch(reference.name()),
                ObjectKind::EndpointSlice => {
                    let before = index.slice(namespace, reference.name());
                    before.and_then(|slice| owner(slice)).into_iter().for_each(&mut touch);
                    if let Change::Apply(object) = change
                        && let Body::EndpointSlice(slice) = object.body()
                    {
                        owner(slice).into_iter().for_each(&mut touch);
                    }
                }
                _ => {}
            }
        }
        touched
    }

    /// Tells how the touched services are now; of all services if `all`. `complete`: services and slices can be read.
    pub fn tell(&self, mut touched: BTreeSet<ServiceName>, all: bool, index: &Index, complete: bool) {
        if all {
            touched.extend(index.references().filter_map(|reference| {
                let name = match reference.kind() {
                    ObjectKind::Service => reference.name().to_owned(),
                    ObjectKind::EndpointSlice => {
                        let slice = index.slice(reference.namespace(), reference.name())?;
                        owner(slice)?.to_owned()
                    }
                    _ => return None,
                };
                ServiceName::new(reference.namespace(), name).ok()
            }));
        }
        let changed = touched.into_iter().map(|name| (OwnService::of(&name, index), name));
        let changed: Vec<_> = changed.collect();
        self.0.send_if_modified(|own| {
            let mut modified = own.complete != complete;
            own.complete = complete;
            for (now, name) in changed {
                modified |= match now {
                    Some(now) if own.services.get(&name).is_some_and(|before| **before == now) => false,
                    Some(now) => {
                        own.services.insert(name, Arc::new(now));
                        true
                    }
                    None => own.services.remove(&name).is_some(),
                };
            }
            modified
        });
    }
}

impl OwnService {
    /// A service as it is in the index; `None` if it is neither global nor has slices of other clusters' backends.
    fn of(name: &ServiceName, index: &Index) -> Option<Self> {
        let space = index.space(name.namespace())?;
        let of_mesh = space.slices_of(name.name()).filter(|(_, slice)| !service::is_exported(slice));
        let slices: BTreeMap<String, Arc<EndpointSlice>> = of_mesh
            .filter_map(|(slice, _)| Some((slice.to_owned(), Arc::clone(space.slices().get(slice)?))))
            .collect();
        let global = index.service(name.namespace(), name.name()).and_then(|object| {
            let sharing = Sharing::of(object, "", &mut Vec::new());
            if !sharing.global || service::is_external_name(object) {
                return None;
            }
            let own = space.slices_of(name.name());
            let local = local::value(name.clone(), object, sharing, sharing.shared, own, &mut Vec::new());
            Some(GlobalService { object: Arc::clone(object), local })
        });
        (global.is_some() || !slices.is_empty()).then_some(Self { global, slices })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::object::Object;

    fn service(global: bool) -> Object {
        let service = json!({"metadata": {"name": "cart", "namespace": "shop",
            "annotations": {"service.cilium.io/global": global.to_string()}}});
        let service: Service = serde_json::from_value(service).expect("a service");
        Object::try_from(Body::Service(Arc::new(service))).expect("sound names")
    }

    fn slice(of: &str, manager: &str) -> Object {
        let slice = json!({"metadata": {"name": "s", "namespace": "shop", "labels": {
            "kubernetes.io/service-name": of, "endpointslice.kubernetes.io/managed-by": manager}},
            "addressType": "IPv4", "endpoints": []});
        let slice: EndpointSlice = serde_json::from_value(slice).expect("a slice");
        Object::try_from(Body::EndpointSlice(Arc::new(slice))).expect("sound names")
    }

    /// What is told, as `service[*] slices…`, a service of the own cluster with a star.
    fn told(receiver: &watch::Receiver<Own>) -> Vec<String> {
        let own = receiver.borrow().clone();
        let line = |(name, service): (&ServiceName, &Arc<OwnService>)| {
            let star = if service.global.is_some() { "*" } else { "" };
            let slices: Vec<&str> = service.slices.keys().map(String::as_str).collect();
            format!("{name}{star} {}", slices.join(" ")).trim_end().to_owned()
        };
        own.services.iter().map(line).collect()
    }

    #[test]
    fn what_changes_is_told() {
        let (teller, mut receiver) = Teller::new();
        let mut index = Index::default();
        let mut step = |event: SourceEvent| {
            let touched = teller.touched(&event, &index);
            let all = matches!(event, SourceEvent::Reset(_));
            match event {
                SourceEvent::Unread => {}
                SourceEvent::Reset(objects) => {
                    index = Index::default();
                    objects.into_iter().for_each(|object| drop(index.apply(Change::Apply(object))));
                }
                SourceEvent::Changes(changes) => {
                    changes.into_iter().for_each(|change| drop(index.apply(change)))
                }
            }
            teller.tell(touched, all, &index, true);
            let news = receiver.has_changed().expect("it is there");
            receiver.mark_unchanged();
            (told(&receiver), news)
        };
        let apply = |object: Object| SourceEvent::Changes(vec![Change::Apply(object)]);
        let mesh = service::MESH_CONTROLLER;
        let (found, _) = step(SourceEvent::Reset(vec![service(true), slice("cart", mesh)]));
        assert_eq!(found, ["shop/cart* s"]);
        assert!(!step(apply(slice("cart", mesh))).1, "nothing new is not told");
        // A slice of the cluster's own is part of the service.
        assert_eq!(step(apply(slice("cart", "endpointslice-controller.k8s.io"))).0, ["shop/cart*"]);
        assert_eq!(step(apply(slice("cash", mesh))).0, ["shop/cart*", "shop/cash s"]);
        assert_eq!(step(apply(service(false))).0, ["shop/cash s"]);
        assert_eq!(step(apply(slice("cart", mesh))).0, ["shop/cart s"]);
        let gone = SourceEvent::Changes(vec![Change::Delete(slice("cart", mesh).reference().clone())]);
        assert_eq!(step(gone).0, [""; 0]);
        assert_eq!(step(SourceEvent::Reset(vec![service(true)])).0, ["shop/cart*"]);
        assert_eq!(step(SourceEvent::Reset(vec![])).0, [""; 0]);
    }
}
