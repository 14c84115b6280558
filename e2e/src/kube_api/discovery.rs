//! What is served, as clients ask for it: groups, versions, resources. Only the plain form; clients that ask for the
//! aggregated one take this.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::failure::Failure;
use super::kinds::Kind;
use super::store::State;

/// `/version`: a version that has everything that is done here.
pub fn version() -> Value {
    json!({"major": "1", "minor": "36", "gitVersion": "v1.36.0+lab-kube-api", "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "2026-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc", "platform": "linux/amd64"})
}

/// `/api`.
pub fn core_versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

/// `/apis`.
pub fn groups(state: &State) -> Value {
    let groups: Vec<Value> =
        versions(state).into_iter().map(|(group, versions)| describe(&group, &versions)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/<group>`.
pub fn group(state: &State, name: &str) -> Result<Value, Failure> {
    let versions = versions(state).remove(name).ok_or_else(Failure::no_such_path)?;
    let mut group = describe(name, &versions);
    group["kind"] = json!("APIGroup");
    group["apiVersion"] = json!("v1");
    Ok(group)
}

/// `/api/v1` and `/apis/<group>/<version>`.
pub fn resources(state: &State, group: &str, version: &str) -> Result<Value, Failure> {
    let kinds: Vec<&Arc<Kind>> =
        state.kinds().filter(|kind| kind.group == group && kind.version == version).collect();
    let first = kinds.first().ok_or_else(Failure::no_such_path)?;
    let mut resources = Vec::new();
    for kind in &kinds {
        resources.push(json!({
            "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced, "kind": kind.kind,
            "shortNames": kind.short_names,
            "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        }));
        if kind.status {
            resources.push(json!({
                "name": format!("{}/status", kind.plural), "singularName": "", "namespaced": kind.namespaced,
                "kind": kind.kind, "verbs": ["get", "patch", "update"],
            }));
        }
    }
    Ok(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": first.api_version(), "resources": resources}),
    )
}

fn versions(state: &State) -> BTreeMap<String, Vec<String>> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for kind in state.kinds().filter(|kind| !kind.group.is_empty()) {
        let versions = groups.entry(kind.group.clone()).or_default();
        if !versions.contains(&kind.version) {
            versions.push(kind.version.clone());
        }
    }
    groups
}

fn describe(group: &str, versions: &[String]) -> Value {
    let describe =
        |version: &String| json!({"groupVersion": format!("{group}/{version}"), "version": version});
    let versions: Vec<Value> = versions.iter().map(describe).collect();
    json!({"name": group, "preferredVersion": versions.first(), "versions": versions})
}
