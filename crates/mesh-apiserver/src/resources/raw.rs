//! An object as it comes: one that makes no sense is still an object, with a name, that can be answered.

use std::fmt::Debug;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::Resource;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::object::of_kind::{Content, OfKind};

/// A kind of custom resource.
pub trait Custom:
    Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + PartialEq + Send + Sync + 'static
{
}

impl<K> Custom for K where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + PartialEq + Send + Sync + 'static
{
}

/// An object, whatever is in it.
pub type Raw<K> = OfKind<K, Stated<K>>;

/// What an object says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Stated<K> {
    /// What it says, without its status; or why that is not of the kind's shape.
    pub object: Result<Box<K>, String>,
    /// Its status as it is.
    pub status: Value,
}

impl<K> Raw<K> {
    /// Its name.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// The conditions in its status, those that can be read.
    pub fn conditions(&self) -> Vec<Condition> {
        let conditions = self.content.status.get("conditions").and_then(Value::as_array);
        let conditions = conditions.into_iter().flatten();
        conditions.filter_map(|condition| Condition::deserialize(condition).ok()).collect()
    }
}

impl<K: Custom> Content<K> for Stated<K> {
    fn read(mut object: Value) -> serde_json::Result<(ObjectMeta, Self)> {
        let metadata = object.get("metadata").cloned().unwrap_or_default();
        let metadata = ObjectMeta::deserialize(metadata)?;
        let mut status = Value::Null;
        if let Some(members) = object.as_object_mut() {
            status = members.remove("status").unwrap_or_default();
            members.insert("apiVersion".to_owned(), Value::from(K::api_version(&())));
            members.insert("kind".to_owned(), Value::from(K::kind(&())));
        }
        let object = serde_json::from_value(object).map(Box::new).map_err(|error| error.to_string());
        Ok((metadata, Self { object, status }))
    }
}

#[cfg(test)]
mod tests {
    use mesh_resources::ClusterPeer;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_of_another_shape_still_has_a_name_and_a_status() {
        let condition = json!({"type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let raw: Raw<ClusterPeer> = serde_json::from_value(json!({
            "metadata": {"name": "tokyo", "generation": 3}, "spec": {"endpoints": 7},
            "status": {"conditions": [condition, {"type": "Odd"}], "more": true}}))
        .expect("an object");
        assert_eq!((raw.name(), raw.metadata.generation), ("tokyo", Some(3)));
        assert!(
            raw.content.object.clone().expect_err("a list is wanted").contains("invalid type"),
            "{raw:?}"
        );
        assert_eq!(raw.conditions().len(), 1);
    }
}
