//! The custom resources that are followed: our own identities, and what Cilium has.

use std::borrow::Cow;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::{ClusterResourceScope, NamespaceResourceScope};

use super::kept::Kept;
use crate::object::cilium::{RawEndpoint, RawIdentity};
use crate::object::endpoint_slice::RawEndpointSlice;
use crate::object::identity::RawMeshIdentity;
use crate::object::{Body, CiliumNode, ObjectKind};
use mesh_resources::mesh_identity;

/// The group of Cilium's kinds.
pub const CILIUM: &str = "cilium.io";

/// What the API server calls a kind that is not in `k8s-openapi`, or is decoded in a way of our own.
macro_rules! resource {
    ($type:ty, $scope:ty, $kind:expr, $group:expr, $version:expr, $plural:expr) => {
        impl Resource for $type {
            type DynamicType = ();
            type Scope = $scope;

            fn kind((): &()) -> Cow<'_, str> {
                $kind.as_str().into()
            }

            fn group((): &()) -> Cow<'_, str> {
                $group.into()
            }

            fn version((): &()) -> Cow<'_, str> {
                $version.into()
            }

            fn plural((): &()) -> Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

resource!(
    RawMeshIdentity,
    ClusterResourceScope,
    ObjectKind::MeshIdentity,
    mesh_resources::GROUP,
    mesh_resources::VERSION,
    mesh_identity::PLURAL
);
resource!(RawIdentity, ClusterResourceScope, ObjectKind::CiliumIdentity, CILIUM, "v2", "ciliumidentities");
resource!(RawEndpoint, NamespaceResourceScope, ObjectKind::CiliumEndpoint, CILIUM, "v2", "ciliumendpoints");
resource!(CiliumNode, ClusterResourceScope, ObjectKind::CiliumNode, CILIUM, "v2", "ciliumnodes");

resource!(
    RawEndpointSlice,
    ClusterResourceScope,
    ObjectKind::CiliumEndpointSlice,
    CILIUM,
    "v2alpha1",
    "ciliumendpointslices"
);
pub(super) use resource;

impl Kept for RawMeshIdentity {
    const KIND: ObjectKind = ObjectKind::MeshIdentity;

    fn keep(self) -> Body {
        Body::MeshIdentity(Arc::new(self.into()))
    }
}

impl Kept for RawIdentity {
    const KIND: ObjectKind = ObjectKind::CiliumIdentity;

    fn keep(self) -> Body {
        Body::CiliumIdentity(Arc::new(self.into()))
    }
}

impl Kept for RawEndpoint {
    const KIND: ObjectKind = ObjectKind::CiliumEndpoint;

    fn keep(self) -> Body {
        Body::CiliumEndpoint(Arc::new(self.into()))
    }
}

impl Kept for RawEndpointSlice {
    const KIND: ObjectKind = ObjectKind::CiliumEndpointSlice;

    fn keep(self) -> Body {
        Body::CiliumEndpointSlice(Arc::new(self.into()))
    }
}

impl Kept for CiliumNode {
    const KIND: ObjectKind = ObjectKind::CiliumNode;

    fn keep(self) -> Body {
        // Labels and annotations of nodes are published.
        let metadata = ObjectMeta {
            name: self.metadata.name,
            labels: self.metadata.labels,
            annotations: self.metadata.annotations,
            ..ObjectMeta::default()
        };
        Body::CiliumNode(Arc::new(Self { metadata, spec: self.spec }))
    }
}
