//! Sets of fields of an object, as `managedFields` records who owns what (format FieldsV1), and which lists are merged
//! item by item.
//!
//! A set holds leaves: scalars, lists and maps that are merged as a whole, empty maps, and the items of lists that are
//! merged by key. Source of the format: `structured-merge-diff`, `fieldpath/serialize.go`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// One step of a path into an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A field of a map.
    Field(String),
    /// The item of a list that has these values of its key fields: a JSON map.
    Item(String),
    /// The item of a set: its JSON.
    Member(String),
}

/// Where a field is.
pub type Path = Vec<Step>;

/// A set of fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet(BTreeSet<Path>);

/// How a list or map is merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Merge {
    /// Replaced as a whole; so are all lists without a rule.
    Atomic,
    /// A list merged by the values of these fields; some have a value when they are absent.
    ByKey(Vec<(String, Option<Value>)>),
    /// A list of scalars, each at most once.
    Set,
}

/// The lists and maps of a kind that are not merged as everything else is: maps field by field, lists as a whole. By
/// path, e.g. `spec.template.spec.containers[].ports`.
#[derive(Clone, Debug, Default)]
pub struct ListTypes(BTreeMap<String, Merge>);

impl ListTypes {
    /// Adds a rule for a path.
    pub fn insert(&mut self, path: String, merge: Merge) {
        self.0.insert(path, merge);
    }

    /// Rules of a built-in kind: the lists that clients like ours apply, from `+listType` in `k8s.io/api`. What is
    /// missing here is replaced as a whole.
    pub fn of_built_in(group: &str, kind: &str) -> Self {
        let mut types = Self::default();
        let mut by_key = |path: &str, keys: &[&str]| {
            let key = |key: &&str| ((*key).to_owned(), (*key == "protocol").then(|| Value::from("TCP")));
            types.insert(path.to_owned(), Merge::ByKey(keys.iter().map(key).collect()));
        };
        by_key("metadata.ownerReferences", &["uid"]);
        by_key("status.conditions", &["type"]);
        match (group, kind) {
            ("", "Service") => by_key("spec.ports", &["port", "protocol"]),
            ("", "ServiceAccount") => by_key("secrets", &["name"]),
            ("", "Pod") | ("apps", _) => {
                let spec = if kind == "Pod" { "spec" } else { "spec.template.spec" };
                for containers in ["containers", "initContainers", "ephemeralContainers"] {
                    let containers = format!("{spec}.{containers}");
                    by_key(&containers, &["name"]);
                    by_key(&format!("{containers}[].env"), &["name"]);
                    by_key(&format!("{containers}[].ports"), &["containerPort", "protocol"]);
                    by_key(&format!("{containers}[].volumeMounts"), &["mountPath"]);
                    by_key(&format!("{containers}[].volumeDevices"), &["devicePath"]);
                }
                by_key(&format!("{spec}.volumes"), &["name"]);
                by_key(&format!("{spec}.imagePullSecrets"), &["name"]);
                by_key(&format!("{spec}.hostAliases"), &["ip"]);
                by_key(&format!("{spec}.topologySpreadConstraints"), &["topologyKey", "whenUnsatisfiable"]);
            }
            _ => {}
        }
        types.insert("metadata.finalizers".to_owned(), Merge::Set);
        for selector in ["spec.selector", "spec.podSelector"] {
            types.insert(selector.to_owned(), Merge::Atomic);
        }
        types
    }

    /// The rule for the value at a path.
    pub fn at(&self, path: &[Step]) -> Option<&Merge> {
        let mut pattern = String::new();
        for step in path {
            match step {
                Step::Field(name) => {
                    if !pattern.is_empty() {
                        pattern.push('.');
                    }
                    pattern.push_str(name);
                }
                Step::Item(_) => pattern.push_str("[]"),
                Step::Member(_) => return None,
            }
        }
        self.0.get(&pattern)
    }
}

impl FieldSet {
    /// All leaves of an object, but those that nobody owns: type, name, and what the server itself writes.
    pub fn of(object: &Value, lists: &ListTypes) -> Self {
        let mut set = Self::default();
        collect(object, lists, &mut Vec::new(), &mut set.0);
        set.0.retain(|path| !is_unowned(path));
        set
    }

    /// The leaves of `after` that are new or other than in `before`.
    pub fn changed(before: &Value, after: &Value, lists: &ListTypes) -> Self {
        let mut set = Self::of(after, lists);
        set.0.retain(|path| {
            let (was, is) = (find(before, path), find(after, path));
            match path.last() {
                Some(Step::Field(_)) => was != is,
                _ => was.is_none(),
            }
        });
        set
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this field is in it.
    pub fn contains(&self, path: &Path) -> bool {
        self.0.contains(path)
    }

    /// Whether this field or something below it is in it.
    pub fn reaches(&self, path: &Path) -> bool {
        self.0.range(path.clone()..).next().is_some_and(|found| found.starts_with(path))
    }

    /// Its fields, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Path> {
        self.0.iter()
    }

    /// Adds all fields of another set.
    pub fn add(&mut self, other: &Self) {
        self.0.extend(other.0.iter().cloned());
    }

    /// Keeps the fields of which this holds.
    pub fn retain(&mut self, keep: impl FnMut(&Path) -> bool) {
        self.0.retain(keep);
    }

    /// As `fieldsV1` says it.
    pub fn to_fields_v1(&self) -> Value {
        let mut root = Map::new();
        for path in &self.0 {
            let mut node = &mut root;
            for step in path {
                let name = match step {
                    Step::Field(name) => format!("f:{name}"),
                    Step::Item(keys) => format!("k:{keys}"),
                    Step::Member(value) => format!("v:{value}"),
                };
                let below = node.entry(name).or_insert_with(|| Value::Object(Map::new()));
                let Value::Object(below) = below else { unreachable!("only maps are inserted") };
                node = below;
            }
            if matches!(path.last(), Some(Step::Item(_))) || !node.is_empty() {
                node.insert(".".to_owned(), Value::Object(Map::new()));
            }
        }
        Value::Object(root)
    }

    /// Reads `fieldsV1`; what cannot be read is left out.
    pub fn from_fields_v1(fields: &Value) -> Self {
        let mut set = Self::default();
        read(fields, &mut Vec::new(), &mut set.0);
        set
    }
}

fn read(node: &Value, path: &mut Path, out: &mut BTreeSet<Path>) {
    let Some(fields) = node.as_object() else { return };
    if fields.is_empty() && !path.is_empty() {
        out.insert(path.clone());
    }
    for (name, below) in fields {
        let step = match name.split_at_checked(2) {
            Some(("f:", name)) => Step::Field(name.to_owned()),
            Some(("k:", keys)) => Step::Item(keys.to_owned()),
            Some(("v:", value)) => Step::Member(value.to_owned()),
            _ => {
                if name == "." {
                    out.insert(path.clone());
                }
                continue;
            }
        };
        path.push(step);
        read(below, path, out);
        path.pop();
    }
}

fn collect(value: &Value, lists: &ListTypes, path: &mut Path, out: &mut BTreeSet<Path>) {
    match (value, lists.at(path)) {
        (Value::Null, _) => {}
        (Value::Object(fields), None) if !fields.is_empty() => {
            for (name, value) in fields {
                path.push(Step::Field(name.clone()));
                collect(value, lists, path, out);
                path.pop();
            }
        }
        (Value::Array(items), Some(Merge::ByKey(keys))) => {
            for item in items {
                path.push(item_step(item, keys));
                out.insert(path.clone());
                collect(item, lists, path, out);
                path.pop();
            }
        }
        (Value::Array(items), Some(Merge::Set)) => {
            for item in items {
                path.push(Step::Member(item.to_string()));
                out.insert(path.clone());
                path.pop();
            }
        }
        _ => {
            out.insert(path.clone());
        }
    }
}

/// The step to an item of a list that is merged by these keys.
pub fn item_step(item: &Value, keys: &[(String, Option<Value>)]) -> Step {
    let mut found = Map::new();
    for (name, default) in keys {
        let value = item.get(name).cloned().or_else(|| default.clone());
        found.insert(name.clone(), value.unwrap_or(Value::Null));
    }
    Step::Item(Value::Object(found).to_string())
}

/// The value at a path.
pub fn find<'a>(value: &'a Value, path: &[Step]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, step| match step {
        Step::Field(name) => value.get(name),
        _ => position(value, step).and_then(|at| value.get(at)),
    })
}

/// Takes away what is at a path, and the maps around it that are empty then; not `metadata` and `spec`.
pub fn remove(value: &mut Value, path: &[Step]) {
    let Some((first, rest)) = path.split_first() else { return };
    if let (Step::Field(name), Some(fields)) = (first, value.as_object_mut()) {
        if rest.is_empty() {
            fields.remove(name);
        } else if let Some(below) = fields.get_mut(name) {
            remove(below, rest);
            let empty =
                below.as_object().is_some_and(Map::is_empty) || below.as_array().is_some_and(Vec::is_empty);
            if empty && name != "metadata" && name != "spec" {
                fields.remove(name);
            }
        }
        return;
    }
    let Some(at) = position(value, first) else { return };
    let Some(items) = value.as_array_mut() else { return };
    if rest.is_empty() {
        items.remove(at);
    } else if let Some(item) = items.get_mut(at) {
        remove(item, rest);
    }
}

/// The index of the item of a list that a step means.
fn position(list: &Value, step: &Step) -> Option<usize> {
    let items = list.as_array()?;
    match step {
        Step::Field(_) => None,
        Step::Member(text) => {
            let member: Value = serde_json::from_str(text).ok()?;
            items.iter().position(|item| *item == member)
        }
        Step::Item(keys) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).ok()?;
            items.iter().position(|item| keys.iter().all(|(name, value)| is_key(item, name, value)))
        }
    }
}

/// Whether an item has this value of a key; an absent one counts as the default of `protocol`, or as null.
fn is_key(item: &Value, name: &str, value: &Value) -> bool {
    match item.get(name) {
        Some(found) => found == value,
        None => value.is_null() || (name == "protocol" && value == "TCP"),
    }
}

fn is_unowned(path: &Path) -> bool {
    let field = |at: usize| match path.get(at) {
        Some(Step::Field(name)) => name.as_str(),
        _ => "",
    };
    match field(0) {
        "apiVersion" | "kind" => true,
        "metadata" => matches!(
            field(1),
            "" | "name"
                | "namespace"
                | "generateName"
                | "uid"
                | "resourceVersion"
                | "creationTimestamp"
                | "generation"
                | "deletionTimestamp"
                | "deletionGracePeriodSeconds"
                | "selfLink"
                | "managedFields"
        ),
        _ => false,
    }
}

/// A path for people: `.spec.ports[port=80,protocol="TCP"].name`.
pub fn show(path: &Path) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Field(name) => {
                text.push('.');
                text.push_str(name);
            }
            Step::Item(keys) => {
                let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                let keys: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
                text.push_str(&format!("[{}]", keys.join(",")));
            }
            Step::Member(value) => text.push_str(&format!("[={value}]")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service() -> Value {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "labels": {"app": "x"},
            "finalizers": ["f/1"]}, "spec": {"selector": {"a": "b"}, "externalIPs": ["1.1.1.1"], "ports":
            [{"port": 80, "name": "http"}, {"port": 80, "protocol": "UDP"}]}})
    }

    #[test]
    fn leaves_as_fields_v1() {
        let lists = ListTypes::of_built_in("", "Service");
        let set = FieldSet::of(&service(), &lists);
        let fields = set.to_fields_v1();
        let expected = json!({
            "f:metadata": {"f:labels": {"f:app": {}}, "f:finalizers": {"v:\"f/1\"": {}}},
            "f:spec": {"f:selector": {}, "f:externalIPs": {}, "f:ports": {
                "k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}, "f:name": {}},
                "k:{\"port\":80,\"protocol\":\"UDP\"}": {".": {}, "f:port": {}, "f:protocol": {}}}},
        });
        assert_eq!(fields, expected);
        assert_eq!(FieldSet::from_fields_v1(&fields), set);
    }

    #[test]
    fn removing_leaves_no_empty_maps() {
        let mut value = service();
        let lists = ListTypes::of_built_in("", "Service");
        for path in FieldSet::of(&service(), &lists).iter() {
            remove(&mut value, path);
            assert!(find(&value, path).is_none(), "{}", show(path));
        }
        assert_eq!(
            value,
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {}})
        );
    }

    #[test]
    fn changed_leaves() {
        let lists = ListTypes::of_built_in("", "Service");
        let mut after = service();
        after["spec"]["ports"][0]["name"] = json!("web");
        after["metadata"]["labels"]["tier"] = json!("x");
        let changed = FieldSet::changed(&service(), &after, &lists);
        let shown: Vec<String> = changed.iter().map(show).collect();
        assert_eq!(shown, [".metadata.labels.tier", ".spec.ports[port=80,protocol=\"TCP\"].name"]);
    }
}
