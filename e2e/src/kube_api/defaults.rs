//! What the API server adds to built-in objects: the defaults that clients like ours can notice. Everything else that a
//! real server fills in (pod templates above all) is left as the client sent it.

use std::net::Ipv4Addr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::kinds::Kind;

/// Fills in defaults. `before` is the object that is replaced; `next_address` counts cluster addresses of 10.96.0.0/12.
pub fn fill_in(kind: &Kind, before: Option<&Value>, object: &mut Value, next_address: &mut u32) {
    let Some(fields) = object.as_object_mut() else { return };
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "services") => service(before, fields, next_address),
        ("", "namespaces") => namespace(fields),
        ("", "secrets") => secret(fields),
        ("", "pods") if before.is_none() => {
            put(below(fields, "status"), "phase", json!("Pending"));
        }
        ("discovery.k8s.io", "endpointslices") => {
            for port in fields.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(port) = port.as_object_mut() {
                    put(port, "name", json!(""));
                    put(port, "protocol", json!("TCP"));
                }
            }
        }
        _ => {}
    }
}

fn service(before: Option<&Value>, fields: &mut Map<String, Value>, next_address: &mut u32) {
    let spec = below(fields, "spec");
    put(spec, "type", json!("ClusterIP"));
    put(spec, "sessionAffinity", json!("None"));
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(port) = port.as_object_mut() {
            put(port, "protocol", json!("TCP"));
            let target = port.get("port").cloned().unwrap_or_default();
            put(port, "targetPort", target);
        }
    }
    if spec.get("type").and_then(Value::as_str) == Some("ExternalName") {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            spec.remove(field);
        }
        return;
    }
    put(spec, "internalTrafficPolicy", json!("Cluster"));
    // An update without addresses keeps those that there are.
    let before = before.and_then(|before| before.get("spec"));
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if let Some(kept) = before.and_then(|before| before.get(field)) {
            put(spec, field, kept.clone());
        }
    }
    let given = spec.get("clusterIP").and_then(Value::as_str).unwrap_or_default().to_owned();
    let address = if given.is_empty() {
        *next_address = (*next_address + 1) % (1 << 20);
        Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 0, 0)) + *next_address).to_string()
    } else {
        given
    };
    put(spec, "ipFamilies", json!([if address.contains(':') { "IPv6" } else { "IPv4" }]));
    put(spec, "ipFamilyPolicy", json!("SingleStack"));
    put(spec, "clusterIPs", json!([address]));
    spec.insert("clusterIP".to_owned(), json!(address));
    put(below(fields, "status"), "loadBalancer", json!({}));
}

fn namespace(fields: &mut Map<String, Value>) {
    let name = fields.get("metadata").and_then(|metadata| metadata.get("name")).cloned().unwrap_or_default();
    let metadata = below(fields, "metadata");
    below(metadata, "labels").insert("kubernetes.io/metadata.name".to_owned(), name);
    put(below(fields, "status"), "phase", json!("Active"));
}

/// `stringData` is only ever written.
fn secret(fields: &mut Map<String, Value>) {
    put(fields, "type", json!("Opaque"));
    if let Some(Value::Object(plain)) = fields.remove("stringData") {
        let data = below(fields, "data");
        for (name, text) in plain {
            data.insert(name, json!(STANDARD.encode(text.as_str().unwrap_or_default())));
        }
    }
}

fn below<'a>(fields: &'a mut Map<String, Value>, name: &str) -> &'a mut Map<String, Value> {
    let value = fields.entry(name).or_insert(Value::Null);
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(fields) => fields,
        _ => unreachable!("a map since the line above"),
    }
}

/// Sets a field that is absent, null or empty text.
fn put(fields: &mut Map<String, Value>, name: &str, value: Value) {
    if fields.get(name).is_none_or(|found| found.is_null() || found == "") {
        fields.insert(name.to_owned(), value);
    }
}
