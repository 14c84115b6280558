//! The endpoint controller of the lab: EndpointSlices from services and pods, as Kubernetes would make them. One slice
//! for each service and address family.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::manifest::pod::PodManifest;
use crate::manifest::service::{Family, ServiceManifest};

/// The name of a service's slice.
pub fn slice_name(service: &str, family: Family) -> String {
    format!("{service}-{}", family.name().to_ascii_lowercase())
}

/// The EndpointSlice of a service in one family. `pods` are those of the cluster, with their zones; the ones that the
/// service does not select are passed over.
pub fn slice<'a>(
    service: &ServiceManifest,
    family: Family,
    pods: impl IntoIterator<Item = (&'a PodManifest, &'a str)>,
) -> Value {
    let endpoints: Vec<Value> = pods
        .into_iter()
        .filter(|(pod, _)| pod.namespace == service.namespace() && service.selects(&pod.labels))
        .map(|(pod, zone)| {
            let address: IpAddr = match family {
                Family::V4 => pod.addresses.v4.into(),
                Family::V6 => pod.addresses.v6.into(),
            };
            json!({
                "addresses": [address],
                "conditions": { "ready": pod.ready, "serving": pod.ready, "terminating": false },
                "nodeName": pod.node,
                "zone": zone,
                "targetRef": { "kind": "Pod", "namespace": pod.namespace, "name": pod.name },
            })
        })
        .collect();
    let ports: Vec<Value> = service
        .ports()
        .iter()
        .map(|port| json!({ "name": port.name, "protocol": port.protocol, "port": port.target }))
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": service.namespace(),
            "name": slice_name(service.name(), family),
            "labels": {
                "kubernetes.io/service-name": service.name(),
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
        },
        "addressType": family.name(),
        "endpoints": endpoints,
        "ports": ports,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::addressing::NodeNumber;

    #[test]
    fn only_selected_pods_of_the_namespace() {
        let node = NodeNumber::new(1, 1).expect("in range");
        let pod = |namespace: &str, name: &str, app: &str, number| PodManifest {
            namespace: namespace.into(),
            name: name.into(),
            labels: BTreeMap::from([("app".into(), app.into())]),
            node: "n1".into(),
            host: node.addresses(),
            addresses: node.pod(number),
            ready: true,
        };
        let pods =
            [pod("shop", "a", "echo", 10), pod("shop", "b", "other", 11), pod("elsewhere", "c", "echo", 12)];
        let service = ServiceManifest::new("shop", "echo").vip6("fd00:96::10").port(80);
        let slice = slice(&service, Family::V6, pods.iter().map(|pod| (pod, "eu-1")));
        assert_eq!(slice["endpoints"].as_array().map(Vec::len), Some(1), "{slice}");
        assert_eq!(slice["endpoints"][0]["addresses"][0], "fd00:10:1:1::10");
        assert_eq!(slice["ports"][0]["port"], 8080);
    }
}
