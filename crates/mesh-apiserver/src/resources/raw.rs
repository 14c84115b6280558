//! An object as it comes: one that makes no sense is still an object, with a name, that can be answered.

use std::borrow::Cow;
use std::fmt::Debug;
use std::marker::PhantomData;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::Resource;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

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
#[derive(Clone, Debug, PartialEq)]
pub struct Raw<K> {
    /// Its metadata; without managed fields.
    pub metadata: ObjectMeta,
    /// What it says, without its status; or why that is not of the kind's shape.
    pub object: Result<Box<K>, String>,
    /// Its status as it is.
    pub status: Value,
    kind: PhantomData<fn() -> K>,
}

impl<K> Raw<K> {
    /// Its name.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// The conditions in its status, those that can be read.
    pub fn conditions(&self) -> Vec<Condition> {
        let conditions = self.status.get("conditions").and_then(Value::as_array).into_iter().flatten();
        conditions.filter_map(|condition| Condition::deserialize(condition).ok()).collect()
    }
}

impl<'de, K: Custom> Deserialize<'de> for Raw<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
        let metadata = value.get("metadata").cloned().unwrap_or_default();
        let metadata = ObjectMeta::deserialize(metadata).map_err(serde::de::Error::custom)?;
        let mut status = Value::Null;
        if let Some(members) = value.as_object_mut() {
            status = members.remove("status").unwrap_or_default();
            members.insert("apiVersion".to_owned(), Value::from(K::api_version(&())));
            members.insert("kind".to_owned(), Value::from(K::kind(&())));
        }
        let object = serde_json::from_value(value).map(Box::new).map_err(|error| error.to_string());
        Ok(Self { metadata, object, status, kind: PhantomData })
    }
}

impl<K: Custom> Resource for Raw<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind(kind: &()) -> Cow<'_, str> {
        K::kind(kind)
    }

    fn group(kind: &()) -> Cow<'_, str> {
        K::group(kind)
    }

    fn version(kind: &()) -> Cow<'_, str> {
        K::version(kind)
    }

    fn plural(kind: &()) -> Cow<'_, str> {
        K::plural(kind)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
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
        assert!(raw.object.clone().expect_err("a list is wanted").contains("invalid type"), "{raw:?}");
        assert_eq!(raw.conditions().len(), 1);
    }
}
