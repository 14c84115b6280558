//! What is kept of an object: what the export reads, so that the memory of a hub follows the mesh and not what
//! people write into their pods. An object that differs in nothing kept is no change.

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, NodeSpec, NodeStatus, NodeSystemInfo, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::export::{annotation, namespace, service};
use crate::object::of_kind::{Content, OfKind};
use crate::object::{Body, Object, ObjectKind};

/// A kind that is followed.
pub trait Kept:
    Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static
{
    /// The kind.
    const KIND: ObjectKind;

    /// The object with what the export reads, and nothing else.
    fn keep(self) -> Body;
}

/// An object as the API server sends it, decoded and cut down at once; of its metadata namespace, name and revision alone.
///
/// One that cannot be decoded does not spoil the list that it is in: it says which it is, and why.
pub type Found<K> = OfKind<K, Result<Object, String>>;

impl<K> Found<K> {
    /// The object, or why it cannot be used.
    pub fn into_object(self) -> Result<Object, Unusable> {
        let Self { metadata, content, .. } = self;
        content.map_err(|why| Unusable { namespace: metadata.namespace, name: metadata.name, why })
    }

    /// Namespace and name.
    pub fn named(&self) -> (Option<&str>, &str) {
        (self.metadata.namespace.as_deref(), self.metadata.name.as_deref().unwrap_or_default())
    }
}

/// An object that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// Its namespace.
    pub namespace: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// What is wrong.
    pub why: String,
}

impl<K: Kept> Content<K> for Result<Object, String> {
    fn read(object: Value) -> serde_json::Result<(ObjectMeta, Self)> {
        let text = |member: &str| object.get("metadata")?.get(member)?.as_str().map(str::to_owned);
        let metadata = ObjectMeta {
            namespace: text("namespace"),
            name: text("name"),
            resource_version: text("resourceVersion"),
            ..ObjectMeta::default()
        };
        let content = match serde_json::from_value::<K>(object) {
            Ok(object) => Object::try_from(object.keep()).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        Ok((metadata, content))
    }
}

impl Kept for Namespace {
    const KIND: ObjectKind = ObjectKind::Namespace;

    fn keep(self) -> Body {
        let mut metadata = named(self.metadata);
        if let Some(annotations) = &mut metadata.annotations {
            annotations.retain(|name, _| name == namespace::GLOBAL);
        }
        Body::Namespace(Arc::new(Self { metadata, ..Self::default() }))
    }
}

impl Kept for Node {
    const KIND: ObjectKind = ObjectKind::Node;

    fn keep(self) -> Body {
        // Labels and annotations of nodes are published.
        let spec = self.spec.map(|spec| NodeSpec {
            pod_cidr: spec.pod_cidr,
            pod_cidrs: spec.pod_cidrs,
            ..NodeSpec::default()
        });
        let status = self.status.map(|status| NodeStatus {
            addresses: status.addresses,
            node_info: status
                .node_info
                .map(|info| NodeSystemInfo { boot_id: info.boot_id, ..NodeSystemInfo::default() }),
            ..NodeStatus::default()
        });
        Body::Node(Arc::new(Self { metadata: named(self.metadata), spec, status }))
    }
}

impl Kept for Service {
    const KIND: ObjectKind = ObjectKind::Service;

    fn keep(self) -> Body {
        // What is written for a service names it as its owner.
        let uid = self.metadata.uid.clone();
        let mut metadata = ObjectMeta { uid, ..named(self.metadata) };
        if let Some(annotations) = &mut metadata.annotations {
            annotations.retain(|name, _| annotation::is_read(name));
        }
        Body::Service(Arc::new(Self { metadata, spec: self.spec, status: None }))
    }
}

impl Kept for EndpointSlice {
    const KIND: ObjectKind = ObjectKind::EndpointSlice;

    fn keep(self) -> Body {
        // Labels and annotations of slices are published.
        let mut slice = self;
        let metadata = std::mem::take(&mut slice.metadata);
        slice.metadata = match service::is_of_mesh(&metadata) {
            false => named(metadata),
            // One that this hub may have written, and may write again.
            true => ObjectMeta {
                uid: metadata.uid.clone(),
                resource_version: metadata.resource_version.clone(),
                owner_references: metadata.owner_references.clone(),
                ..named(metadata)
            },
        };
        for endpoint in slice.endpoints.iter_mut().flatten() {
            endpoint.target_ref = None;
        }
        Body::EndpointSlice(Arc::new(slice))
    }
}

impl Kept for Pod {
    const KIND: ObjectKind = ObjectKind::Pod;

    fn keep(self) -> Body {
        Body::Pod(Arc::new(self.into()))
    }
}

/// Name, namespace, labels and annotations.
fn named(metadata: ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        name: metadata.name,
        namespace: metadata.namespace,
        labels: metadata.labels,
        annotations: metadata.annotations,
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found<K: Kept>(json: Value) -> Result<Object, Unusable> {
        serde_json::from_value::<Found<K>>(json).expect("an object of some kind").into_object()
    }

    #[test]
    fn a_pod_is_cut_down_to_what_is_used() {
        let pod = |extra: &str| {
            serde_json::json!({
                "metadata": {"name": "a", "namespace": "shop", "labels": {"app": "a"}, "resourceVersion": extra,
                    "annotations": {"note": extra}, "managedFields": [{"manager": extra}],
                    "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"nodeName": "n1", "serviceAccountName": "s", "volumes": [{"name": extra}],
                    "containers": [{"name": "c", "image": extra, "env": [{"name": "X", "value": extra}],
                        "ports": [{"name": "http", "containerPort": 80}]}]},
                "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
                    "conditions": [{"type": "Ready", "status": "True", "message": extra}]},
            })
        };
        let (one, other) = (found::<Pod>(pod("1")).expect("a pod"), found::<Pod>(pod("2")).expect("a pod"));
        assert_eq!(one, other, "what differs is not kept");
        let Body::Pod(kept) = one.body() else { panic!("{one:?}") };
        assert_eq!(kept.node.as_deref(), Some("n1"));
        assert_eq!(kept.named_ports.len(), 1);
        assert!(kept.created.is_some(), "the older pod keeps a contested address");
        assert_eq!(kept.addresses.iter().map(|text| &**text).collect::<Vec<_>>(), ["10.0.0.1"]);
    }

    #[test]
    fn one_object_that_cannot_be_decoded_does_not_spoil_a_list() {
        let bad = found::<Service>(serde_json::json!({
            "metadata": {"name": "bad", "namespace": "shop", "resourceVersion": "7"}, "spec": {"ports": "many"},
        }));
        let unusable = bad.expect_err("ports are a list");
        assert_eq!((unusable.namespace.as_deref(), unusable.name.as_deref()), (Some("shop"), Some("bad")));
        assert!(unusable.why.contains("many"), "{}", unusable.why);
        let nameless = found::<Service>(serde_json::json!({"metadata": {}}));
        assert!(nameless.is_err(), "{nameless:?}");
    }

    #[test]
    fn the_annotations_that_are_read_are_kept() {
        let service = found::<Service>(serde_json::json!({
            "metadata": {"name": "a", "namespace": "shop", "annotations": {
                "service.cilium.io/global": "true", "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
        }));
        let service = service.expect("a service");
        let Body::Service(kept) = service.body() else { panic!("{service:?}") };
        let names: Vec<&String> = kept.metadata.annotations.iter().flat_map(|map| map.keys()).collect();
        assert_eq!(names, ["service.cilium.io/global"]);
    }
}
