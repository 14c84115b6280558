//! Creating and changing objects: the rules between a request's body and the store.

mod checks;

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::apply::{Actor, apply, record_update, same_but_owners};
use super::clock::Clock;
use super::content::{Completed, complete, known};
use super::defaults;
use super::definition;
use super::failure::{Cause, Failure};
use super::kinds::Kind;
use super::merge_patch::{is_plain_strategic, merge};
use super::names;
use super::store::{Key, Object, State};
use checks::{
    check_namespace, differs_in_spec, is_blank, keep_server_fields, set_or_remove, set_or_remove_in, text,
    text_of,
};
pub use checks::{check_preconditions, has_finalizers, metadata_mut};

/// How a request wants to write.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Field manager.
    pub manager: String,
    /// Whether it goes to `/status`.
    pub to_status: bool,
    /// Whether nothing is kept.
    pub dry_run: bool,
    /// Whether fields of other managers are taken over (server-side apply).
    pub force: bool,
    /// What is done about unknown fields.
    pub unknown: UnknownFields,
}

/// What is done about unknown fields (`fieldValidation`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownFields {
    /// They are dropped.
    Ignore,
    /// They are dropped, and a `Warning` header says so.
    #[default]
    Warn,
    /// The request is refused.
    Strict,
}

/// How a patch is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    /// RFC 7386.
    Merge,
    /// Strategic merge; only what is surely the same as a merge patch.
    Strategic,
    /// Server-side apply.
    Apply,
}

/// An object that was written.
#[derive(Debug)]
pub struct Written {
    /// As it is now.
    pub object: Arc<Object>,
    /// Whether it is new.
    pub created: bool,
    /// What the client should know.
    pub warnings: Vec<String>,
}

/// Writes objects of one kind for one request, with the store's lock held.
pub struct Writer<'a> {
    /// The store.
    pub state: &'a mut State,
    /// The kind.
    pub kind: Arc<Kind>,
    /// Of the request.
    pub options: WriteOptions,
    /// For time stamps.
    pub clock: &'a Clock,
}

impl Writer<'_> {
    /// Creates an object in a namespace (empty for cluster-wide kinds).
    pub fn create(&mut self, namespace: &str, mut body: Value) -> Result<Written, Failure> {
        self.check_type(&body)?;
        let kind = Arc::clone(&self.kind);
        let metadata = metadata_mut(&mut body)?;
        if metadata.get("resourceVersion").is_some_and(|version| !is_blank(version)) {
            return Err(Failure::bad_request("resourceVersion should not be set on objects to be created"));
        }
        let name = match (text(metadata, "name"), text(metadata, "generateName")) {
            ("", "") => {
                let causes = vec![Cause {
                    message: "Required value: name or generateName is required".to_owned(),
                    ..Cause::required("metadata.name")
                }];
                return Err(Failure::invalid(&kind.kind, "", causes));
            }
            ("", prefix) => names::generate(prefix),
            (name, _) => name.to_owned(),
        };
        names::check(&kind, &name)?;
        metadata.insert("name".to_owned(), json!(name));
        check_namespace(metadata, namespace)?;
        self.check_namespace_exists(namespace)?;
        let key = Key { namespace: namespace.to_owned(), name };
        if self.state.get(&kind.id(), &key).is_some() {
            return Err(Failure::already_exists(&kind.resource(), &key.name));
        }
        let Completed { object, warnings } = complete(&kind, body, self.options.unknown)?;
        let mut object = object;
        if kind.status
            && !kind.is("", "nodes")
            && !kind.is("apiextensions.k8s.io", "customresourcedefinitions")
        {
            object.as_object_mut().map(|fields| fields.remove("status"));
        }
        metadata_mut(&mut object)?.remove("managedFields");
        self.prepare_new(&mut object)?;
        let (actor, lists) = (self.actor(), &kind.lists);
        record_update(&Value::Null, &mut object, &actor, lists);
        let object = self.commit(key, object);
        Ok(Written { object, created: true, warnings })
    }

    /// Replaces an object, or its status.
    pub fn replace(&mut self, key: &Key, mut body: Value) -> Result<Written, Failure> {
        self.check_type(&body)?;
        let kind = Arc::clone(&self.kind);
        let before = self.existing(key)?;
        let metadata = metadata_mut(&mut body)?;
        if !text(metadata, "name").is_empty() && text(metadata, "name") != key.name {
            let found = text(metadata, "name");
            let message =
                format!("the name of the object ({found}) does not match the name on the URL ({})", key.name);
            return Err(Failure::bad_request(message));
        }
        check_namespace(metadata, &key.namespace)?;
        let conditional = kind.is_custom() || kind.is("coordination.k8s.io", "leases");
        if conditional && text(metadata, "resourceVersion").is_empty() {
            let message = "0: must be specified for an update";
            let causes = vec![Cause::invalid("metadata.resourceVersion", message)];
            return Err(Failure::invalid(&kind.resource(), &key.name, causes));
        }
        self.check_preconditions(key, &before, metadata)?;
        self.finish(key, &before, body)
    }

    /// Patches an object, or its status; applying makes it if it is not there.
    pub fn patch(&mut self, key: &Key, how: PatchType, patch: &Value) -> Result<Written, Failure> {
        if !patch.is_object() {
            return Err(Failure::bad_request("a patch must be a JSON object"));
        }
        match how {
            PatchType::Apply => return self.apply(key, patch),
            PatchType::Strategic if self.kind.is_custom() => {
                let message = "the body of the request was in an unknown format - accepted media types include: \
                    application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
                return Err(Failure::new(415, "UnsupportedMediaType", message));
            }
            PatchType::Strategic if !is_plain_strategic(patch) => {
                let what = "strategic merge patches of other things than labels and annotations";
                return Err(Failure::not_built(what));
            }
            PatchType::Strategic | PatchType::Merge => {}
        }
        let before = self.existing(key)?;
        let mut after = before.value.clone();
        let patched_version = patch.get("metadata").and_then(|metadata| metadata.get("resourceVersion"));
        if let Some(version) = patched_version.filter(|version| !is_blank(version)) {
            let asked: Map<String, Value> =
                [("resourceVersion".to_owned(), version.clone())].into_iter().collect();
            self.check_preconditions(key, &before, &asked)?;
        }
        merge(&mut after, patch);
        self.check_type(&after)?;
        let metadata = metadata_mut(&mut after)?;
        if text(metadata, "name") != key.name || text(metadata, "namespace") != key.namespace {
            let causes = vec![Cause::invalid("metadata.name", "field is immutable")];
            return Err(Failure::invalid(&self.kind.kind, &key.name, causes));
        }
        self.finish(key, &before, after)
    }

    fn apply(&mut self, key: &Key, applied: &Value) -> Result<Written, Failure> {
        let kind = Arc::clone(&self.kind);
        if text_of(applied, "apiVersion") != kind.api_version() || text_of(applied, "kind") != kind.kind {
            let expected =
                format!("apiVersion {} and kind {} are required to apply", kind.api_version(), kind.kind);
            return Err(Failure::bad_request(expected));
        }
        let mut applied = applied.clone();
        let metadata = metadata_mut(&mut applied)?;
        if metadata.get("managedFields").is_some_and(|owners| !owners.is_null()) {
            return Err(Failure::bad_request("metadata.managedFields must be nil"));
        }
        // Without a name, that of the path is meant; clients leave it out when they apply a status.
        if !matches!(text(metadata, "name"), name if name.is_empty() || name == key.name) {
            return Err(Failure::bad_request("the name of the object does not match the name on the URL"));
        }
        metadata.insert("name".to_owned(), json!(key.name));
        check_namespace(metadata, &key.namespace)?;
        let Completed { warnings, .. } = known(&kind, applied.clone())?;
        if let Some(first) = warnings.first() {
            let message =
                format!("failed to create typed patch object: {first}: field not declared in schema");
            return Err(Failure::bad_request(message));
        }
        let actor = self.actor();
        let Some(before) = self.state.get(&kind.id(), key) else {
            if self.options.to_status {
                return Err(Failure::not_found(&kind.resource(), &key.name));
            }
            self.check_namespace_exists(&key.namespace)?;
            names::check(&kind, &key.name)?;
            if kind.status {
                applied.as_object_mut().map(|fields| fields.remove("status"));
            }
            let merged = apply(&Value::Null, &applied, &actor, self.options.force, &kind.lists)?;
            let owners = merged["metadata"].get("managedFields").cloned();
            let Completed { mut object, warnings } = complete(&kind, merged, UnknownFields::Warn)?;
            metadata_mut(&mut object)?.extend(owners.map(|owners| ("managedFields".to_owned(), owners)));
            self.prepare_new(&mut object)?;
            let object = self.commit(key.clone(), object);
            return Ok(Written { object, created: true, warnings });
        };
        self.check_preconditions(key, &before, metadata_mut(&mut applied)?)?;
        if !self.options.to_status && kind.status {
            applied.as_object_mut().map(|fields| fields.remove("status"));
        }
        let merged = apply(&before.value, &applied, &actor, self.options.force, &kind.lists)?;
        self.finish_with(key, &before, merged, true)
    }

    /// The store's copy, or 404.
    pub fn existing(&self, key: &Key) -> Result<Arc<Object>, Failure> {
        let found = self.state.get(&self.kind.id(), key);
        found.ok_or_else(|| Failure::not_found(&self.kind.resource(), &key.name))
    }

    fn finish(&mut self, key: &Key, before: &Arc<Object>, after: Value) -> Result<Written, Failure> {
        self.finish_with(key, before, after, false)
    }

    /// What all changes have in common: what a client cannot change is as before, the rest is checked and kept.
    fn finish_with(
        &mut self,
        key: &Key,
        before: &Arc<Object>,
        mut after: Value,
        owners_done: bool,
    ) -> Result<Written, Failure> {
        let kind = Arc::clone(&self.kind);
        let owners = owners_done.then(|| after["metadata"].get("managedFields").cloned()).flatten();
        if self.options.to_status {
            let status = after.get("status").cloned();
            after = before.value.clone();
            set_or_remove(&mut after, "status", status);
        } else if kind.status {
            set_or_remove(&mut after, "status", before.value.get("status").cloned());
        }
        keep_server_fields(before, &mut after)?;
        let Completed { mut object, warnings } = complete(&kind, after, self.options.unknown)?;
        defaults::fill_in(&kind, Some(&before.value), &mut object, &mut self.state.next_service_address);
        self.check_finalizers(key, before, &object)?;
        if kind.is("apiextensions.k8s.io", "customresourcedefinitions") {
            definition::kind_of(&object)?;
        }
        if kind.generation && differs_in_spec(&kind, &before.value, &object) {
            let generation = before.value["metadata"]["generation"].as_i64().unwrap_or_default();
            metadata_mut(&mut object)?.insert("generation".to_owned(), json!(generation + 1));
        }
        if owners_done {
            set_or_remove_in(metadata_mut(&mut object)?, "managedFields", owners);
        } else {
            record_update(&before.value, &mut object, &self.actor(), &kind.lists);
        }
        if same_but_owners(&before.value, &object) {
            return Ok(Written { object: Arc::clone(before), created: false, warnings });
        }
        let is_leaving = object["metadata"].get("deletionTimestamp").is_some() && !has_finalizers(&object);
        let object = self.commit(key.clone(), object);
        if is_leaving && !self.options.dry_run {
            self.leave(key);
        }
        Ok(Written { object, created: false, warnings })
    }

    fn prepare_new(&mut self, object: &mut Value) -> Result<(), Failure> {
        let kind = Arc::clone(&self.kind);
        let metadata = metadata_mut(object)?;
        for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"] {
            metadata.remove(field);
        }
        metadata.insert("uid".to_owned(), json!(names::uid()));
        metadata.insert("creationTimestamp".to_owned(), json!(self.clock.now_text()));
        if kind.generation {
            metadata.insert("generation".to_owned(), json!(1));
        }
        defaults::fill_in(&kind, None, object, &mut self.state.next_service_address);
        if kind.is("apiextensions.k8s.io", "customresourcedefinitions") {
            let served = definition::kind_of(object)?;
            if self.state.kind(&served.group, &served.version, &served.plural).is_some() {
                return Err(Failure::already_exists("kind", &served.resource()));
            }
            definition::establish(object, &served, &self.clock.now_text());
        }
        Ok(())
    }

    fn commit(&mut self, key: Key, object: Value) -> Arc<Object> {
        if self.options.dry_run {
            return Object::at(self.state.revision(), object);
        }
        if self.kind.is("apiextensions.k8s.io", "customresourcedefinitions")
            && let Ok(kind) = definition::kind_of(&object)
        {
            self.state.serve(kind);
        }
        self.state.put(&self.kind.id(), key, object)
    }

    fn actor(&self) -> Actor {
        Actor {
            manager: self.options.manager.clone(),
            subresource: if self.options.to_status { "status".to_owned() } else { String::new() },
            api_version: self.kind.api_version(),
            time: self.clock.now_text(),
        }
    }
}
