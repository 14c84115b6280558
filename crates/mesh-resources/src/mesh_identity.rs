//! The custom resource `MeshIdentity`, as Cilium's `CiliumIdentity` is: cluster-scoped, the name is the number.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use crate::{GROUP, VERSION};

/// Kind.
pub const KIND: &str = "MeshIdentity";
/// The name of the resource in paths.
pub const PLURAL: &str = "meshidentities";
/// A label of each object, so that people find those of a namespace: what `spec.labels` says of it.
const NAMESPACE: &str = "io.kubernetes.pod.namespace";

/// The definition, to be installed beside the hub.
///
/// # Panics
/// Never: what is written here is a definition.
pub fn definition() -> CustomResourceDefinition {
    let labels = json!({
        "type": "object",
        "description": "Security labels by <source>:<key>, such as k8s:app.",
        "additionalProperties": {"type": "string", "maxLength": 317},
        "minProperties": 1,
        "maxProperties": 1024,
    });
    let schema = json!({
        "type": "object",
        "description": "A set of labels and its number: the name. Made, and deleted when no pod has the labels, by the hub.",
        "required": ["spec"],
        "properties": {"spec": {
            "type": "object",
            "description": "What the number stands for.",
            "required": ["labels"],
            "properties": {"labels": labels},
            "x-kubernetes-validations": [
                {"rule": "self == oldSelf", "message": "a number never comes to mean something else"},
            ],
        }},
    });
    let column = |name: &str, kind: &str, path: &str| json!({"name": name, "type": kind, "jsonPath": path});
    let columns = [
        column("Namespace", "string", r".metadata.labels.io\.kubernetes\.pod\.namespace"),
        column("Unused", "string", r".metadata.annotations.isthmus\.dev/unused"),
        column("Age", "date", ".metadata.creationTimestamp"),
    ];
    let definition = json!({
        "metadata": {"name": format!("{PLURAL}.{GROUP}")},
        "spec": {
            "group": GROUP,
            "scope": "Cluster",
            "names": {"plural": PLURAL, "singular": "meshidentity", "kind": KIND, "shortNames": ["meshid"]},
            "versions": [{"name": VERSION, "served": true, "storage": true,
                "additionalPrinterColumns": columns, "schema": {"openAPIV3Schema": schema}}],
        },
    });
    serde_json::from_value(definition).expect("a definition")
}

/// An object of this name with these labels, by `<source>:<key>`.
pub fn object(name: &str, labels: &BTreeMap<String, String>) -> Value {
    let namespace = labels.get(&format!("k8s:{NAMESPACE}"));
    // What Kubernetes does not take as a label's value is only not shown.
    let namespace = namespace.filter(|value| value.len() <= 63);
    let marks: BTreeMap<&str, &String> = namespace.map(|value| (NAMESPACE, value)).into_iter().collect();
    json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": KIND,
        "metadata": {"name": name, "labels": marks},
        "spec": {"labels": labels},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_and_an_object_of_it() {
        let definition = definition();
        assert_eq!(definition.metadata.name.as_deref(), Some("meshidentities.isthmus.dev"));
        let labels = BTreeMap::from([
            ("k8s:app".to_owned(), "cart".to_owned()),
            (format!("k8s:{NAMESPACE}"), "shop".to_owned()),
        ]);
        let object = object("65537", &labels);
        assert_eq!(object["metadata"]["labels"][NAMESPACE], "shop");
        assert_eq!(object["spec"]["labels"]["k8s:app"], "cart");
    }
}
