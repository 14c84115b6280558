//! Who owns which field, and server-side apply.
//!
//! As the API server does it: a manager's applied configuration is merged into the object; what it applied before and
//! applies no longer goes, unless somebody else owns it too; another manager's field with another value is a conflict,
//! or is taken over by force. Simplified: which lists are merged by key is known for the kinds of
//! [`ListTypes::of_built_in`] and from the schemas of custom resources, the order of merged lists is that of the live
//! object, `null` in an applied configuration is ignored, and versions are not converted.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::failure::{Cause, Failure};
use super::field_set::{FieldSet, ListTypes, Merge, Path, Step, find, item_step, remove, show};

/// Who changes an object, and through which door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// Field manager.
    pub manager: String,
    /// `status`, or empty.
    pub subresource: String,
    /// The version of its objects.
    pub api_version: String,
    /// Now, as `managedFields` says it.
    pub time: String,
}

/// One entry of `managedFields`.
#[derive(Clone, Debug, PartialEq)]
struct Ownership {
    actor: Actor,
    applies: bool,
    fields: FieldSet,
}

/// Records who owns what after a create, update or patch. `before` is null for a new object.
pub fn record_update(before: &Value, after: &mut Value, actor: &Actor, lists: &ListTypes) {
    let mut owners = read(before);
    let mut changed = FieldSet::changed(before, after, lists);
    changed.retain(|path| in_scope(path, actor));
    for owner in &mut owners {
        // What was changed belongs to the actor; what is gone belongs to nobody.
        owner.fields.retain(|path| find(after, path).is_some());
        if !owner.is_update_of(actor) {
            owner.fields.retain(|path| !changed.contains(path));
        }
    }
    if !changed.is_empty() {
        match owners.iter_mut().find(|owner| owner.is_update_of(actor)) {
            Some(owner) => {
                owner.fields.add(&changed);
                owner.actor = actor.clone();
            }
            None => owners.push(Ownership { actor: actor.clone(), applies: false, fields: changed }),
        }
    }
    write(after, owners);
}

/// Merges an applied configuration into the live object (null if there is none) and gives the result.
pub fn apply(
    live: &Value,
    applied: &Value,
    actor: &Actor,
    force: bool,
    lists: &ListTypes,
) -> Result<Value, Failure> {
    let mut owners = read(live);
    if owners.is_empty() && !live.is_null() {
        // As the API server does for objects from before there was an owner.
        let actor =
            Actor { manager: "before-first-apply".to_owned(), subresource: String::new(), ..actor.clone() };
        owners.push(Ownership { actor, applies: false, fields: FieldSet::of(live, lists) });
    }
    let mut wanted = FieldSet::of(applied, lists);
    wanted.retain(|path| in_scope(path, actor));
    let conflicts = conflicts(&owners, live, applied, &wanted, actor);
    if !conflicts.is_empty() && !force {
        return Err(conflict(&conflicts));
    }
    let taken: BTreeSet<Path> = conflicts.into_iter().map(|(_, path)| path).collect();
    for owner in owners.iter_mut().filter(|owner| !owner.is_apply_of(actor)) {
        owner.fields.retain(|path| !taken.contains(path));
    }
    let mut merged = if live.is_null() { Value::Object(Map::new()) } else { live.clone() };
    merge(&mut merged, applied, lists, &mut Vec::new(), actor);
    let previous = owners.iter().position(|owner| owner.is_apply_of(actor)).map(|at| owners.remove(at));
    let previous = previous.map(|owner| owner.fields).unwrap_or_default();
    // An item of a list goes before its fields, by whose values it is found.
    for path in previous.iter().filter(|path| !wanted.reaches(path)) {
        if !owners.iter().any(|owner| owner.fields.reaches(path)) {
            remove(&mut merged, path);
        }
    }
    owners.push(Ownership { actor: actor.clone(), applies: true, fields: wanted });
    write(&mut merged, owners);
    Ok(merged)
}

/// Takes over what the server itself adds: the same content but for owners, which stay as in `from`.
pub fn same_but_owners(one: &Value, other: &Value) -> bool {
    let strip = |value: &Value| {
        let mut value = value.clone();
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("resourceVersion");
            if let Some(owners) = metadata.get_mut("managedFields").and_then(Value::as_array_mut) {
                for owner in owners.iter_mut().filter_map(Value::as_object_mut) {
                    owner.remove("time");
                }
                owners.sort_by_key(Value::to_string);
            }
        }
        value
    };
    strip(one) == strip(other)
}

impl Ownership {
    fn is_update_of(&self, actor: &Actor) -> bool {
        !self.applies && self.actor.manager == actor.manager && self.actor.subresource == actor.subresource
    }

    fn is_apply_of(&self, actor: &Actor) -> bool {
        self.applies && self.actor.manager == actor.manager && self.actor.subresource == actor.subresource
    }
}

/// `/status` owns the status alone, the object itself all but the status where there is a `/status`.
fn in_scope(path: &Path, actor: &Actor) -> bool {
    let is_status = matches!(path.first(), Some(Step::Field(name)) if name == "status");
    actor.subresource.is_empty() || is_status
}

fn conflicts<'a>(
    owners: &'a [Ownership],
    live: &Value,
    applied: &Value,
    wanted: &FieldSet,
    actor: &Actor,
) -> Vec<(&'a Ownership, Path)> {
    let mut found = Vec::new();
    for owner in owners.iter().filter(|owner| !owner.is_apply_of(actor)) {
        for path in wanted.iter().filter(|path| owner.fields.contains(path)) {
            let differs =
                matches!(path.last(), Some(Step::Field(_))) && find(live, path) != find(applied, path);
            if differs {
                found.push((owner, path.clone()));
            }
        }
    }
    found
}

fn conflict(conflicts: &[(&Ownership, Path)]) -> Failure {
    let causes: Vec<Cause> = conflicts
        .iter()
        .map(|(owner, path)| {
            let Actor { manager, subresource, api_version, .. } = &owner.actor;
            let door = if subresource.is_empty() {
                String::new()
            } else {
                format!(" with subresource {subresource:?}")
            };
            let verb = if owner.applies { "" } else { " using" };
            let version = if owner.applies { String::new() } else { format!(" {api_version}") };
            Cause {
                reason: "FieldManagerConflict",
                message: format!("conflict with {manager:?}{door}{verb}{version}"),
                field: show(path),
            }
        })
        .collect();
    let listed: Vec<String> = causes.iter().map(|c| format!("{}: {}", c.message, c.field)).collect();
    let plural = if causes.len() == 1 { "conflict" } else { "conflicts" };
    let message = format!("Apply failed with {} {plural}: {}", causes.len(), listed.join("; "));
    Failure { causes, ..Failure::new(409, "Conflict", message) }
}

fn merge(live: &mut Value, applied: &Value, lists: &ListTypes, path: &mut Path, actor: &Actor) {
    if applied.is_null() || (path.len() == 1 && !actor.subresource.is_empty() && !in_scope(path, actor)) {
        return;
    }
    match (applied, lists.at(path)) {
        (Value::Object(fields), None) => {
            if !live.is_object() {
                *live = Value::Object(Map::new());
            }
            let Value::Object(target) = live else { return };
            for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
                path.push(Step::Field(name.clone()));
                let in_reach = path.len() > 1 || in_scope(path, actor);
                if in_reach {
                    merge(target.entry(name.clone()).or_insert(Value::Null), value, lists, path, actor);
                }
                path.pop();
            }
        }
        (Value::Array(items), Some(Merge::ByKey(keys))) => {
            if !live.is_array() {
                *live = Value::Array(Vec::new());
            }
            let Value::Array(target) = live else { return };
            for item in items {
                let step = item_step(item, keys);
                let at =
                    target.iter().position(|other| item_step(other, keys) == step).unwrap_or_else(|| {
                        target.push(Value::Null);
                        target.len() - 1
                    });
                path.push(step);
                if let Some(other) = target.get_mut(at) {
                    merge(other, item, lists, path, actor);
                }
                path.pop();
            }
        }
        (Value::Array(items), Some(Merge::Set)) => {
            if !live.is_array() {
                *live = Value::Array(Vec::new());
            }
            let Value::Array(target) = live else { return };
            for item in items {
                if !target.contains(item) {
                    target.push(item.clone());
                }
            }
        }
        _ => *live = applied.clone(),
    }
}

fn read(object: &Value) -> Vec<Ownership> {
    let entries = object.get("metadata").and_then(|metadata| metadata.get("managedFields"));
    let entries = entries.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let text =
        |entry: &Value, field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    entries
        .iter()
        .map(|entry| Ownership {
            actor: Actor {
                manager: text(entry, "manager"),
                subresource: text(entry, "subresource"),
                api_version: text(entry, "apiVersion"),
                time: text(entry, "time"),
            },
            applies: text(entry, "operation") == "Apply",
            fields: entry.get("fieldsV1").map(FieldSet::from_fields_v1).unwrap_or_default(),
        })
        .collect()
}

fn write(object: &mut Value, owners: Vec<Ownership>) {
    let entries: Vec<Value> = owners
        .into_iter()
        .filter(|owner| !owner.fields.is_empty())
        .map(|owner| {
            let mut entry = json!({
                "manager": owner.actor.manager,
                "operation": if owner.applies { "Apply" } else { "Update" },
                "apiVersion": owner.actor.api_version,
                "time": owner.actor.time,
                "fieldsType": "FieldsV1",
                "fieldsV1": owner.fields.to_fields_v1(),
            });
            if !owner.actor.subresource.is_empty() {
                entry["subresource"] = json!(owner.actor.subresource);
            }
            entry
        })
        .collect();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        if entries.is_empty() {
            metadata.remove("managedFields");
        } else {
            metadata.insert("managedFields".to_owned(), Value::Array(entries));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn actor(manager: &str) -> Actor {
        Actor {
            manager: manager.to_owned(),
            subresource: String::new(),
            api_version: "v1".to_owned(),
            time: "2026-01-01T00:00:00Z".to_owned(),
        }
    }

    fn service(ports: &Value, labels: &Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "labels": labels}, "spec": {"ports": ports}})
    }

    fn owners(object: &Value) -> Vec<String> {
        read(object).iter().map(|o| o.actor.manager.clone()).collect()
    }

    #[test]
    fn what_is_no_longer_applied_goes() {
        let lists = ListTypes::of_built_in("", "Service");
        let first = service(&json!([{"port": 80}, {"port": 81, "name": "b"}]), &json!({"a": "1", "b": "2"}));
        let live = apply(&Value::Null, &first, &actor("one"), false, &lists).expect("no conflict");
        assert_eq!(live["spec"], first["spec"]);
        let second = service(&json!([{"port": 81}]), &json!({"b": "2"}));
        let live = apply(&live, &second, &actor("one"), false, &lists).expect("no conflict");
        assert_eq!(live["spec"], second["spec"]);
        assert_eq!(live["metadata"]["labels"], json!({"b": "2"}));
        let third = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}});
        let live = apply(&live, &third, &actor("one"), false, &lists).expect("no conflict");
        assert_eq!((&live["spec"], &live["metadata"]), (&json!({}), &json!({"name": "a"})));
    }

    #[test]
    fn what_another_manager_owns_too_stays() {
        let lists = ListTypes::of_built_in("", "Service");
        let both = service(&json!([{"port": 80}]), &json!({"a": "1"}));
        let live = apply(&Value::Null, &both, &actor("one"), false, &lists).expect("new");
        let live = apply(&live, &both, &actor("two"), false, &lists).expect("equal values are shared");
        let none = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}});
        let live = apply(&live, &none, &actor("one"), false, &lists).expect("gives up");
        assert_eq!(live["spec"]["ports"], json!([{"port": 80}]));
        assert_eq!(owners(&live), ["two"]);
    }

    #[test]
    fn another_value_is_a_conflict_or_is_taken_by_force() {
        let lists = ListTypes::of_built_in("", "Service");
        let live =
            apply(&Value::Null, &service(&json!([]), &json!({"a": "1"})), &actor("one"), false, &lists)
                .expect("new");
        let other = service(&json!([]), &json!({"a": "2"}));
        let refused = apply(&live, &other, &actor("two"), false, &lists).expect_err("conflict");
        assert_eq!((refused.code, refused.causes[0].field.as_str()), (409, ".metadata.labels.a"));
        let live = apply(&live, &other, &actor("two"), true, &lists).expect("forced");
        assert_eq!(live["metadata"]["labels"]["a"], "2");
        let own = |manager: &str| {
            let path: Path = ["metadata", "labels", "a"].map(|f| Step::Field(f.to_owned())).to_vec();
            read(&live).iter().any(|o| o.actor.manager == manager && o.fields.contains(&path))
        };
        assert!(own("two") && !own("one"), "{live}");
    }

    #[test]
    fn updates_take_ownership_of_what_they_change() {
        let lists = ListTypes::of_built_in("", "Service");
        let live = apply(
            &Value::Null,
            &service(&json!([]), &json!({"a": "1", "b": "1"})),
            &actor("one"),
            false,
            &lists,
        )
        .expect("new");
        let mut updated = live.clone();
        updated["metadata"]["labels"]["a"] = json!("2");
        record_update(&live, &mut updated, &actor("two"), &lists);
        assert_eq!(owners(&updated), ["one", "two"]);
        let again = service(&json!([]), &json!({"a": "1", "b": "1"}));
        let refused = apply(&updated, &again, &actor("one"), false, &lists).expect_err("conflict");
        assert!(refused.message.contains("conflict with \"two\" using v1: .metadata.labels.a"), "{refused}");
    }

    /// What three managers do to the data of a config map.
    #[derive(Clone, Debug)]
    enum Deed {
        Apply(&'static str, BTreeMap<String, String>),
        Update(BTreeMap<String, Option<String>>),
    }

    fn deeds() -> impl Strategy<Value = Vec<Deed>> {
        let (key, value) = ("[abc]", "[12]");
        let applied = prop::collection::btree_map(key, value, 0..3);
        let updated = prop::collection::btree_map(key, prop::option::of(value), 1..3);
        let deed = prop_oneof![
            (prop_oneof![Just("one"), Just("two")], applied)
                .prop_map(|(manager, data)| Deed::Apply(manager, data)),
            updated.prop_map(Deed::Update),
        ];
        prop::collection::vec(deed, 1..12)
    }

    fn with_data(data: &BTreeMap<String, String>) -> Value {
        let mut map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
        if !data.is_empty() {
            map["data"] = json!(data);
        }
        map
    }

    proptest! {
        /// Against a model of one line a rule: a value, and who wants it.
        #[test]
        fn owners_are_as_in_the_model(deeds in deeds()) {
            let lists = ListTypes::of_built_in("", "ConfigMap");
            let mut model: BTreeMap<String, (String, BTreeSet<&str>)> = BTreeMap::new();
            let mut live = with_data(&BTreeMap::new());
            record_update(&Value::Null, &mut live, &actor("three"), &lists);
            for deed in deeds {
                match &deed {
                    Deed::Apply(manager, data) => {
                        live = apply(&live, &with_data(data), &actor(manager), true, &lists).expect("by force");
                        for (key, value) in data {
                            let entry = model.entry(key.clone()).or_default();
                            if entry.0 != *value {
                                *entry = (value.clone(), BTreeSet::new());
                            }
                            entry.1.insert(manager);
                        }
                        for (key, (_, owners)) in &mut model {
                            if !data.contains_key(key) && owners.remove(manager) && owners.is_empty() {
                                owners.insert("gone");
                            }
                        }
                        model.retain(|_, (_, owners)| !owners.contains("gone"));
                    }
                    Deed::Update(changes) => {
                        let mut after = live.clone();
                        let mut data: BTreeMap<String, String> =
                            serde_json::from_value(after["data"].take()).unwrap_or_default();
                        for (key, change) in changes {
                            match change {
                                Some(value) if data.get(key) == Some(value) => {}
                                Some(value) => {
                                    data.insert(key.clone(), value.clone());
                                    model.insert(key.clone(), (value.clone(), BTreeSet::from(["three"])));
                                }
                                None => {
                                    data.remove(key);
                                    model.remove(key);
                                }
                            }
                        }
                        after["data"] = with_data(&data)["data"].take();
                        if after["data"].is_null() {
                            after.as_object_mut().expect("a map").remove("data");
                        }
                        record_update(&live, &mut after, &actor("three"), &lists);
                        live = after;
                    }
                }
                let data: BTreeMap<String, String> = serde_json::from_value(live["data"].clone()).unwrap_or_default();
                let mut seen: BTreeMap<String, (String, BTreeSet<&str>)> =
                    data.into_iter().map(|(key, value)| (key, (value, BTreeSet::new()))).collect();
                for owner in read(&live) {
                    let manager = ["one", "two", "three"].into_iter().find(|name| *name == owner.actor.manager);
                    for path in owner.fields.iter() {
                        if let (Some(manager), [_, Step::Field(key)]) = (manager, path.as_slice()) {
                            seen.entry(key.clone()).or_default().1.insert(manager);
                        }
                    }
                }
                prop_assert_eq!(&seen, &model, "after {:?}: {}", deed, live);
            }
        }
    }

    #[test]
    fn applying_the_status_touches_nothing_else() {
        let lists = ListTypes::of_built_in("", "Service");
        let live = service(&json!([{"port": 80}]), &json!({"a": "1"}));
        let status = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "labels": {"a": "2"}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let door = Actor { subresource: "status".to_owned(), ..actor("hub") };
        let merged = apply(&live, &status, &door, false, &lists).expect("no conflict");
        assert_eq!(merged["metadata"]["labels"]["a"], "1");
        assert_eq!(merged["status"], status["status"]);
    }
}
