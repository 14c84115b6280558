//! The kinds of objects that are served: the built-in ones, and those of custom resource definitions.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::{
    apps::v1 as apps, coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery,
    events::v1 as events, networking::v1 as networking, policy::v1 as policy, rbac::v1 as rbac,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as extensions;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::field_set::ListTypes;
use super::schema::Schema;

/// Describes one kind of object: how it is called, and what the server does with it.
#[derive(Debug)]
pub struct Kind {
    /// API group; empty for core.
    pub group: String,
    /// The one version that is served.
    pub version: String,
    /// Kind, e.g. `EndpointSlice`.
    pub kind: String,
    /// Plural, lower case: the name in paths.
    pub plural: String,
    /// Singular, lower case.
    pub singular: String,
    /// Short names for command lines.
    pub short_names: Vec<String>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Whether there is a `/status`.
    pub status: bool,
    /// Whether `metadata.generation` counts changes of the specification.
    pub generation: bool,
    /// Which lists are merged item by item when applied.
    pub lists: ListTypes,
    /// How content is checked.
    pub content: Content,
}

/// How the content of a kind is checked.
#[derive(Debug)]
pub enum Content {
    /// Against the type of `k8s-openapi`: through it and back, which drops unknown fields.
    BuiltIn(fn(&Value) -> Result<Value, serde_json::Error>),
    /// Against the schema of its definition.
    Custom(Box<Schema>),
}

/// Names a kind, whatever its version: group and plural.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KindId {
    /// API group; empty for core.
    pub group: String,
    /// Plural, lower case.
    pub plural: String,
}

impl Kind {
    /// `v1` or `group/version`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Its name without version.
    pub fn id(&self) -> KindId {
        KindId { group: self.group.clone(), plural: self.plural.clone() }
    }

    /// `plural` or `plural.group`, as messages of the API server say.
    pub fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// Whether this is that built-in kind.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.group == group && self.plural == plural
    }

    /// Whether it comes from a custom resource definition.
    pub fn is_custom(&self) -> bool {
        matches!(self.content, Content::Custom(_))
    }
}

/// The built-in kinds.
pub fn built_in() -> BTreeMap<KindId, Arc<Kind>> {
    let mut kinds = BTreeMap::new();
    let mut add = |kind: Kind| {
        kinds.insert(kind.id(), Arc::new(kind));
    };
    add(entry::<core::Namespace>("", "v1", "Namespace", "namespaces", &["ns"]).cluster().with_status());
    add(entry::<core::Node>("", "v1", "Node", "nodes", &["no"]).cluster().with_status());
    add(entry::<core::Service>("", "v1", "Service", "services", &["svc"]).with_status());
    add(entry::<core::Pod>("", "v1", "Pod", "pods", &["po"]).with_status().with_generation());
    add(entry::<core::Secret>("", "v1", "Secret", "secrets", &[]));
    add(entry::<core::ConfigMap>("", "v1", "ConfigMap", "configmaps", &["cm"]));
    add(entry::<core::ServiceAccount>("", "v1", "ServiceAccount", "serviceaccounts", &["sa"]));
    add(entry::<core::PersistentVolumeClaim>(
        "",
        "v1",
        "PersistentVolumeClaim",
        "persistentvolumeclaims",
        &["pvc"],
    )
    .with_status());
    add(entry::<core::Event>("", "v1", "Event", "events", &["ev"]));
    add(entry::<events::Event>("events.k8s.io", "v1", "Event", "events", &["ev"]));
    add(entry::<discovery::EndpointSlice>("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", &[])
        .with_generation());
    add(entry::<networking::NetworkPolicy>(
        "networking.k8s.io",
        "v1",
        "NetworkPolicy",
        "networkpolicies",
        &["netpol"],
    )
    .with_generation());
    add(entry::<coordination::Lease>("coordination.k8s.io", "v1", "Lease", "leases", &[]));
    for kind in [
        entry::<apps::Deployment>("apps", "v1", "Deployment", "deployments", &["deploy"]),
        entry::<apps::StatefulSet>("apps", "v1", "StatefulSet", "statefulsets", &["sts"]),
        entry::<apps::DaemonSet>("apps", "v1", "DaemonSet", "daemonsets", &["ds"]),
        entry::<policy::PodDisruptionBudget>(
            "policy",
            "v1",
            "PodDisruptionBudget",
            "poddisruptionbudgets",
            &["pdb"],
        ),
    ] {
        add(kind.with_status().with_generation());
    }
    let rbac = "rbac.authorization.k8s.io";
    add(entry::<rbac::Role>(rbac, "v1", "Role", "roles", &[]));
    add(entry::<rbac::RoleBinding>(rbac, "v1", "RoleBinding", "rolebindings", &[]));
    add(entry::<rbac::ClusterRole>(rbac, "v1", "ClusterRole", "clusterroles", &[]).cluster());
    add(entry::<rbac::ClusterRoleBinding>(rbac, "v1", "ClusterRoleBinding", "clusterrolebindings", &[])
        .cluster());
    add(entry::<extensions::CustomResourceDefinition>(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        &["crd", "crds"],
    )
    .cluster()
    .with_status()
    .with_generation());
    kinds
}

fn entry<T: DeserializeOwned + Serialize>(
    group: &str,
    version: &str,
    kind: &str,
    plural: &str,
    short_names: &[&str],
) -> Kind {
    Kind {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
        singular: kind.to_ascii_lowercase(),
        short_names: short_names.iter().map(|name| (*name).to_owned()).collect(),
        namespaced: true,
        status: false,
        generation: false,
        lists: ListTypes::of_built_in(group, kind),
        content: Content::BuiltIn(through_type::<T>),
    }
}

impl Kind {
    fn cluster(mut self) -> Self {
        self.namespaced = false;
        self
    }

    fn with_status(mut self) -> Self {
        self.status = true;
        self
    }

    fn with_generation(mut self) -> Self {
        self.generation = true;
        self
    }
}

fn through_type<T: DeserializeOwned + Serialize>(value: &Value) -> Result<Value, serde_json::Error> {
    serde_json::to_value(T::deserialize(value)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn built_in_content_goes_through_its_type() {
        let kinds = built_in();
        let services =
            kinds.get(&KindId { group: String::new(), plural: "services".to_owned() }).expect("served");
        let Content::BuiltIn(check) = &services.content else { panic!("built in") };
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"portz": 1,
            "ports": [{"port": 80, "targetPort": "http"}]}});
        let checked = check(&service).expect("a service");
        assert_eq!(checked["spec"], json!({"ports": [{"port": 80, "targetPort": "http"}]}));
        let wrong = json!({"apiVersion": "v1", "kind": "Service", "metadata": {}, "spec": {"ports": "no"}});
        check(&wrong).expect_err("ports are a list");
    }
}
