//! The schemas of custom resources: what is unknown is dropped, defaults are filled in, the rest is checked.
//!
//! Done: type, nullable, properties, required, additionalProperties, items, enum, pattern, minimum and maximum, lengths
//! and counts, multipleOf, the formats date-time, int32 and int64, default, allOf, anyOf, oneOf, not, int-or-string and
//! preserve-unknown-fields. Not done: rules in CEL (`x-kubernetes-validations`, which [`Schema::has_cel`] tells), the other
//! formats, `uniqueItems`, embedded resources, and unique keys of lists merged by key.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Map, Value};

use super::failure::Cause;
use super::field_set::{ListTypes, Merge};

/// The schema of one version of a custom resource.
#[derive(Debug)]
pub struct Schema {
    root: Node,
    cel: bool,
}

#[derive(Debug, Default)]
struct Node {
    types: Option<String>,
    nullable: bool,
    int_or_string: bool,
    preserve: bool,
    properties: BTreeMap<String, Self>,
    required: Vec<String>,
    additional: Option<Box<Self>>,
    items: Option<Box<Self>>,
    one_of_values: Option<Vec<Value>>,
    pattern: Option<Regex>,
    minimum: Option<(f64, bool)>,
    maximum: Option<(f64, bool)>,
    multiple_of: Option<f64>,
    length: Bounds,
    count: Bounds,
    fields: Bounds,
    format: String,
    default: Option<Value>,
    all_of: Vec<Self>,
    any_of: Vec<Self>,
    one_of: Vec<Self>,
    not: Option<Box<Self>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bounds {
    least: Option<u64>,
    most: Option<u64>,
}

impl Schema {
    /// Reads `schema.openAPIV3Schema`. Fails with what is wrong with it.
    pub fn parse(schema: &Value, at: &str) -> Result<Self, Vec<Cause>> {
        let mut wrong = Vec::new();
        let mut root = node(schema, at, &mut wrong);
        if root.types.as_deref() != Some("object") {
            wrong.push(Cause::invalid(format!("{at}.type"), "must be object at the root"));
        }
        // These three are there whatever the schema says.
        for (name, types) in [("apiVersion", "string"), ("kind", "string"), ("metadata", "object")] {
            let preserve = name == "metadata";
            root.properties
                .insert(name.to_owned(), Node { types: Some(types.to_owned()), preserve, ..Node::default() });
        }
        let cel = schema.to_string().contains("\"x-kubernetes-validations\"");
        if wrong.is_empty() { Ok(Self { root, cel }) } else { Err(wrong) }
    }

    /// Whether there are rules in CEL, which are not evaluated.
    pub fn has_cel(&self) -> bool {
        self.cel
    }

    /// Drops unknown fields (their paths are given) and fills in defaults.
    pub fn complete(&self, object: &mut Value) -> Vec<String> {
        let mut dropped = Vec::new();
        complete(&self.root, object, "", &mut dropped);
        dropped
    }

    /// What is wrong with an object.
    pub fn check(&self, object: &Value) -> Vec<Cause> {
        let mut wrong = Vec::new();
        check(&self.root, object, "", &mut wrong);
        wrong
    }
}

/// The lists that a schema says to merge by key or as sets, and the maps it says to replace as a whole.
pub fn list_types(schema: &Value) -> ListTypes {
    let mut types = ListTypes::default();
    types.insert("metadata.finalizers".to_owned(), Merge::Set);
    types.insert("metadata.ownerReferences".to_owned(), Merge::ByKey(vec![("uid".to_owned(), None)]));
    walk_lists(schema, "", &mut types);
    types
}

fn walk_lists(schema: &Value, path: &str, types: &mut ListTypes) {
    let text = |field: &str| schema.get(field).and_then(Value::as_str);
    match (text("x-kubernetes-list-type"), text("x-kubernetes-map-type")) {
        (Some("set"), _) => types.insert(path.to_owned(), Merge::Set),
        (Some("map"), _) => {
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            let default =
                |key: &str| schema.get("items")?.get("properties")?.get(key)?.get("default").cloned();
            let keys = keys.into_iter().flatten().filter_map(Value::as_str);
            types.insert(
                path.to_owned(),
                Merge::ByKey(keys.map(|key| (key.to_owned(), default(key))).collect()),
            );
        }
        (_, Some("atomic")) => types.insert(path.to_owned(), Merge::Atomic),
        _ => {}
    }
    for (name, below) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        walk_lists(below, &path, types);
    }
    if let Some(items) = schema.get("items") {
        walk_lists(items, &format!("{path}[]"), types);
    }
}

fn node(schema: &Value, at: &str, wrong: &mut Vec<Cause>) -> Node {
    let text = |field: &str| schema.get(field).and_then(Value::as_str);
    let flag = |field: &str| schema.get(field).and_then(Value::as_bool).unwrap_or_default();
    let number = |field: &str| schema.get(field).and_then(Value::as_f64);
    let bounds = |least: &str, most: &str| Bounds {
        least: schema.get(least).and_then(Value::as_u64),
        most: schema.get(most).and_then(Value::as_u64),
    };
    if schema.get("$ref").is_some() {
        wrong.push(Cause::forbidden(format!("{at}.$ref"), "$ref is not supported"));
    }
    let pattern = text("pattern").and_then(|pattern| match Regex::new(pattern) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            wrong.push(Cause::invalid(format!("{at}.pattern"), error.to_string()));
            None
        }
    });
    let mut list = |field: &str| -> Vec<Node> {
        let items = schema.get(field).and_then(Value::as_array).into_iter().flatten();
        items.enumerate().map(|(i, item)| node(item, &format!("{at}.{field}[{i}]"), wrong)).collect()
    };
    let (all_of, any_of, one_of) = (list("allOf"), list("anyOf"), list("oneOf"));
    let mut one = |field: &str| {
        let below = schema.get(field).filter(|below| below.is_object())?;
        Some(Box::new(node(below, &format!("{at}.{field}"), wrong)))
    };
    let (items, not, mut additional) = (one("items"), one("not"), one("additionalProperties"));
    if schema.get("additionalProperties") == Some(&Value::Bool(true)) {
        additional = Some(Box::new(Node { preserve: true, ..Node::default() }));
    }
    let mut properties = BTreeMap::new();
    for (name, below) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        properties.insert(name.clone(), node(below, &format!("{at}.properties[{name}]"), wrong));
    }
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
    Node {
        types: text("type").filter(|types| !types.is_empty()).map(str::to_owned),
        nullable: flag("nullable"),
        int_or_string: flag("x-kubernetes-int-or-string"),
        preserve: flag("x-kubernetes-preserve-unknown-fields"),
        properties,
        required: required.filter_map(Value::as_str).map(str::to_owned).collect(),
        additional,
        items,
        one_of_values: schema.get("enum").and_then(Value::as_array).cloned(),
        pattern,
        minimum: number("minimum").map(|limit| (limit, flag("exclusiveMinimum"))),
        maximum: number("maximum").map(|limit| (limit, flag("exclusiveMaximum"))),
        multiple_of: number("multipleOf"),
        length: bounds("minLength", "maxLength"),
        count: bounds("minItems", "maxItems"),
        fields: bounds("minProperties", "maxProperties"),
        format: text("format").unwrap_or_default().to_owned(),
        default: schema.get("default").cloned(),
        all_of,
        any_of,
        one_of,
        not,
    }
}

fn complete(node: &Node, value: &mut Value, at: &str, dropped: &mut Vec<String>) {
    match value {
        Value::Object(fields) => complete_fields(node, fields, at, dropped),
        Value::Array(items) => {
            let Some(below) = &node.items else { return };
            for (i, item) in items.iter_mut().enumerate() {
                complete(below, item, &format!("{at}[{i}]"), dropped);
            }
        }
        _ => {}
    }
}

fn complete_fields(node: &Node, fields: &mut Map<String, Value>, at: &str, dropped: &mut Vec<String>) {
    let join = |name: &str| if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
    if !node.preserve && node.additional.is_none() {
        fields.retain(|name, _| {
            let known = node.properties.contains_key(name);
            if !known {
                dropped.push(join(name));
            }
            known
        });
    }
    for (name, below) in &node.properties {
        // A null where null is not allowed and there is a default counts as absent.
        if fields.get(name).is_some_and(Value::is_null) && !below.nullable && below.default.is_some() {
            fields.remove(name);
        }
        if let (None, Some(default)) = (fields.get(name), &below.default) {
            fields.insert(name.clone(), default.clone());
        }
    }
    for (name, value) in fields.iter_mut() {
        let below = node.properties.get(name).or(node.additional.as_deref());
        if let Some(below) = below.filter(|below| !(at.is_empty() && name == "metadata" && below.preserve)) {
            complete(below, value, &join(name), dropped);
        }
    }
}

fn check(node: &Node, value: &Value, at: &str, wrong: &mut Vec<Cause>) {
    if value.is_null() && node.nullable {
        return;
    }
    if !has_type(node, value) {
        let expected =
            if node.int_or_string { "integer,string" } else { node.types.as_deref().unwrap_or_default() };
        let found = type_name(value);
        wrong.push(Cause {
            reason: "FieldValueTypeInvalid",
            message: format!("Invalid value: {found:?}: {at} in body must be of type {expected}: {found:?}"),
            field: at.to_owned(),
        });
        return;
    }
    if let Some(allowed) = node.one_of_values.as_ref().filter(|allowed| !allowed.contains(value)) {
        let allowed: Vec<String> = allowed.iter().map(Value::to_string).collect();
        wrong.push(Cause::not_supported(at, format!("{value}: supported values: {}", allowed.join(", "))));
    }
    let mut outside = |found: u64, bounds: Bounds, what: &str| {
        if bounds.least.is_some_and(|least| found < least) || bounds.most.is_some_and(|most| found > most) {
            let Bounds { least, most } = bounds;
            let range = format!(
                "{found} {what}, allowed: {} to {}",
                least.unwrap_or_default(),
                most.unwrap_or(u64::MAX)
            );
            wrong.push(Cause::invalid(at, range));
        }
    };
    match value {
        Value::String(text) => {
            outside(text.chars().count() as u64, node.length, "characters");
            if let Some(pattern) = node.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
                wrong.push(Cause::invalid(at, format!("{text:?}: {at} in body should match '{pattern}'")));
            }
            if node.format == "date-time" && text.parse::<jiff::Timestamp>().is_err() {
                wrong.push(Cause::invalid(at, format!("{text:?}: {at} in body must be of type date-time")));
            }
        }
        Value::Number(_) => check_number(node, value, at, wrong),
        Value::Array(items) => {
            outside(items.len() as u64, node.count, "items");
            for (i, item) in items.iter().enumerate() {
                if let Some(below) = &node.items {
                    check(below, item, &format!("{at}[{i}]"), wrong);
                }
            }
        }
        Value::Object(fields) => {
            outside(fields.len() as u64, node.fields, "fields");
            let join = |name: &str| if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
            wrong.extend(
                node.required
                    .iter()
                    .filter(|name| !fields.contains_key(*name))
                    .map(|name| Cause::required(join(name))),
            );
            for (name, value) in fields {
                if let Some(below) = node.properties.get(name).or(node.additional.as_deref()) {
                    check(below, value, &join(name), wrong);
                }
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
    check_combinations(node, value, at, wrong);
}

fn check_number(node: &Node, value: &Value, at: &str, wrong: &mut Vec<Cause>) {
    let Some(number) = value.as_f64() else { return };
    let below =
        node.minimum.is_some_and(|(limit, exclusive)| number < limit || (exclusive && number == limit));
    let above =
        node.maximum.is_some_and(|(limit, exclusive)| number > limit || (exclusive && number == limit));
    if below || above {
        let limit =
            if below { node.minimum } else { node.maximum }.map(|(limit, _)| limit).unwrap_or_default();
        let side = if below { "greater than or equal to" } else { "less than or equal to" };
        wrong.push(Cause::invalid(at, format!("{value}: {at} in body should be {side} {limit}")));
    }
    if node.multiple_of.is_some_and(|step| (number / step).fract() != 0.0) {
        wrong.push(Cause::invalid(
            at,
            format!("{value}: not a multiple of {}", node.multiple_of.unwrap_or_default()),
        ));
    }
    let fits = match node.format.as_str() {
        "int32" => value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
        "int64" => value.as_i64().is_some(),
        _ => true,
    };
    if !fits {
        wrong.push(Cause::invalid(at, format!("{value}: {at} in body must be of type {}", node.format)));
    }
}

fn check_combinations(node: &Node, value: &Value, at: &str, wrong: &mut Vec<Cause>) {
    let fits = |node: &Node| {
        let mut wrong = Vec::new();
        check(node, value, at, &mut wrong);
        wrong.is_empty()
    };
    for below in &node.all_of {
        check(below, value, at, wrong);
    }
    if !node.any_of.is_empty() && !node.any_of.iter().any(fits) {
        wrong.push(Cause::invalid(at, format!("{at} in body must validate at least one schema (anyOf)")));
    }
    if !node.one_of.is_empty() && node.one_of.iter().filter(|below| fits(below)).count() != 1 {
        wrong.push(Cause::invalid(at, format!("{at} in body must validate one and only one schema (oneOf)")));
    }
    if node.not.as_deref().is_some_and(fits) {
        wrong.push(Cause::invalid(at, format!("{at} in body must not validate the schema (not)")));
    }
}

fn has_type(node: &Node, value: &Value) -> bool {
    if node.int_or_string {
        return value.is_string() || value.is_i64() || value.is_u64();
    }
    match node.types.as_deref() {
        None => true,
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        Some("number") => value.is_number(),
        Some(_) => false,
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Schema {
        let schema = json!({"type": "object", "required": ["spec"], "properties": {"spec": {"type": "object",
            "required": ["endpoints"], "properties": {
                "endpoints": {"type": "array", "minItems": 1, "items": {"type": "string", "pattern": "^[a-z.]+:[0-9]+$"}},
                "mode": {"type": "string", "enum": ["direct", "cached"], "default": "cached"},
                "weight": {"type": "integer", "minimum": 0, "maximum": 100},
                "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
                "paused": {"type": "boolean", "nullable": true},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "raw": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}});
        Schema::parse(&schema, "spec").expect("a schema")
    }

    #[test]
    fn unknown_fields_go_and_defaults_come() {
        let mut object = json!({"kind": "X", "metadata": {"name": "a", "zz": 1}, "what": 1, "spec": {"endpoints": ["a:1"],
            "labels": {"any": "thing"}, "raw": {"any": {"thing": 1}}, "typo": true}});
        let dropped = schema().complete(&mut object);
        assert_eq!(dropped, ["what", "spec.typo"]);
        assert_eq!(
            object["spec"],
            json!({"endpoints": ["a:1"], "mode": "cached", "labels": {"any": "thing"},
            "raw": {"any": {"thing": 1}}})
        );
        assert_eq!(schema().check(&object), []);
    }

    #[test]
    fn every_rule_finds_its_fault() {
        for (spec, field) in [
            (json!({}), "spec.endpoints"),
            (json!({"endpoints": []}), "spec.endpoints"),
            (json!({"endpoints": ["A"]}), "spec.endpoints[0]"),
            (json!({"endpoints": ["a:1"], "mode": "x"}), "spec.mode"),
            (json!({"endpoints": ["a:1"], "weight": 101}), "spec.weight"),
            (json!({"endpoints": ["a:1"], "weight": -1}), "spec.weight"),
            (json!({"endpoints": ["a:1"], "weight": 1.5}), "spec.weight"),
            (json!({"endpoints": ["a:1"], "weight": "1"}), "spec.weight"),
            (json!({"endpoints": ["a:1"], "port": true}), "spec.port"),
            (json!({"endpoints": ["a:1"], "labels": {"a": 1}}), "spec.labels.a"),
            (json!({"endpoints": "a:1"}), "spec.endpoints"),
        ] {
            let wrong = schema().check(&json!({"spec": spec}));
            let fields: Vec<&str> = wrong.iter().map(|cause| cause.field.as_str()).collect();
            assert_eq!(fields, [field], "{spec}");
        }
        assert_eq!(
            schema().check(&json!({"spec": {"endpoints": ["a:1"], "paused": null, "port": "http"}})),
            []
        );
    }

    #[test]
    fn combinations() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object",
            "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
            "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}}});
        let schema = Schema::parse(&schema, "s").expect("a schema");
        assert_eq!(schema.check(&json!({"spec": {"a": "1"}})), []);
        assert_eq!(schema.check(&json!({"spec": {"a": "1", "b": "1"}})).len(), 1);
        assert_eq!(schema.check(&json!({"spec": {}})).len(), 1);
    }

    #[test]
    fn a_schema_may_itself_be_wrong() {
        let wrong = Schema::parse(&json!({"type": "string", "pattern": "("}), "s").expect_err("two faults");
        assert_eq!(wrong.len(), 2);
    }
}
