//! An object of a kind, of which something else is kept than what the kind's own type holds.

use std::borrow::Cow;
use std::marker::PhantomData;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// What is kept of an object of the kind `K`. It is listed and watched as `K` is.
#[derive(Clone, Debug, PartialEq)]
pub struct OfKind<K, C> {
    /// As much of its metadata as the content wants.
    pub metadata: ObjectMeta,
    /// The rest.
    pub content: C,
    kind: PhantomData<fn() -> K>,
}

/// What is kept of an object of the kind `K`.
pub trait Content<K>: Sized {
    /// Reads metadata and content from an object, which comes without managed fields: the largest part of many, and
    /// of use to nobody here.
    ///
    /// An error spoils the list that the object is in, and is for metadata that are none; what else is wrong is content.
    fn read(object: Value) -> serde_json::Result<(ObjectMeta, Self)>;
}

impl<'de, K, C: Content<K>> Deserialize<'de> for OfKind<K, C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut object = Value::deserialize(deserializer)?;
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
        let (metadata, content) = C::read(object).map_err(serde::de::Error::custom)?;
        Ok(Self { metadata, content, kind: PhantomData })
    }
}

impl<K: Resource<DynamicType = ()>, C> Resource for OfKind<K, C> {
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
