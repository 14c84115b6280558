//! Custom resource definitions: from the object to a kind that is served.

use serde_json::{Value, json};

use super::failure::{Cause, Failure};
use super::kinds::{Content, Kind};
use super::schema::{Schema, list_types};

/// Reads a definition. Fails with all that is wrong with it, and loudly for several served versions, since objects are
/// not converted here.
pub fn kind_of(definition: &Value) -> Result<Kind, Failure> {
    let empty = Value::Null;
    let spec = definition.get("spec").unwrap_or(&empty);
    let names = spec.get("names").unwrap_or(&empty);
    let text =
        |value: &Value, field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let name = definition.get("metadata").map(|metadata| text(metadata, "name")).unwrap_or_default();
    let (group, plural, kind) = (text(spec, "group"), text(names, "plural"), text(names, "kind"));
    let mut wrong = Vec::new();
    for (value, field) in [(&group, "spec.group"), (&plural, "spec.names.plural"), (&kind, "spec.names.kind")]
    {
        if value.is_empty() {
            wrong.push(Cause::required(field));
        }
    }
    if name != format!("{plural}.{group}") {
        wrong.push(Cause::invalid(
            "metadata.name",
            format!("{name:?}: must be spec.names.plural+\".\"+spec.group"),
        ));
    }
    let scope = text(spec, "scope");
    if scope != "Namespaced" && scope != "Cluster" {
        wrong.push(Cause::not_supported(
            "spec.scope",
            format!("{scope:?}: supported values: \"Cluster\", \"Namespaced\""),
        ));
    }
    let flag =
        |version: &&Value, field: &str| version.get(field).and_then(Value::as_bool).unwrap_or_default();
    let versions = spec.get("versions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let served: Vec<&Value> = versions.iter().filter(|version| flag(version, "served")).collect();
    if versions.iter().filter(|version| flag(version, "storage")).count() != 1 {
        wrong
            .push(Cause::invalid("spec.versions", "must have exactly one version marked as storage version"));
    }
    let version = match served.as_slice() {
        [one] => *one,
        [] => {
            return Err(Failure::not_built(format!("the definition {name} with no served version")));
        }
        _ => return Err(Failure::not_built(format!("the definition {name} with several served versions"))),
    };
    let schema = version.get("schema").and_then(|schema| schema.get("openAPIV3Schema"));
    let parsed = match schema {
        Some(schema) => Schema::parse(schema, "spec.versions[0].schema.openAPIV3Schema"),
        None => Err(vec![Cause::required("spec.versions[0].schema.openAPIV3Schema")]),
    };
    let parsed = match parsed {
        Ok(parsed) if wrong.is_empty() => parsed,
        Ok(_) => return Err(invalid(&name, wrong)),
        Err(more) => return Err(invalid(&name, [wrong, more].concat())),
    };
    let subresources = version.get("subresources");
    if subresources.is_some_and(|subresources| subresources.get("scale").is_some()) {
        return Err(Failure::not_built(format!("the definition {name} with the subresource scale")));
    }
    let singular = names.get("singular").and_then(Value::as_str).map(str::to_owned);
    let short_names = names.get("shortNames").and_then(Value::as_array).into_iter().flatten();
    Ok(Kind {
        version: text(version, "name"),
        singular: singular.unwrap_or_else(|| kind.to_ascii_lowercase()),
        short_names: short_names.filter_map(Value::as_str).map(str::to_owned).collect(),
        namespaced: scope == "Namespaced",
        status: subresources.is_some_and(|subresources| subresources.get("status").is_some()),
        generation: true,
        lists: schema.map(list_types).unwrap_or_default(),
        content: Content::Custom(Box::new(parsed)),
        group,
        kind,
        plural,
    })
}

/// Writes the status of a definition that is served.
pub fn establish(definition: &mut Value, kind: &Kind, now: &str) {
    let condition = |name: &str, reason: &str, message: &str| json!({"type": name, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now});
    let Some(fields) = definition.as_object_mut() else { return };
    if fields
        .get("status")
        .and_then(|status| status.get("conditions"))
        .is_some_and(|conditions| conditions != &json!([]))
    {
        return;
    }
    fields.insert(
        "status".to_owned(),
        json!({
            "acceptedNames": {"kind": kind.kind, "listKind": format!("{}List", kind.kind), "plural": kind.plural,
                "singular": kind.singular, "shortNames": kind.short_names},
            "storedVersions": [kind.version],
            "conditions": [
                condition("NamesAccepted", "NoConflicts", "no conflicts found"),
                condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
            ],
        }),
    );
}

fn invalid(name: &str, causes: Vec<Cause>) -> Failure {
    Failure::invalid("CustomResourceDefinition.apiextensions.k8s.io", name, causes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition() -> Value {
        json!({"metadata": {"name": "peers.isthmus.dev"}, "spec": {"group": "isthmus.dev", "scope": "Cluster",
            "names": {"plural": "peers", "kind": "Peer", "shortNames": ["p"]},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object"}}}]}})
    }

    #[test]
    fn a_definition_becomes_a_kind() {
        let kind = kind_of(&definition()).expect("sound");
        assert_eq!((kind.api_version().as_str(), kind.singular.as_str()), ("isthmus.dev/v1alpha1", "peer"));
        assert!(kind.status && !kind.namespaced);
    }

    #[test]
    fn faults_are_named() {
        let mut wrong = definition();
        wrong["metadata"]["name"] = json!("peer.isthmus.dev");
        wrong["spec"]["scope"] = json!("World");
        let failure = kind_of(&wrong).expect_err("two faults");
        assert_eq!((failure.code, failure.causes.len()), (422, 2), "{failure}");
        let mut two = definition();
        two["spec"]["versions"] =
            json!([two["spec"]["versions"][0], {"name": "v1", "served": true, "storage": false}]);
        assert!(kind_of(&two).expect_err("not built").unsupported);
    }
}
