//! Who may import whom. A crate is a layer with a reason; a new edge is a decision, made here.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::command::cargo;

/// Each crate of ours with the crates of ours that it may import, by level (docs/architecture.md).
const ALLOWED: [(&str, &[&str]); 13] = [
    // level 0
    ("topology", &[]),
    ("ebpf-types", &[]),
    ("mesh-runtime", &[]),
    // level 1
    ("pki", &["topology", "mesh-runtime"]),
    ("kvstore", &[]),
    ("mesh-resources", &["topology"]),
    ("ebpf-loader", &["ebpf-types"]),
    // level 2
    ("peering", &["topology", "mesh-runtime", "pki", "kvstore"]),
    // level 3
    ("mesh-apiserver", &["topology", "mesh-runtime", "pki", "kvstore", "mesh-resources", "peering"]),
    ("mesh-agent", &["topology", "mesh-runtime", "ebpf-types", "ebpf-loader", "peering"]),
    ("meshctl", &["topology", "pki", "mesh-resources"]),
    // level 4: daemons only as child processes
    ("e2e", &["topology", "ebpf-types", "ebpf-loader", "kvstore", "pki"]),
    ("xtask", &[]),
];

/// Crates that only some of ours may import, because they stand for a part of the outside world.
const KEPT: [(&str, &[&str]); 4] = [
    ("aya", &["ebpf-loader"]),
    ("k8s-openapi", &["mesh-apiserver", "mesh-resources", "e2e", "meshctl"]),
    ("kube", &["mesh-apiserver", "mesh-resources", "meshctl"]),
    ("schemars", &["mesh-resources", "meshctl"]),
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    path: Option<String>,
    kind: Option<String>,
}

/// Fails with every edge that is not allowed, and every crate that has no place yet.
pub(crate) fn check() -> Result<()> {
    let output =
        cargo(&["metadata", "--no-deps", "--format-version", "1"]).output().context("run cargo metadata")?;
    let metadata: Metadata = serde_json::from_slice(&output.stdout).context("read cargo metadata")?;
    let wrong = violations(&metadata);
    if !wrong.is_empty() {
        bail!(
            "imports that xtask/src/layers.rs does not allow:\n  {}\nEither turn the dependency round, or make the edge a decision: there, and in docs/architecture.md.",
            wrong.join("\n  ")
        );
    }
    Ok(())
}

fn violations(metadata: &Metadata) -> Vec<String> {
    let mut wrong = BTreeSet::new();
    for package in &metadata.packages {
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == package.name) else {
            wrong.insert(format!("{} has no place in the layers", package.name));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|d| d.kind.as_deref() != Some("dev")) {
            let name = dependency.name.as_str();
            let kept = KEPT.iter().find(|(kept, _)| *kept == name);
            let forbidden = match kept {
                Some((_, importers)) => !importers.contains(&package.name.as_str()),
                None => dependency.path.is_some() && !allowed.contains(&name),
            };
            if forbidden {
                wrong.insert(format!("{} -> {name}", package.name));
            }
        }
    }
    wrong.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependencies: &[(&str, bool)]) -> Package {
        let dependency = |(name, ours): &(&str, bool)| Dependency {
            name: (*name).to_owned(),
            path: ours.then(|| "/".to_owned()),
            kind: None,
        };
        Package { name: name.to_owned(), dependencies: dependencies.iter().map(dependency).collect() }
    }

    #[test]
    fn a_new_edge_is_named() {
        let packages = vec![
            package("topology", &[("serde", false), ("kvstore", true)]),
            package("peering", &[("topology", true), ("aya", false)]),
            package("stranger", &[]),
        ];
        let expected = ["peering -> aya", "stranger has no place in the layers", "topology -> kvstore"];
        assert_eq!(violations(&Metadata { packages }), expected);
    }
}
