//! The Kubernetes objects that a mesh is made of, from whatever source.

pub mod cilium;
pub mod endpoint_slice;
pub mod identity;
pub mod of_kind;
pub mod pod;
pub mod policy;

pub use cilium::{CiliumEndpoint, CiliumIdentity, CiliumNode};
pub use endpoint_slice::CiliumEndpointSlice;
pub use identity::MeshIdentity;
pub use pod::Pod;
pub use policy::Policy;

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use topology::Identity;
use topology::name::is_key_element;

/// The kinds of objects that are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the kinds of Kubernetes")]
pub enum ObjectKind {
    Namespace,
    Node,
    Service,
    EndpointSlice,
    Pod,
    MeshIdentity,
    CiliumIdentity,
    CiliumEndpoint,
    CiliumNode,
    CiliumEndpointSlice,
    NetworkPolicy,
    CiliumNetworkPolicy,
    CiliumClusterwideNetworkPolicy,
}

/// Which object: kind, namespace (empty for kinds that have none) and name. Namespace and name are sound
/// elements of a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    kind: ObjectKind,
    namespace: String,
    name: String,
}

/// An object with its checked reference. Cloning is cheap.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    reference: Arc<ObjectRef>,
    body: Body,
}

/// The object itself, in the types of `k8s-openapi` but for pods; every source fills them.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the kinds of Kubernetes")]
pub enum Body {
    Namespace(Arc<Namespace>),
    Node(Arc<Node>),
    Service(Arc<Service>),
    EndpointSlice(Arc<EndpointSlice>),
    Pod(Arc<Pod>),
    MeshIdentity(Arc<MeshIdentity>),
    CiliumIdentity(Arc<CiliumIdentity>),
    CiliumEndpoint(Arc<CiliumEndpoint>),
    CiliumNode(Arc<CiliumNode>),
    CiliumEndpointSlice(Arc<CiliumEndpointSlice>),
    Policy(Arc<Policy>),
}

/// Why an object cannot be used at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{member} is {found:?}, expected {expected}")]
pub struct InvalidObject {
    member: &'static str,
    found: String,
    expected: &'static str,
}

impl ObjectKind {
    /// All kinds of Kubernetes itself: every API server has them, and manifests may.
    pub const ALL: [Self; 5] = [Self::Namespace, Self::Node, Self::Service, Self::EndpointSlice, Self::Pod];

    /// The kinds that an API server may have besides: our own, and those of Cilium.
    pub const CUSTOM: [Self; 5] = [
        Self::MeshIdentity,
        Self::CiliumIdentity,
        Self::CiliumEndpoint,
        Self::CiliumNode,
        Self::CiliumEndpointSlice,
    ];

    /// The kinds that Cilium has wherever it runs.
    pub const CILIUM: [Self; 3] = [Self::CiliumIdentity, Self::CiliumEndpoint, Self::CiliumNode];

    /// Policies: looked at and counted; no record is made of them, and they are in no index.
    pub const POLICIES: [Self; 3] =
        [Self::NetworkPolicy, Self::CiliumNetworkPolicy, Self::CiliumClusterwideNetworkPolicy];

    /// The kind as it stands in an object.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Pod => "Pod",
            Self::MeshIdentity => "MeshIdentity",
            Self::CiliumIdentity => "CiliumIdentity",
            Self::CiliumEndpoint => "CiliumEndpoint",
            Self::CiliumNode => "CiliumNode",
            Self::CiliumEndpointSlice => "CiliumEndpointSlice",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::CiliumNetworkPolicy => "CiliumNetworkPolicy",
            Self::CiliumClusterwideNetworkPolicy => "CiliumClusterwideNetworkPolicy",
        }
    }

    /// The kind that an object of these two members has in a manifest, if it is one that is looked at there.
    pub fn of(api_version: &str, kind: &str) -> Option<Self> {
        match (api_version, kind) {
            ("v1", "Namespace") => Some(Self::Namespace),
            ("v1", "Node") => Some(Self::Node),
            ("v1", "Service") => Some(Self::Service),
            ("v1", "Pod") => Some(Self::Pod),
            ("discovery.k8s.io/v1", "EndpointSlice") => Some(Self::EndpointSlice),
            _ => None,
        }
    }

    fn is_namespaced(self) -> bool {
        !matches!(
            self,
            Self::Namespace
                | Self::Node
                | Self::MeshIdentity
                | Self::CiliumIdentity
                | Self::CiliumNode
                | Self::CiliumEndpointSlice
                | Self::CiliumClusterwideNetworkPolicy
        )
    }
}

impl ObjectRef {
    /// Checks a reference. A namespaced kind without a namespace is in `default`, as for kubectl.
    ///
    /// Fails if a part cannot be an element of a key, which no Kubernetes name is.
    pub fn new(kind: ObjectKind, namespace: Option<&str>, name: &str) -> Result<Self, InvalidObject> {
        let namespace = match kind.is_namespaced() {
            true => namespace.filter(|n| !n.is_empty()).unwrap_or("default"),
            false => "",
        };
        for (member, text) in [("metadata.namespace", namespace), ("metadata.name", name)] {
            let unused = member == "metadata.namespace" && !kind.is_namespaced();
            if !unused && !is_key_element(text) {
                return Err(InvalidObject::new(member, text, "a Kubernetes name"));
            }
        }
        let numbered = matches!(kind, ObjectKind::MeshIdentity | ObjectKind::CiliumIdentity);
        if numbered && number(name).is_none() {
            return Err(InvalidObject::new("metadata.name", name, "the number of an identity"));
        }
        Ok(Self { kind, namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// The kind.
    pub fn kind(&self) -> ObjectKind {
        self.kind
    }

    /// The namespace; empty if the kind has none.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The identity that an object stands for whose kind is called by numbers.
    pub fn identity(&self) -> Option<Identity> {
        match self.kind {
            ObjectKind::MeshIdentity | ObjectKind::CiliumIdentity => number(&self.name).map(Identity),
            _ => None,
        }
    }
}

/// A number as it stands in a name: decimal, without sign or leading zeros.
fn number(name: &str) -> Option<u32> {
    name.parse::<u32>().ok().filter(|number| number.to_string() == name)
}

impl InvalidObject {
    fn new(member: &'static str, found: &str, expected: &'static str) -> Self {
        Self { member, found: found.chars().take(80).collect(), expected }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{} {}", self.kind.as_str(), self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind.as_str(), self.name),
        }
    }
}

impl Object {
    /// Which object it is.
    pub fn reference(&self) -> &ObjectRef {
        &self.reference
    }

    /// Which object it is, to be kept beside it without a copy.
    pub fn shared_reference(&self) -> Arc<ObjectRef> {
        Arc::clone(&self.reference)
    }

    /// The object itself.
    pub fn body(&self) -> &Body {
        &self.body
    }
}

impl TryFrom<Body> for Object {
    type Error = InvalidObject;

    fn try_from(body: Body) -> Result<Self, Self::Error> {
        let named = |metadata: &'_ ObjectMeta| (metadata.namespace.clone(), metadata.name.clone());
        let (kind, (namespace, name)) = match &body {
            Body::Namespace(object) => (ObjectKind::Namespace, named(&object.metadata)),
            Body::Node(object) => (ObjectKind::Node, named(&object.metadata)),
            Body::Service(object) => (ObjectKind::Service, named(&object.metadata)),
            Body::EndpointSlice(object) => (ObjectKind::EndpointSlice, named(&object.metadata)),
            Body::Pod(object) => {
                let text = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
                (ObjectKind::Pod, (text(&object.namespace), text(&object.name)))
            }
            Body::MeshIdentity(object) => (ObjectKind::MeshIdentity, (None, Some(object.name.to_string()))),
            Body::CiliumIdentity(object) => {
                (ObjectKind::CiliumIdentity, (None, Some(object.name.to_string())))
            }
            Body::CiliumEndpoint(object) => {
                let names = (Some(object.namespace.to_string()), Some(object.name.to_string()));
                (ObjectKind::CiliumEndpoint, names)
            }
            Body::CiliumNode(object) => (ObjectKind::CiliumNode, named(&object.metadata)),
            Body::CiliumEndpointSlice(object) => {
                (ObjectKind::CiliumEndpointSlice, (None, Some(object.name.to_string())))
            }
            Body::Policy(object) => (object.kind, (object.namespace.clone(), object.name.clone())),
        };
        let reference = ObjectRef::new(kind, namespace.as_deref(), name.as_deref().unwrap_or_default())?;
        Ok(Self { reference: Arc::new(reference), body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_checked() {
        let service = |namespace, name| ObjectRef::new(ObjectKind::Service, namespace, name);
        assert_eq!(service(None, "cart").expect("sound").to_string(), "Service default/cart");
        let node = ObjectRef::new(ObjectKind::Node, Some("ignored"), "n1").expect("sound");
        assert_eq!(node.to_string(), "Node n1");
        for bad in ["", "..", "a/b", "a b"] {
            assert!(service(Some("shop"), bad).is_err(), "{bad:?}");
            assert!(bad.is_empty() || service(Some(bad), "cart").is_err(), "{bad:?}");
        }
    }
}
