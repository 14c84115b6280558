//! The parts of schemas that have no type of their own, and what is made of a derived schema.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use schemars::{Schema, SchemaGenerator, json_schema};

/// A cluster's name: Cilium's rule, but for `default`, which the hub refuses.
pub(crate) const CLUSTER_NAME: &str = "^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$";
/// Where a hub listens.
pub(crate) const ENDPOINT: &str =
    r"^https://([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?/?$";
/// A host name.
pub(crate) const HOST: &str = "^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$";
/// An address; whether it is one the hub says.
pub(crate) const ADDRESS: &str = "^[0-9A-Fa-f:.]+$";
/// An address block; whether it is one the hub says.
pub(crate) const BLOCK: &str = "^[0-9A-Fa-f:.]+/[0-9]{1,3}$";
/// A name, or two with a slash, with wildcards.
pub(crate) const PATTERN: &str = r"^[A-Za-z0-9._*?-]+(/[A-Za-z0-9._*?-]+)?$";
/// A name of an object.
pub(crate) const OBJECT_NAME: &str = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$";
/// A name of a service.
pub(crate) const SERVICE: &str = "^[a-z]([-a-z0-9]*[a-z0-9])?$";
/// PEM certificates.
pub(crate) const PEM: &str = "-----BEGIN CERTIFICATE-----";
/// A duration, such as 30s or 1m30s.
pub(crate) const DURATION: &str = "^([0-9]{1,6}(ms|s|m|h)){1,4}$";
/// A part of a hundred.
pub(crate) const PERCENT: &str = "^(100|[1-9]?[0-9])%$";

/// Conditions, as Kubernetes writes them: merged by their type.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 32,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {
                    "type": "string",
                    "maxLength": 316,
                    "pattern": r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
                },
                "status": { "type": "string", "enum": ["True", "False", "Unknown"] },
                "observedGeneration": { "type": "integer", "format": "int64", "minimum": 0 },
                "lastTransitionTime": { "type": "string", "format": "date-time" },
                "reason": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                },
                "message": { "type": "string", "maxLength": 32768 },
            },
        },
    })
}

/// A number, or a part of a hundred.
pub(crate) fn count_or_percent(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "anyOf": [{ "type": "integer" }, { "type": "string" }],
        "minimum": 1,
        "pattern": PERCENT,
    })
}

/// Takes out what a derived schema says twice: a member that may be absent need not also be null.
pub(crate) fn tidy(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut definition.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            plain(schema);
        }
    }
    definition
}

fn plain(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    // Descriptions are wrapped in the source.
    if let Some(text) = &mut schema.description {
        *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    schema.properties.iter_mut().flatten().for_each(|(_, below)| plain(below));
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        plain(items);
    }
}
