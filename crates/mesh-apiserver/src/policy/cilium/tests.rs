//! A policy with each fault, and policies without any.

use serde_json::json;

use super::*;
use crate::policy::assert_broken;

fn checked(policy: Value, scope: Scope) -> Result<(), Broken> {
    check(&serde_json::from_value(policy).expect("its type"), scope)
}

fn ingress(element: Value) -> Value {
    json!({"spec": {"endpointSelector": {}, "ingress": [{}, element]}})
}

#[test]
fn what_cilium_takes_is_sound() {
    let ports = json!([{"ports": [{"port": "53", "protocol": "ANY"}, {"port": "0", "protocol": "TCP"}, {"port": "http"},
        {"port": "80", "endPort": 90}, {"protocol": "GRE"}], "rules": {"dns": [{"matchPattern": "*"}]}}, {}]);
    let elements = json!([{}, {"fromEndpoints": [{}, {"matchLabels": {"k8s:app": "a"}}], "toPorts": ports},
        {"fromEntities": ["cluster", "remote-node"]}, {"fromCIDR": ["10.0.0.0/8", "fd00::1"]},
        {"fromCIDRSet": [{"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}, {"cidrGroupRef": "office"}]},
        {"fromEndpoints": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}], "authentication": {"mode": "required"}},
        {"icmps": [{"fields": [{"type": 8}, {"type": "EchoRequest", "family": "IPv6"}]}]}]);
    let out = json!([{"toServices": [{"k8sService": {"serviceName": "a"}}]}, {"toFQDNs": [{"matchName": "a.example"}]}]);
    let rule = json!({"endpointSelector": {"matchLabels": {"app": "a"}}, "ingress": elements, "egressDeny": [{"toEntities": ["all"]}],
        "egress": out});
    let nodes = json!({"spec": {"nodeSelector": {}, "ingressDeny": []}});
    for (policy, scope) in [
        (json!({"spec": rule}), Scope::Namespace),
        (json!({"specs": [rule, rule]}), Scope::Cluster),
        (json!({"spec": rule, "specs": [rule], "status": {"x": 1}}), Scope::Namespace),
        (nodes, Scope::Cluster),
    ] {
        assert_eq!(checked(policy.clone(), scope), Ok(()), "{policy}");
    }
}

#[test]
fn what_it_refuses_is_named_with_its_place() {
    let port = |port: Value| ingress(json!({"toPorts": [{"ports": [port]}]}));
    let icmp = |field: Value| ingress(json!({"icmps": [{"fields": [field]}]}));
    let set = |rule: Value| ingress(json!({"fromCIDRSet": [rule]}));
    let many = vec![json!({"port": "1"}); 41];
    let second = "spec.ingress[1]";
    let ports = format!("{second}.toPorts[0].ports[0]");
    let cases = [
        (json!({}), "spec".to_owned(), "neither"),
        (json!({"specs": []}), "spec".to_owned(), "neither"),
        (json!({"spec": {"ingress": []}}), "spec".to_owned(), "neither endpointSelector"),
        (json!({"specs": [{"endpointSelector": {}, "nodeSelector": {}}]}), "specs[0]".to_owned(), "both"),
        (json!({"spec": {"nodeSelector": {}, "ingress": []}}), "spec.nodeSelector".to_owned(), "Clusterwide"),
        (json!({"spec": {"endpointSelector": {}}}), "spec".to_owned(), "none of ingress"),
        (
            ingress(json!({"fromEndpoints": [{}], "fromEntities": ["all"]})),
            second.to_owned(),
            "cannot be combined",
        ),
        (ingress(json!({"fromEntities": ["moon"]})), format!("{second}.fromEntities[0]"), "moon"),
        (ingress(json!({"fromCIDR": ["10.0.0.0/33"]})), format!("{second}.fromCIDR[0].cidr"), "no block"),
        (ingress(json!({"fromCIDR": "10.0.0.0/8"})), format!("{second}.fromCIDR"), "a list"),
        (set(json!({"cidr": "10.0.0.1"})), format!("{second}.fromCIDRSet[0].cidr"), "no block"),
        (
            set(json!({"cidr": "10.0.0.0/8", "except": ["11.0.0.0/8"]})),
            format!("{second}.fromCIDRSet[0].except[0]"),
            "within",
        ),
        (set(json!({})), format!("{second}.fromCIDRSet[0]"), "one of cidr"),
        (
            set(json!({"cidr": "10.0.0.0/8", "cidrGroupRef": "a"})),
            format!("{second}.fromCIDRSet[0]"),
            "one of cidr",
        ),
        (ingress(json!({"fromRequires": [{}]})), format!("{second}.fromRequires[0]"), "selector"),
        (
            ingress(json!({"fromEndpoints": [{"matchExpressions": [{"key": "a", "operator": "In"}]}]})),
            format!("{second}.fromEndpoints[0].matchExpressions[0]"),
            "expected values",
        ),
        (
            ingress(json!({"toPorts": [{"ports": [{"port": "1"}]}], "icmps": [{"fields": [{"type": 8}]}]})),
            second.to_owned(),
            "beside toPorts",
        ),
        (ingress(json!({"toPorts": [{"ports": many}]})), format!("{second}.toPorts[0].ports"), "41 ports"),
        (port(json!({"protocol": "TCP"})), format!("{ports}.port"), "none"),
        (port(json!({"port": "65536"})), format!("{ports}.port"), "65535"),
        (port(json!({"port": "1", "protocol": "FOO"})), format!("{ports}.protocol"), "FOO"),
        (port(json!({"port": "1", "protocol": "GRE"})), format!("{ports}.port"), "no ports"),
        (port(json!({"port": "1", "endPort": 70_000})), format!("{ports}.endPort"), "70000"),
        (icmp(json!({"type": 256})), format!("{second}.icmps[0].fields[0].type"), "256"),
        (icmp(json!({"type": "PacketTooBig"})), format!("{second}.icmps[0].fields[0].type"), "IPv4"),
        (icmp(json!({"type": 1, "family": "IPv5"})), format!("{second}.icmps[0].fields[0].family"), "IPv5"),
        (icmp(json!({})), format!("{second}.icmps[0].fields[0].type"), "nothing"),
    ];
    for (policy, path, part) in cases {
        assert_broken(checked(policy.clone(), Scope::Namespace), &path, part, &policy.to_string());
    }
}
