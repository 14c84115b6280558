//! Kubernetes objects of a small cluster.

use serde_json::{Value, json};

/// A namespace that takes part, or does not.
pub(crate) fn namespace(name: &str, global: bool) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name,
        "annotations": {"clustermesh.cilium.io/global": global.to_string()}}})
}

/// A node with one address and one block of pods.
pub(crate) fn node(number: u8) -> Value {
    json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": format!("n{number}"), "labels": {"zone": "a"}, "annotations": {"note": "kept"}},
        "spec": {"podCIDR": format!("10.1.{number}.0/24"), "podCIDRs": [format!("10.1.{number}.0/24")]},
        "status": {"addresses": [{"type": "InternalIP", "address": format!("172.30.1.{number}")}]}})
}

/// A global service with a selector.
pub(crate) fn service(name: &str, address: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": name},
            "annotations": {"service.cilium.io/global": "true"}},
        "spec": {"clusterIP": address, "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}})
}

/// A slice of a service with these addresses, which are ready.
pub(crate) fn slice(service: &str, name: &str, addresses: &[String]) -> Value {
    let endpoints: Vec<Value> = addresses
        .iter()
        .map(|address| json!({"addresses": [address], "nodeName": "n1", "conditions": {"ready": true}}))
        .collect();
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]})
}

/// A running pod.
pub(crate) fn pod(name: &str, app: &str, address: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": app, "pod-template-hash": name}},
        "spec": {"nodeName": "n1", "serviceAccountName": "default",
            "containers": [{"name": "c", "image": "i", "env": [{"name": "X", "value": "y"}],
                "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "hostIP": "172.30.1.1"}})
}

/// All kinds, with services of several types, slices that lack things, and pods that share identities.
pub(crate) fn cluster() -> Vec<Value> {
    let mut objects = vec![namespace("shop", true), namespace("back", false), node(1), node(2)];
    for (at, name) in ["cart", "cash", "mail"].into_iter().enumerate() {
        objects.push(service(name, &format!("10.96.1.{}", at + 1)));
        let addresses: Vec<String> = (1..4).map(|pod| format!("10.1.1.{}", at * 10 + pod)).collect();
        objects.push(slice(name, &format!("{name}-a"), &addresses));
        for (number, address) in addresses.iter().enumerate() {
            objects.push(pod(&format!("{name}-{number}"), name, address));
        }
    }
    let mut headless = service("peers", "None");
    headless["spec"]["clusterIP"] = json!("None");
    let mut bare = slice("peers", "peers-a", &["10.1.2.1".to_owned()]);
    // Neither conditions nor a node.
    bare["endpoints"] = json!([{"addresses": ["10.1.2.1"], "hostname": "one"}]);
    let mut elsewhere = service("shop-db", "");
    elsewhere["spec"] = json!({"type": "ExternalName", "externalName": "db.example"});
    let mut hidden = service("hidden", "10.96.1.9");
    hidden["metadata"]["namespace"] = json!("back");
    let mut job = pod("job", "job", "10.1.1.99");
    job["status"]["phase"] = json!("Succeeded");
    let mut host = pod("host", "host", "172.30.1.1");
    host["spec"]["hostNetwork"] = json!(true);
    host["spec"]["containers"][0]["ports"][0]["hostPort"] = json!(8080);
    objects.extend([headless, bare, elsewhere, hidden, job, host]);
    objects
}
