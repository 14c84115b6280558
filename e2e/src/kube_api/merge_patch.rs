//! Merge patches (RFC 7386), and the little of strategic merge patches that is the same.

use serde_json::{Map, Value};

/// Changes `target` as the patch says. A `null` removes; everything but an object replaces.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(fields) = target else { return };
    for (name, change) in patch {
        if change.is_null() {
            fields.remove(name);
        } else {
            merge(fields.entry(name.clone()).or_insert(Value::Null), change);
        }
    }
}

/// Whether a strategic merge patch does the same as a merge patch for certain: labels and annotations only. For
/// everything else the merge strategy depends on types that this server does not know.
pub fn is_plain_strategic(patch: &Value) -> bool {
    let Some(fields) = patch.as_object() else { return false };
    fields.iter().all(|(name, value)| match name.as_str() {
        "apiVersion" | "kind" => value.is_string(),
        "metadata" => value.as_object().is_some_and(|metadata| {
            metadata.iter().all(|(name, value)| match name.as_str() {
                "name" | "namespace" | "uid" | "resourceVersion" => value.is_string(),
                "labels" | "annotations" => value.as_object().is_some_and(|map| {
                    map.iter()
                        .all(|(name, value)| !name.starts_with('$') && (value.is_string() || value.is_null()))
                }),
                _ => false,
            })
        }),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn as_in_the_rfc() {
        for (target, patch, expected) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut merged = target.clone();
            merge(&mut merged, &patch);
            assert_eq!(merged, expected, "{target} with {patch}");
        }
    }

    #[test]
    fn only_labels_and_annotations_are_plain() {
        assert!(is_plain_strategic(&json!({"metadata": {"labels": {"a": "b"}, "annotations": {"c": null}}})));
        assert!(!is_plain_strategic(&json!({"metadata": {"finalizers": ["a"]}})));
        assert!(!is_plain_strategic(&json!({"metadata": {"labels": {"$patch": "replace"}}})));
        assert!(!is_plain_strategic(&json!({"spec": {"replicas": 1}})));
    }
}
