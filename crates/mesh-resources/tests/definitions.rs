//! The definitions as an API server gets them.

use std::path::PathBuf;

use regex::Regex;
use serde_json::Value;

fn definitions() -> Vec<(String, Value)> {
    let definitions = mesh_resources::definitions();
    let named = |definition| {
        let value = serde_json::to_value(definition).expect("text keys");
        (value["metadata"]["name"].as_str().expect("a name").to_owned(), value)
    };
    definitions.iter().map(named).collect()
}

/// `UPDATE_DEFINITIONS=1` writes the files.
#[test]
fn the_files_in_deploy_are_the_definitions() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crds");
    let mut expected = Vec::new();
    for definition in mesh_resources::definitions() {
        let name = definition.metadata.name.clone().expect("a name");
        let (path, text) = (folder.join(format!("{name}.yaml")), mesh_resources::yaml(&definition));
        if std::env::var_os("UPDATE_DEFINITIONS").is_some() {
            std::fs::write(&path, &text).expect("write");
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == text, "{} differs: run this test with UPDATE_DEFINITIONS=1", path.display());
        expected.push(format!("{name}.yaml"));
    }
    let mut found: Vec<String> = std::fs::read_dir(&folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    found.sort();
    assert_eq!(found, expected, "files without a definition");
}

#[test]
fn each_has_one_version_with_a_status_and_columns() {
    let names: Vec<String> = definitions().into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        ["clusterpeers.isthmus.dev", "failoverpolicies.isthmus.dev", "meshidentities.isthmus.dev"]
    );
    for (name, definition) in definitions() {
        let versions = definition["spec"]["versions"].as_array().expect("versions");
        assert_eq!(versions.len(), 1, "{name}");
        assert_eq!(versions[0]["name"], "v1alpha1");
        // The hub itself writes identities: there is nobody to be told what became of them.
        let has_status = name != "meshidentities.isthmus.dev";
        assert_eq!(versions[0]["subresources"]["status"].is_object(), has_status, "{name}");
        let columns = versions[0]["additionalPrinterColumns"].as_array().expect("columns");
        assert!(
            !has_status || columns.iter().any(|column| column["name"] == "Accepted"),
            "{name}: {columns:?}"
        );
        assert!(definition["spec"]["names"]["shortNames"].is_array(), "{name}");
    }
    assert_eq!(definitions()[0].1["spec"]["scope"], "Cluster");
    assert_eq!(definitions()[1].1["spec"]["scope"], "Namespaced");
}

/// <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema>
#[test]
fn schemas_are_structural_and_described() {
    for (name, definition) in definitions() {
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut wrong = Vec::new();
        walk(schema, &name, &mut wrong);
        assert_eq!(wrong, Vec::<String>::new());
    }
}

fn walk(schema: &Value, at: &str, wrong: &mut Vec<String>) {
    let mut say = |what: &str| wrong.push(format!("{at}: {what}"));
    let is_number_or_text = schema["x-kubernetes-int-or-string"] == true;
    if schema["type"].is_string() == is_number_or_text {
        say("has no type, or too many");
    }
    for member in ["$ref", "nullable", "oneOf", "allOf", "definitions", "$defs"] {
        if schema.get(member).is_some() {
            say(member);
        }
    }
    if schema.get("anyOf").is_some() && !is_number_or_text {
        say("anyOf");
    }
    if schema.get("properties").is_some() && schema.get("additionalProperties").is_some() {
        say("properties and additionalProperties");
    }
    if let Some(pattern) = schema["pattern"].as_str()
        && let Err(error) = Regex::new(pattern)
    {
        say(&error.to_string());
    }
    let formats = ["", "date-time", "int32", "int64"];
    if !formats.contains(&schema["format"].as_str().unwrap_or_default()) {
        say("a format that API servers do not know");
    }
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        let described =
            below["description"].is_string() || at.contains("conditions") || at.ends_with("isthmus.dev");
        if !described {
            wrong.push(format!("{at}.{name}: no description"));
        }
        walk(below, &format!("{at}.{name}"), wrong);
    }
    for member in ["items", "additionalProperties"] {
        if let Some(below) = schema.get(member) {
            walk(below, &format!("{at}.{member}"), wrong);
        }
    }
}
