//! Rules of built-in kinds beyond their types: few, chosen for what our clients write. A real API server has hundreds.

use serde_json::Value;

use super::failure::Cause;
use super::kinds::Kind;

/// What is wrong with the metadata of any object.
pub fn broken_metadata(object: &Value) -> Vec<Cause> {
    let mut wrong = Vec::new();
    let labels = object["metadata"]["labels"].as_object();
    for (name, value) in labels.into_iter().flatten() {
        let value = value.as_str().unwrap_or_default();
        if !is_qualified_name(name) {
            wrong.push(Cause::invalid(
                "metadata.labels",
                format!("{name:?}: name part must be a qualified name"),
            ));
        }
        if !is_label_value(value) {
            wrong.push(Cause::invalid("metadata.labels", format!("{value:?}: a valid label must be at most 63 characters of a-z, 0-9, '-', '_' and '.', with a letter or digit at both ends")));
        }
    }
    let annotations = object["metadata"]["annotations"].as_object();
    let mut size = 0;
    for (name, value) in annotations.into_iter().flatten() {
        size += name.len() + value.as_str().unwrap_or_default().len();
        if !is_qualified_name(&name.to_ascii_lowercase()) {
            wrong.push(Cause::invalid(
                "metadata.annotations",
                format!("{name:?}: name part must be a qualified name"),
            ));
        }
    }
    if size > 256 * 1024 {
        wrong.push(Cause::invalid("metadata.annotations", "must have at most 262144 bytes"));
    }
    for finalizer in
        object["metadata"]["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str)
    {
        if !finalizer.contains('/') || !is_qualified_name(finalizer) {
            wrong.push(Cause::invalid(
                "metadata.finalizers",
                format!("{finalizer:?}: name is neither a standard finalizer name nor is it fully qualified"),
            ));
        }
    }
    wrong
}

/// What is wrong with a built-in object.
pub fn broken(kind: &Kind, object: &Value) -> Vec<Cause> {
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "services") => service(object),
        ("discovery.k8s.io", "endpointslices") => endpoint_slice(object),
        ("apps", _) => workload(object),
        ("coordination.k8s.io", "leases") => lease(object),
        _ => Vec::new(),
    }
}

fn service(object: &Value) -> Vec<Cause> {
    let mut wrong = Vec::new();
    let spec = &object["spec"];
    let types = spec["type"].as_str().unwrap_or("ClusterIP");
    if !["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"].contains(&types) {
        wrong.push(Cause::not_supported("spec.type", format!("{types:?}")));
    }
    let ports = spec["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let may_be_without = types == "ExternalName" || spec["clusterIP"] == "None";
    if ports.is_empty() && !may_be_without {
        wrong.push(Cause::required("spec.ports"));
    }
    if types == "ExternalName" && spec["externalName"].as_str().unwrap_or_default().is_empty() {
        wrong.push(Cause::required("spec.externalName"));
    }
    for (i, port) in ports.iter().enumerate() {
        if !port["port"].as_i64().is_some_and(|port| (1..=65535).contains(&port)) {
            wrong.push(Cause::invalid(
                format!("spec.ports[{i}].port"),
                format!("{}: must be between 1 and 65535, inclusive", port["port"]),
            ));
        }
        if ports.len() > 1 && port["name"].as_str().unwrap_or_default().is_empty() {
            wrong.push(Cause::required(format!("spec.ports[{i}].name")));
        }
    }
    wrong
}

fn endpoint_slice(object: &Value) -> Vec<Cause> {
    let mut wrong = Vec::new();
    let family = object["addressType"].as_str().unwrap_or_default();
    match family {
        "" => wrong.push(Cause::required("addressType")),
        "IPv4" | "IPv6" | "FQDN" => {}
        other => wrong.push(Cause::not_supported("addressType", format!("{other:?}"))),
    }
    let endpoints = object["endpoints"].as_array().map(Vec::as_slice).unwrap_or_default();
    if endpoints.len() > 1000 {
        wrong.push(Cause::invalid(
            "endpoints",
            format!("{} items: must have at most 1000 items", endpoints.len()),
        ));
    }
    for (i, endpoint) in endpoints.iter().enumerate() {
        let addresses = endpoint["addresses"].as_array().map(Vec::as_slice).unwrap_or_default();
        let at = format!("endpoints[{i}].addresses");
        if addresses.is_empty() {
            wrong.push(Cause::required(at.clone()));
        }
        for address in addresses.iter().filter_map(Value::as_str) {
            let sound = match family {
                "IPv4" => address.parse::<std::net::Ipv4Addr>().is_ok(),
                "IPv6" => address.parse::<std::net::Ipv6Addr>().is_ok(),
                _ => true,
            };
            if !sound {
                wrong.push(Cause::invalid(at.clone(), format!("{address:?}: not an {family} address")));
            }
        }
    }
    if object["ports"].as_array().is_some_and(|ports| ports.len() > 100) {
        wrong.push(Cause::invalid("ports", "must have at most 100 items"));
    }
    wrong
}

fn workload(object: &Value) -> Vec<Cause> {
    let labels = &object["spec"]["template"]["metadata"]["labels"];
    let selector = object["spec"]["selector"]["matchLabels"].as_object();
    let Some(selector) = selector.filter(|selector| !selector.is_empty()) else {
        return vec![Cause::required("spec.selector")];
    };
    let selects = selector.iter().all(|(name, value)| labels.get(name) == Some(value));
    let message = format!("{labels}: `selector` does not match template `labels`");
    if selects { Vec::new() } else { vec![Cause::invalid("spec.template.metadata.labels", message)] }
}

fn lease(object: &Value) -> Vec<Cause> {
    let seconds = object["spec"]["leaseDurationSeconds"].as_i64();
    match seconds {
        Some(seconds) if seconds <= 0 => {
            vec![Cause::invalid("spec.leaseDurationSeconds", format!("{seconds}: must be greater than 0"))]
        }
        _ => Vec::new(),
    }
}

/// `[prefix/]name`, as labels, annotations and finalizers are called.
fn is_qualified_name(text: &str) -> bool {
    let (prefix, name) = text.rsplit_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let prefixed =
        prefix.is_none_or(|prefix| prefix.len() <= 253 && prefix.split('.').all(super::names::is_label));
    prefixed && !name.is_empty() && is_label_value(name)
}

fn is_label_value(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let ends = [text.bytes().next(), text.bytes().last()];
    text.len() <= 63 && text.bytes().all(plain) && ends.iter().flatten().all(u8::is_ascii_alphanumeric)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn metadata_rules() {
        for (metadata, faults) in [
            (json!({"labels": {"app.kubernetes.io/name": "a-b", "x": ""}}), 0),
            (json!({"labels": {"a b": "x", "c": "a/b"}}), 2),
            (json!({"labels": {"c": "-a"}}), 1),
            (json!({"annotations": {"Service.cilium.io/global": "any thing {}"}}), 0),
            (json!({"finalizers": ["isthmus.dev/a", "plain"]}), 1),
        ] {
            assert_eq!(broken_metadata(&json!({"metadata": metadata})).len(), faults, "{metadata}");
        }
    }

    #[test]
    fn slices_are_held_to_their_family_and_size() {
        let endpoint = json!({"addresses": ["10.0.0.1"]});
        let slice =
            |family: &str, n: usize| json!({"addressType": family, "endpoints": vec![endpoint.clone(); n]});
        assert_eq!(endpoint_slice(&slice("IPv4", 1000)), []);
        assert_eq!(endpoint_slice(&slice("IPv6", 1)).len(), 1);
        assert_eq!(endpoint_slice(&slice("IPv4", 1001)).len(), 1);
        assert_eq!(endpoint_slice(&json!({"endpoints": [{"addresses": []}]})).len(), 2);
    }
}
