//! Deleting: finalizers, namespaces with their content, definitions with their objects.
//!
//! What a real cluster leaves to its controller manager is done here at once where nothing would go on without it: a
//! deleted namespace takes its content with it. Dependents (`ownerReferences`) are not collected; a propagation policy is
//! accepted and changes nothing.

use std::sync::Arc;

use serde_json::{Value, json};

use super::clock::Clock;
use super::failure::Failure;
use super::kinds::{Kind, KindId};
use super::selector::Selector;
use super::store::{Key, Object, State};
use super::write::{Writer, check_preconditions, has_finalizers, metadata_mut};

/// What came of a deletion.
#[derive(Debug)]
pub enum Deleted {
    /// It is gone; this was its last state.
    Gone(Arc<Object>),
    /// It waits for its finalizers.
    Waits(Arc<Object>),
}

impl Deleted {
    /// The object as it is or was.
    pub fn object(&self) -> &Arc<Object> {
        match self {
            Self::Gone(object) | Self::Waits(object) => object,
        }
    }
}

impl Writer<'_> {
    /// Deletes an object, if it is the one that is meant (empty: any).
    pub fn delete(&mut self, key: &Key, uid: &str, version: &str) -> Result<Deleted, Failure> {
        let before = self.existing(key)?;
        check_preconditions(&self.kind, key, &before, uid, version)?;
        if self.options.dry_run {
            return Ok(Deleted::Gone(before));
        }
        Ok(delete(self.state, &self.kind, key, &before, self.clock))
    }

    /// Deletes all selected objects of a namespace, or of all. Gives them as they were or are.
    pub fn delete_collection(&mut self, namespace: Option<&str>, selector: &Selector) -> Vec<Arc<Object>> {
        let objects = self.state.objects(&self.kind.id());
        let chosen = State::select(&objects, namespace).filter(|(_, object)| selector.matches(&object.value));
        let chosen: Vec<_> = chosen.map(|(key, object)| (key.clone(), Arc::clone(object))).collect();
        if self.options.dry_run {
            return chosen.into_iter().map(|(_, object)| object).collect();
        }
        let kind = Arc::clone(&self.kind);
        let each = chosen.iter().map(|(key, before)| delete(self.state, &kind, key, before, self.clock));
        each.map(|deleted| Arc::clone(deleted.object())).collect()
    }

    /// Lets an object go whose last finalizer was taken away.
    pub(super) fn leave(&mut self, key: &Key) {
        let kind = Arc::clone(&self.kind);
        if let Some(object) = self.state.get(&kind.id(), key) {
            delete(self.state, &kind, key, &object, self.clock);
        }
    }
}

fn delete(state: &mut State, kind: &Arc<Kind>, key: &Key, before: &Arc<Object>, clock: &Clock) -> Deleted {
    let id = kind.id();
    let mut current = Arc::clone(before);
    let content = content_of(state, kind, key, &current.value);
    if (has_finalizers(&current.value) || !content.is_empty()) && current.meta("deletionTimestamp").is_none()
    {
        let mut value = current.value.clone();
        if let Ok(metadata) = metadata_mut(&mut value) {
            metadata.insert("deletionTimestamp".to_owned(), json!(clock.now_text()));
            metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(0));
        }
        if kind.is("", "namespaces") {
            value["status"]["phase"] = json!("Terminating");
        }
        current = state.put(&id, key.clone(), value);
    }
    for (kind, key, object) in content {
        if state.get(&kind.id(), &key).is_some() {
            delete(state, &kind, &key, &object, clock);
        }
    }
    // Deleting the last of its content took the owner with it, or it can go now.
    let Some(found) = state.get(&id, key) else { return Deleted::Gone(current) };
    if has_finalizers(&found.value) || has_content(state, kind, key, &found.value) {
        return Deleted::Waits(found);
    }
    let gone = state.remove(&id, key).unwrap_or(current);
    if kind.is("apiextensions.k8s.io", "customresourcedefinitions")
        && let Some(id) = defined_by(&gone.value)
    {
        state.stop_serving(&id);
    }
    settle_owner(state, kind, key, clock);
    Deleted::Gone(gone)
}

/// After an object is gone: its namespace or its definition may have waited for that.
fn settle_owner(state: &mut State, kind: &Arc<Kind>, key: &Key, clock: &Clock) {
    let plural = if kind.is_custom() {
        Some(("apiextensions.k8s.io", "customresourcedefinitions", kind.resource()))
    } else {
        None
    };
    let namespace = kind.namespaced.then(|| ("", "namespaces", key.namespace.clone()));
    for (group, plural, name) in plural.into_iter().chain(namespace) {
        let Some(owner_kind) = state.kind(group, "v1", plural) else { continue };
        let owner_key = Key { namespace: String::new(), name };
        let Some(owner) = state.get(&owner_kind.id(), &owner_key) else { continue };
        let waits = owner.meta("deletionTimestamp").is_some() && !has_finalizers(&owner.value);
        if waits && !has_content(state, &owner_kind, &owner_key, &owner.value) {
            delete(state, &owner_kind, &owner_key, &owner, clock);
        }
    }
}

/// What goes with a namespace or a definition.
fn content_of(state: &State, kind: &Kind, key: &Key, value: &Value) -> Vec<(Arc<Kind>, Key, Arc<Object>)> {
    let (kinds, namespace) = owned_by(state, kind, key, value);
    let mut content = Vec::new();
    for kind in kinds {
        let objects = state.objects(&kind.id());
        for (key, object) in State::select(&objects, namespace) {
            content.push((Arc::clone(&kind), key.clone(), Arc::clone(object)));
        }
    }
    content
}

fn has_content(state: &State, kind: &Kind, key: &Key, value: &Value) -> bool {
    let (kinds, namespace) = owned_by(state, kind, key, value);
    kinds.iter().any(|kind| State::select(&state.objects(&kind.id()), namespace).next().is_some())
}

/// The kinds of which an object owns objects, and in which namespace (none: in all).
fn owned_by<'a>(
    state: &State,
    kind: &Kind,
    key: &'a Key,
    value: &Value,
) -> (Vec<Arc<Kind>>, Option<&'a str>) {
    if kind.is("", "namespaces") {
        return (state.kinds().filter(|kind| kind.namespaced).cloned().collect(), Some(&key.name));
    }
    let is_definition = kind.is("apiextensions.k8s.io", "customresourcedefinitions");
    let defined = if is_definition { defined_by(value) } else { None };
    (state.kinds().filter(|kind| defined.as_ref() == Some(&kind.id())).cloned().collect(), None)
}

fn defined_by(definition: &Value) -> Option<KindId> {
    let group = definition["spec"]["group"].as_str()?.to_owned();
    let plural = definition["spec"]["names"]["plural"].as_str()?.to_owned();
    Some(KindId { group, plural })
}
