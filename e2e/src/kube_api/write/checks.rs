//! What a write must not do, and what a client cannot change.

use serde_json::{Map, Value, json};

use super::super::failure::{Cause, Failure};
use super::super::kinds::{Kind, KindId};
use super::super::store::{Key, Object};
use super::Writer;

impl Writer<'_> {
    pub(super) fn check_type(&self, body: &Value) -> Result<(), Failure> {
        if !body.is_object() {
            return Err(Failure::bad_request("the body must be a JSON object"));
        }
        for (field, expected) in [("apiVersion", self.kind.api_version()), ("kind", self.kind.kind.clone())] {
            let found = text_of(body, field);
            let message = format!(
                "the {field} in the data ({found:?}) does not match the expected {field} ({expected:?})"
            );
            let may_lack = found.is_empty() && !self.kind.is_custom();
            if found != expected && !may_lack {
                return Err(Failure::bad_request(message));
            }
        }
        Ok(())
    }

    pub(super) fn check_namespace_exists(&self, namespace: &str) -> Result<(), Failure> {
        if !self.kind.namespaced {
            return Ok(());
        }
        let namespaces = KindId { group: String::new(), plural: "namespaces".to_owned() };
        let key = Key { namespace: String::new(), name: namespace.to_owned() };
        let Some(found) = self.state.get(&namespaces, &key) else {
            return Err(Failure::not_found("namespaces", namespace));
        };
        if found.meta("deletionTimestamp").is_some() {
            let message = format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            );
            let cause = Cause {
                reason: "NamespaceTerminating",
                message: message.clone(),
                field: "metadata.namespace".to_owned(),
            };
            return Err(Failure { causes: vec![cause], ..Failure::forbidden(message) });
        }
        Ok(())
    }

    pub(super) fn check_preconditions(
        &self,
        key: &Key,
        before: &Object,
        asked: &Map<String, Value>,
    ) -> Result<(), Failure> {
        check_preconditions(&self.kind, key, before, text(asked, "uid"), text(asked, "resourceVersion"))
    }

    pub(super) fn check_finalizers(&self, key: &Key, before: &Object, after: &Value) -> Result<(), Failure> {
        let list = |object: &Value| object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        let old = list(&before.value);
        let is_new = |finalizer: &Value| !old.contains(finalizer);
        if before.meta("deletionTimestamp").is_some() && list(after).iter().any(is_new) {
            let message = "no new finalizers can be added if the object is being deleted";
            let causes = vec![Cause::forbidden("metadata.finalizers", message)];
            return Err(Failure::invalid(&self.kind.kind, &key.name, causes));
        }
        Ok(())
    }
}

/// Fails with 409 if an object is not the one, or not of the revision, that a request means.
pub fn check_preconditions(
    kind: &Kind,
    key: &Key,
    before: &Object,
    uid: &str,
    version: &str,
) -> Result<(), Failure> {
    let found = before.meta("uid").unwrap_or_default();
    if !uid.is_empty() && uid != found {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {found}");
        return Err(Failure::conflict(&kind.resource(), &key.name, &why));
    }
    // Zero means any, like none.
    if !version.is_empty() && version != "0" && version != before.revision.to_string() {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        return Err(Failure::conflict(&kind.resource(), &key.name, why));
    }
    Ok(())
}

/// Whether something must be done before the object can go.
pub fn has_finalizers(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty())
}

/// The metadata of a body; made if it is not there. Fails if it is no map.
pub fn metadata_mut(object: &mut Value) -> Result<&mut Map<String, Value>, Failure> {
    let fields =
        object.as_object_mut().ok_or_else(|| Failure::bad_request("the body must be a JSON object"))?;
    let metadata = fields.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    metadata.as_object_mut().ok_or_else(|| Failure::bad_request("metadata must be a map"))
}

/// Fails if a body names another namespace than the path; fills it in.
pub(super) fn check_namespace(metadata: &mut Map<String, Value>, namespace: &str) -> Result<(), Failure> {
    let found = text(metadata, "namespace");
    if !found.is_empty() && found != namespace {
        let message = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Failure::bad_request(message));
    }
    if !namespace.is_empty() {
        metadata.insert("namespace".to_owned(), json!(namespace));
    }
    Ok(())
}

/// Puts what a client cannot change back to what it was.
pub(super) fn keep_server_fields(before: &Object, after: &mut Value) -> Result<(), Failure> {
    let old = before.value.get("metadata");
    let metadata = metadata_mut(after)?;
    for field in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "generation",
        "generateName",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "managedFields",
        "selfLink",
    ] {
        set_or_remove_in(metadata, field, old.and_then(|old| old.get(field)).cloned());
    }
    let types = ["apiVersion", "kind"].map(|field| (field.to_owned(), before.value[field].clone()));
    if let Some(fields) = after.as_object_mut() {
        fields.extend(types);
    }
    Ok(())
}

/// Whether more than metadata and status differs.
pub(super) fn differs_in_spec(kind: &Kind, before: &Value, after: &Value) -> bool {
    let counted = |name: &str| name != "metadata" && !(name == "status" && kind.status);
    let (Some(before), Some(after)) = (before.as_object(), after.as_object()) else { return true };
    let left = before.iter().filter(|(name, _)| counted(name));
    let right = after.iter().filter(|(name, _)| counted(name));
    !left.eq(right)
}

/// Sets a field, or takes it away.
pub(super) fn set_or_remove(object: &mut Value, field: &str, value: Option<Value>) {
    if let Some(fields) = object.as_object_mut() {
        set_or_remove_in(fields, field, value);
    }
}

/// The same in a map.
pub(super) fn set_or_remove_in(fields: &mut Map<String, Value>, field: &str, value: Option<Value>) {
    match value {
        Some(value) => fields.insert(field.to_owned(), value),
        None => fields.remove(field),
    };
}

/// Whether a resource version says nothing.
pub(super) fn is_blank(value: &Value) -> bool {
    value.is_null() || value == "" || value == "0"
}

/// A text field of a map; empty if it is absent.
pub(super) fn text<'a>(fields: &'a Map<String, Value>, field: &str) -> &'a str {
    fields.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// A text field of an object; empty if it is absent.
pub(super) fn text_of<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).unwrap_or_default()
}
