//! Node objects.

use serde_json::{Value, json};

use crate::addressing::NodeNumber;

/// The Node object of a lab node: its addresses, its slice of the pod block, its region and zone.
pub fn node(name: &str, number: NodeNumber, region: &str, zone: &str) -> Value {
    let (addresses, slice) = (number.addresses(), number.pod_slice());
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name,
                "topology.kubernetes.io/region": region,
                "topology.kubernetes.io/zone": zone,
            },
        },
        "spec": { "podCIDR": slice.v4, "podCIDRs": [slice.v4, slice.v6] },
        "status": {
            "addresses": [
                { "type": "InternalIP", "address": addresses.v4 },
                { "type": "InternalIP", "address": addresses.v6 },
                { "type": "Hostname", "address": name },
            ],
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    })
}
