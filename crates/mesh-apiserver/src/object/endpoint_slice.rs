//! Endpoints as Cilium's operator packs them together (`enable-cilium-endpoint-slice`): many in one object, without their
//! status. Cilium `pkg/k8s/apis/cilium.io/v2alpha1/types.go`.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use topology::name::is_key_element;

use super::cilium::{
    CiliumEndpoint, Encryption, RawEndpointIdentity, RawNetworking, RawPort, RawStatus, nullable,
};

/// A `CiliumEndpointSlice` as the hub keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CiliumEndpointSlice {
    /// `metadata.name`. The object itself is in no namespace.
    pub name: Box<str>,
    /// `namespace`: that of all its endpoints.
    pub namespace: Box<str>,
    /// `endpoints`, those that have a name; of two of one name, the first. They say no time of creation.
    pub endpoints: Box<[Arc<CiliumEndpoint>]>,
}

/// A `CiliumEndpointSlice` as the API server has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RawEndpointSlice {
    /// Its name.
    pub metadata: ObjectMeta,
    namespace: String,
    #[serde(deserialize_with = "nullable")]
    endpoints: Vec<RawCoreEndpoint>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct RawCoreEndpoint {
    name: String,
    /// The number of its identity.
    id: i64,
    networking: Option<RawNetworking>,
    #[serde(deserialize_with = "nullable")]
    encryption: Encryption,
    #[serde(deserialize_with = "nullable")]
    named_ports: Vec<RawPort>,
    service_account: String,
}

impl From<RawEndpointSlice> for CiliumEndpointSlice {
    fn from(raw: RawEndpointSlice) -> Self {
        let namespace = raw.namespace.into_boxed_str();
        let mut endpoints: Vec<_> = raw
            .endpoints
            .into_iter()
            .filter(|endpoint| is_key_element(&namespace) && is_key_element(&endpoint.name))
            .map(|endpoint| Arc::new(endpoint.within(&namespace)))
            .collect();
        // Stable: the first of a name stays.
        endpoints.sort_by(|one, other| one.name.cmp(&other.name));
        endpoints.dedup_by(|later, first| later.name == first.name);
        let name = raw.metadata.name.unwrap_or_default().into_boxed_str();
        Self { name, namespace, endpoints: endpoints.into_boxed_slice() }
    }
}

impl RawCoreEndpoint {
    fn within(self, namespace: &str) -> CiliumEndpoint {
        let status = RawStatus {
            identity: Some(RawEndpointIdentity { id: self.id }),
            networking: self.networking,
            encryption: self.encryption,
            named_ports: self.named_ports,
            service_account: self.service_account,
        };
        status.endpoint(namespace.into(), self.name.into_boxed_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::cilium::RawEndpoint;

    #[test]
    fn its_endpoints_are_what_their_own_objects_say() {
        let networking = serde_json::json!({"addressing": [{"ipv4": "10.1.0.7", "ipv6": "fd00::7"}], "node": "172.18.0.2"});
        let ports = serde_json::json!([{"name": "dns", "port": 53, "protocol": "UDP"}]);
        let slice = serde_json::json!({
        "metadata": {"name": "ces-c7hlcxqpt-rwqlm"}, "namespace": "shop",
        "endpoints": [
            {"name": "b", "id": 7, "encryption": {}, "networking": null, "named-ports": null},
            {"name": "a", "id": 199_475, "encryption": {"key": 5}, "networking": networking, "named-ports": ports,
                "service-account": "default", "pod-uid": "u"},
            {"name": "a", "id": 1}, {"id": 2}, {"name": "../x", "id": 3},
        ]});
        let slice =
            CiliumEndpointSlice::from(serde_json::from_value::<RawEndpointSlice>(slice).expect("an object"));
        let own = serde_json::json!({
            "metadata": {"name": "a", "namespace": "shop"},
            "status": {"identity": {"id": 199_475}, "encryption": {"key": 5}, "networking": networking,
                "named-ports": ports, "service-account": "default"}});
        let own = CiliumEndpoint::from(serde_json::from_value::<RawEndpoint>(own).expect("an object"));
        let names: Vec<&str> = slice.endpoints.iter().map(|endpoint| &*endpoint.name).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(*slice.endpoints[0], own);
        let bare: RawEndpointSlice =
            serde_json::from_value(serde_json::json!({"metadata": {"name": "x"}, "endpoints": null}))
                .expect("an object");
        assert_eq!(CiliumEndpointSlice::from(bare).endpoints.len(), 0);
    }
}
