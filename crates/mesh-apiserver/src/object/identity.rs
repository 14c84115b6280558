//! The objects that say which number which labels have.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use topology::Labels;
use topology::labels::InvalidLabels;

/// The annotation of an identity that nobody used: the hub that deletes it sets it first, a hub that uses it takes it
/// away.
pub const UNUSED: &str = "isthmus.dev/unused";

/// A `MeshIdentity` as the hub keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshIdentity {
    /// The number, as text.
    pub name: Box<str>,
    /// The labels that have it; none if what the object says cannot be read: then the number is nobody's.
    pub labels: Arc<Labels>,
    /// Whether it is marked as unused.
    pub unused: bool,
    /// `metadata.uid`.
    pub uid: Box<str>,
    /// `metadata.resourceVersion`.
    pub version: Box<str>,
    /// `metadata.creationTimestamp`, by the clock of the API server.
    pub created: Option<Timestamp>,
}

/// A `MeshIdentity` as the API server has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RawMeshIdentity {
    /// Name, version, annotations.
    pub metadata: ObjectMeta,
    /// What it says.
    pub spec: RawSpec,
}

/// What a `MeshIdentity` says.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RawSpec {
    /// Labels by `<source>:<key>`.
    pub labels: BTreeMap<String, String>,
}

impl From<RawMeshIdentity> for MeshIdentity {
    fn from(raw: RawMeshIdentity) -> Self {
        let RawMeshIdentity { metadata, spec } = raw;
        let boxed = |text: Option<String>| text.unwrap_or_default().into_boxed_str();
        let unused = metadata.annotations.as_ref().is_some_and(|all| all.contains_key(UNUSED));
        Self {
            name: boxed(metadata.name),
            labels: Arc::new(from_map(&spec.labels).unwrap_or_default()),
            // What is being deleted is as good as marked: finalizers are not ours.
            unused: unused || metadata.deletion_timestamp.is_some(),
            uid: boxed(metadata.uid),
            version: boxed(metadata.resource_version),
            created: metadata.creation_timestamp.map(|time| time.0),
        }
    }
}

/// Labels from a map whose keys are `<source>:<key>`, as Cilium's identities have them.
///
/// Fails if there are none, or one is no label: a `;` in it would let one pass for several.
pub fn from_map(map: &BTreeMap<String, String>) -> Result<Labels, InvalidLabels> {
    let mut text = String::new();
    for (key, value) in map {
        let label = format!("{key}={value}");
        if label.contains(';') {
            return Err(InvalidLabels::Form { found: label.chars().take(64).collect() });
        }
        text.push_str(&label);
        text.push(';');
    }
    text.parse()
}

/// Labels as a map whose keys are `<source>:<key>`.
pub fn to_map(labels: &Labels) -> BTreeMap<String, String> {
    labels.iter().map(|(key, label)| (format!("{}:{key}", label.source), label.value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_become_a_map_and_labels_again() {
        let text = "k8s:app=cart;k8s:io.kubernetes.pod.namespace=shop;reserved:host=;";
        let labels: Labels = text.parse().expect("labels");
        assert_eq!(from_map(&to_map(&labels)), Ok(labels));
        let of = |key: &str, value: &str| from_map(&BTreeMap::from([(key.to_owned(), value.to_owned())]));
        assert!(of("k8s:app", "x;k8s:io.cilium.k8s.policy.cluster=paris").is_err());
        assert!(of("app", "cart").is_err(), "without a source");
        assert_eq!(from_map(&BTreeMap::new()), Err(InvalidLabels::Empty));
    }

    #[test]
    fn what_is_marked_or_going_is_not_to_be_used() {
        let read = |metadata: serde_json::Value| {
            let spec = serde_json::json!({"labels": {"k8s:app": "cart"}});
            let raw = serde_json::json!({"metadata": metadata, "spec": spec});
            MeshIdentity::from(serde_json::from_value::<RawMeshIdentity>(raw).expect("an object"))
        };
        assert!(!read(serde_json::json!({"name": "65537"})).unused);
        assert!(read(serde_json::json!({"annotations": {UNUSED: ""}})).unused);
        assert!(read(serde_json::json!({"deletionTimestamp": "2026-01-01T00:00:00Z"})).unused);
    }
}
