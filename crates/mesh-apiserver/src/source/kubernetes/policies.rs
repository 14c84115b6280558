//! Policies: decoded, checked, counted, and not kept. One that could not be enforced as it is written cannot be used, and is
//! a finding like any object that cannot be decoded.

use std::borrow::Cow;
use std::sync::Arc;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::{ClusterResourceScope, NamespaceResourceScope};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::custom::{CILIUM, resource};
use super::kept::Kept;
use crate::object::{Body, ObjectKind, Policy};
use crate::policy::cilium::{CiliumPolicy, Scope};
use crate::policy::{cilium, network};

/// A NetworkPolicy that could be enforced.
#[derive(Clone, Debug)]
pub struct StandardPolicy {
    metadata: ObjectMeta,
}

/// A CiliumNetworkPolicy that could be enforced.
#[derive(Clone, Debug)]
pub struct NamespacedPolicy {
    metadata: ObjectMeta,
}

/// A CiliumClusterwideNetworkPolicy that could be enforced.
#[derive(Clone, Debug)]
pub struct ClusterwidePolicy {
    metadata: ObjectMeta,
}

impl<'de> Deserialize<'de> for StandardPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let policy = NetworkPolicy::deserialize(deserializer)?;
        network::check(&policy).map_err(D::Error::custom)?;
        Ok(Self { metadata: policy.metadata })
    }
}

impl<'de> Deserialize<'de> for NamespacedPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { metadata: of_cilium(deserializer, Scope::Namespace)? })
    }
}

impl<'de> Deserialize<'de> for ClusterwidePolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { metadata: of_cilium(deserializer, Scope::Cluster)? })
    }
}

fn of_cilium<'de, D: Deserializer<'de>>(deserializer: D, scope: Scope) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    struct Whole {
        metadata: ObjectMeta,
        #[serde(flatten)]
        policy: CiliumPolicy,
    }
    let whole = Whole::deserialize(deserializer)?;
    cilium::check(&whole.policy, scope).map_err(D::Error::custom)?;
    Ok(whole.metadata)
}

resource!(
    StandardPolicy,
    NamespaceResourceScope,
    ObjectKind::NetworkPolicy,
    "networking.k8s.io",
    "v1",
    "networkpolicies"
);
resource!(
    NamespacedPolicy,
    NamespaceResourceScope,
    ObjectKind::CiliumNetworkPolicy,
    CILIUM,
    "v2",
    "ciliumnetworkpolicies"
);
resource!(
    ClusterwidePolicy,
    ClusterResourceScope,
    ObjectKind::CiliumClusterwideNetworkPolicy,
    CILIUM,
    "v2",
    "ciliumclusterwidenetworkpolicies"
);

impl Kept for StandardPolicy {
    const KIND: ObjectKind = ObjectKind::NetworkPolicy;

    fn keep(self) -> Body {
        kept(Self::KIND, self.metadata)
    }
}

impl Kept for NamespacedPolicy {
    const KIND: ObjectKind = ObjectKind::CiliumNetworkPolicy;

    fn keep(self) -> Body {
        kept(Self::KIND, self.metadata)
    }
}

impl Kept for ClusterwidePolicy {
    const KIND: ObjectKind = ObjectKind::CiliumClusterwideNetworkPolicy;

    fn keep(self) -> Body {
        kept(Self::KIND, self.metadata)
    }
}

fn kept(kind: ObjectKind, metadata: ObjectMeta) -> Body {
    Body::Policy(Arc::new(Policy { kind, namespace: metadata.namespace, name: metadata.name }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::object::Object;
    use crate::source::kubernetes::kept::{Found, Unusable};

    fn found<K: Kept>(spec: Value) -> Result<Object, Unusable> {
        let object = json!({"metadata": {"name": "p", "namespace": "shop"}, "spec": spec});
        serde_json::from_value::<Found<K>>(object).expect("an object of some kind").into_object()
    }

    #[test]
    fn a_policy_is_known_by_its_name_and_a_broken_one_by_what_is_wrong() {
        let (one, other) = (
            found::<StandardPolicy>(json!({"podSelector": {}})).expect("sound"),
            found::<StandardPolicy>(json!({"podSelector": {}, "ingress": [{}]})).expect("sound"),
        );
        assert_eq!(one, other, "what it says is read by nobody");
        assert_eq!(one.reference().to_string(), "NetworkPolicy shop/p");
        let broken = found::<StandardPolicy>(json!({"podSelector": {}, "policyTypes": ["ingress"]}));
        assert!(broken.expect_err("not a direction").why.contains("spec.policyTypes[0]"));
        let nodes = json!({"nodeSelector": {}, "ingress": []});
        assert!(found::<NamespacedPolicy>(nodes.clone()).is_err());
        let clusterwide = found::<ClusterwidePolicy>(nodes).expect("sound");
        assert_eq!(clusterwide.reference().to_string(), "CiliumClusterwideNetworkPolicy p");
        let garbled = found::<NamespacedPolicy>(json!({"endpointSelector": "all"}));
        assert_eq!(garbled.expect_err("a selector is an object").namespace.as_deref(), Some("shop"));
    }
}
