//! Whether a namespace takes part in the mesh. Cilium `pkg/clustermesh/namespace`, CFP-39876.

use k8s_openapi::api::core::v1::Namespace;

use super::Cluster;

/// The annotation of a namespace.
pub const GLOBAL: &str = "clustermesh.cilium.io/global";

/// Whether identities, addresses, services and slices of a namespace are published: `true` (any case) if it is
/// annotated, else what the cluster says by default.
///
/// A namespace without a Namespace object is treated as one without the annotation: stock waits for the object,
/// but a folder of manifests need not have one.
pub fn is_global(cluster: &Cluster, object: Option<&Namespace>) -> bool {
    let annotations = object.and_then(|object| object.metadata.annotations.as_ref());
    match annotations.and_then(|annotations| annotations.get(GLOBAL)) {
        Some(text) => text.eq_ignore_ascii_case("true"),
        None => cluster.global_namespaces,
    }
}
