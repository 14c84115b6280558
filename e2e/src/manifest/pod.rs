//! Pod objects.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::addressing::AddressPair;

/// Holds what a Pod object says.
#[derive(Clone, Debug)]
pub struct PodManifest {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Node name.
    pub node: String,
    /// The node's addresses.
    pub host: AddressPair,
    /// The pod's addresses.
    pub addresses: AddressPair,
    /// Whether it is ready.
    pub ready: bool,
}

impl PodManifest {
    /// The object: a running pod.
    pub fn object(&self) -> Value {
        let Self { host, addresses, .. } = self;
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "namespace": self.namespace, "name": self.name, "labels": self.labels },
            "spec": {
                "nodeName": self.node,
                "containers": [{ "name": "main", "image": "lab-pod" }],
            },
            "status": {
                "phase": "Running",
                "hostIP": host.v4,
                "hostIPs": [{ "ip": host.v4 }, { "ip": host.v6 }],
                "podIP": addresses.v4,
                "podIPs": [{ "ip": addresses.v4 }, { "ip": addresses.v6 }],
                "conditions": [{ "type": "Ready", "status": if self.ready { "True" } else { "False" } }],
            },
        })
    }
}
