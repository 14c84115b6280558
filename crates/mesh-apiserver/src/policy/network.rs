//! NetworkPolicy. The API server checks the same (Kubernetes `pkg/apis/networking/validation`); an object may be older than
//! its checks, or have come past them.

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Broken, block, is_port_name, selector};

/// Fails if the policy cannot be enforced as it is written.
pub fn check(policy: &NetworkPolicy) -> Result<(), Broken> {
    let Some(spec) = &policy.spec else { return Err(Broken::new("spec", "there is none")) };
    let NetworkPolicySpec { egress, ingress, pod_selector, policy_types } = spec;
    selector("spec.podSelector", pod_selector.as_ref())?;
    for (at, direction) in policy_types.iter().flatten().enumerate() {
        if !matches!(direction.as_str(), "Ingress" | "Egress") {
            let path = format!("spec.policyTypes[{at}]");
            return Err(Broken::new(path, format_args!("{direction:?}, expected Ingress or Egress")));
        }
    }
    for (at, rule) in ingress.iter().flatten().enumerate() {
        peers(&format!("spec.ingress[{at}].from"), rule.from.as_deref())?;
        ports(&format!("spec.ingress[{at}].ports"), rule.ports.as_deref())?;
    }
    for (at, rule) in egress.iter().flatten().enumerate() {
        peers(&format!("spec.egress[{at}].to"), rule.to.as_deref())?;
        ports(&format!("spec.egress[{at}].ports"), rule.ports.as_deref())?;
    }
    Ok(())
}

fn peers(path: &str, peers: Option<&[NetworkPolicyPeer]>) -> Result<(), Broken> {
    for (at, peer) in peers.iter().copied().flatten().enumerate() {
        let path = format!("{path}[{at}]");
        match (&peer.ip_block, &peer.pod_selector, &peer.namespace_selector) {
            (None, None, None) => {
                return Err(Broken::new(path, "neither ipBlock, podSelector nor namespaceSelector"));
            }
            (Some(found), None, None) => {
                let except = found.except.iter().flatten().map(String::as_str);
                block(&format!("{path}.ipBlock"), &found.cidr, except)?;
            }
            (Some(_), _, _) => return Err(Broken::new(path, "ipBlock beside a selector")),
            (None, pods, namespaces) => {
                selector(&format!("{path}.podSelector"), pods.as_ref())?;
                selector(&format!("{path}.namespaceSelector"), namespaces.as_ref())?;
            }
        }
    }
    Ok(())
}

fn ports(path: &str, ports: Option<&[NetworkPolicyPort]>) -> Result<(), Broken> {
    for (at, port) in ports.iter().copied().flatten().enumerate() {
        let broken = |member: &str, fault: String| Broken::new(format_args!("{path}[{at}].{member}"), fault);
        if let Some(protocol) = port.protocol.as_deref().filter(|p| !matches!(*p, "TCP" | "UDP" | "SCTP")) {
            return Err(broken("protocol", format!("{protocol:?}, expected TCP, UDP or SCTP")));
        }
        let number = match &port.port {
            Some(IntOrString::Int(number)) if (1..=65535).contains(number) => Some(*number),
            Some(IntOrString::Int(number)) => {
                return Err(broken("port", format!("{number}, expected 1 to 65535")));
            }
            Some(IntOrString::String(name)) if !is_port_name(name) => {
                return Err(broken("port", format!("{name:?} cannot be the name of a port")));
            }
            _ => None,
        };
        if let Some(end) = port.end_port
            && number.is_none_or(|number| end < number || end > 65535)
        {
            return Err(broken(
                "endPort",
                format!("{end}, expected a number from port to 65535, and port a number"),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::policy::assert_broken;

    fn checked(spec: Value) -> Result<(), Broken> {
        check(&serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).expect("its type"))
    }

    #[test]
    fn what_can_be_enforced_is_sound() {
        let peers = json!([{"podSelector": {}}, {"namespaceSelector": {"matchLabels": {"a": "b"}}, "podSelector": {}},
            {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}, {"ipBlock": {"cidr": "fd00::/8"}}]);
        let ports =
            json!([{"port": 80, "endPort": 90}, {"port": "http", "protocol": "TCP"}, {"protocol": "UDP"}]);
        let expressions =
            json!([{"key": "a", "operator": "In", "values": ["b"]}, {"key": "a", "operator": "Exists"}]);
        for spec in [
            json!({}),
            json!({"podSelector": {"matchExpressions": expressions}, "policyTypes": ["Ingress", "Egress"]}),
            json!({"podSelector": {}, "ingress": [{}, {"from": peers, "ports": ports}], "egress": [{"to": peers, "ports": ports}]}),
        ] {
            assert_eq!(checked(spec.clone()), Ok(()), "{spec}");
        }
    }

    #[test]
    fn what_cannot_is_named_with_its_place() {
        let from = |peer: Value| json!({"ingress": [{}, {"from": [{"podSelector": {}}, peer]}]});
        let port = |port: Value| json!({"egress": [{"ports": [port]}]});
        let chosen = |operator: &str, values: &[&str]| json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": operator, "values": values}]}});
        let (second, first) = ("spec.ingress[1].from[1]", "spec.egress[0].ports[0]");
        let cases = [
            (chosen("In", &[]), "spec.podSelector.matchExpressions[0]".to_owned(), "expected values"),
            (chosen("Exists", &["b"]), "spec.podSelector.matchExpressions[0]".to_owned(), "no values"),
            (chosen("Gt", &["1"]), "spec.podSelector.matchExpressions[0]".to_owned(), "one of In"),
            (json!({"policyTypes": ["Ingres"]}), "spec.policyTypes[0]".to_owned(), "Ingres"),
            (from(json!({})), second.to_owned(), "neither"),
            (
                from(json!({"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}})),
                second.to_owned(),
                "beside",
            ),
            (from(json!({"ipBlock": {"cidr": "10.0.0.0"}})), format!("{second}.ipBlock.cidr"), "no block"),
            (
                from(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}})),
                format!("{second}.ipBlock.except[0]"),
                "not within 10.0.0.0/8",
            ),
            (port(json!({"protocol": "ICMP"})), format!("{first}.protocol"), "ICMP"),
            (port(json!({"port": 0})), format!("{first}.port"), "1 to 65535"),
            (port(json!({"port": "-http"})), format!("{first}.port"), "name of a port"),
            (port(json!({"port": 80, "endPort": 79})), format!("{first}.endPort"), "79"),
            (port(json!({"port": "http", "endPort": 90})), format!("{first}.endPort"), "port a number"),
        ];
        for (spec, path, part) in cases {
            assert_broken(checked(spec.clone()), &path, part, &spec.to_string());
        }
        assert_broken(check(&NetworkPolicy::default()), "spec", "none", "no spec");
    }
}
