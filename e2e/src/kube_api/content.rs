//! The content of an object against its kind: unknown fields, defaults of schemas, and what is not allowed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::Value;

use super::failure::Failure;
use super::kinds::{Content, Kind};
use super::rules;
use super::write::UnknownFields;

/// An object whose content is that of its kind.
#[derive(Debug)]
pub struct Completed {
    /// Without unknown fields, with the defaults of its schema.
    pub object: Value,
    /// Paths of the fields that were dropped, unless nobody wants to know.
    pub warnings: Vec<String>,
}

/// Drops unknown fields, fills in the defaults of a schema, and refuses what breaks its rules. Type errors in built-in
/// kinds are 400, broken rules 422 with a cause for each.
pub fn complete(kind: &Kind, object: Value, unknown: UnknownFields) -> Result<Completed, Failure> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let Completed { object, warnings: mut dropped } = known(kind, object)?;
    let causes = match &kind.content {
        Content::BuiltIn(_) => rules::broken(kind, &object),
        Content::Custom(schema) => schema.check(&object),
    };
    let causes = [rules::broken_metadata(&object), causes].concat();
    if !causes.is_empty() {
        return Err(Failure::invalid(&format!("{}{}", kind.kind, group_suffix(kind)), &name, causes));
    }
    match unknown {
        UnknownFields::Ignore => dropped.clear(),
        UnknownFields::Warn => {}
        UnknownFields::Strict if dropped.is_empty() => {}
        UnknownFields::Strict => {
            let listed: Vec<String> = dropped.iter().map(|path| format!("unknown field {path:?}")).collect();
            return Err(Failure::bad_request(format!("strict decoding error: {}", listed.join(", "))));
        }
    }
    Ok(Completed { object, warnings: dropped })
}

/// Drops unknown fields and fills in the defaults of a schema; checks no rules, so it does for a part of an object.
pub fn known(kind: &Kind, mut object: Value) -> Result<Completed, Failure> {
    let mut dropped = Vec::new();
    match &kind.content {
        Content::BuiltIn(through_type) => {
            // Types are optional in the body of a built-in kind.
            if let Some(fields) = object.as_object_mut() {
                fields.insert("apiVersion".to_owned(), kind.api_version().into());
                fields.insert("kind".to_owned(), kind.kind.clone().into());
            }
            let typed = through_type(&object).map_err(|error| cannot_read(kind, &error))?;
            find_dropped(&object, &typed, "", &mut dropped);
            object = typed;
        }
        Content::Custom(schema) => {
            dropped = schema.complete(&mut object);
            let metadata = object.get("metadata").cloned().unwrap_or_default();
            let typed = ObjectMeta::deserialize(&metadata).and_then(serde_json::to_value);
            let typed = typed.map_err(|error| cannot_read(kind, &error))?;
            find_dropped(&metadata, &typed, "metadata", &mut dropped);
            object["metadata"] = typed;
        }
    }
    Ok(Completed { object, warnings: dropped })
}

fn group_suffix(kind: &Kind) -> String {
    if kind.group.is_empty() { String::new() } else { format!(".{}", kind.group) }
}

fn cannot_read(kind: &Kind, error: &serde_json::Error) -> Failure {
    let Kind { kind, version, .. } = kind;
    Failure::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {error}"))
}

/// The fields that went when an object was read into its type and written again. Nulls do not count.
fn find_dropped(before: &Value, after: &Value, at: &str, dropped: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (name, value) in before.iter().filter(|(_, value)| !value.is_null()) {
                let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                match after.get(name) {
                    Some(kept) => find_dropped(value, kept, &path, dropped),
                    None => dropped.push(path),
                }
            }
        }
        (Value::Array(before), Value::Array(after)) => {
            for (i, (value, kept)) in before.iter().zip(after).enumerate() {
                find_dropped(value, kept, &format!("{at}[{i}]"), dropped);
            }
        }
        _ => {}
    }
}
