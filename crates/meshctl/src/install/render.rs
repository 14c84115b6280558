//! From values to objects: pure, typed, and in the order in which they are applied.
//!
//! ```text
//!   Checked ─> namespace, definitions │ accounts, roles │ configuration │ service, policies │ hub │ agents ─> Object
//! ```
//! The templates of `deploy/chart` give the same objects, but for those that Helm keeps apart ([`Part`]); a test renders
//! both.

mod agent;
mod hub;
mod network;
mod pod;
mod rbac;
pub(crate) mod secrets;

use k8s_openapi::api::core::v1::{Namespace, Toleration};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::ApiResource;
use serde::Serialize;
use serde_json::{Map, Value};

use super::checked::Checked;
use super::values::Profile;

pub(crate) use self::agent::CLEANUP;
pub use self::agent::cleanup;

/// One object to apply.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Its kind.
    pub resource: ApiResource,
    /// What part of the installation it is.
    pub part: Part,
    /// The object itself, with apiVersion and kind.
    pub value: Value,
}

/// What part of an installation an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The namespace; Helm makes it by `--create-namespace`.
    Namespace,
    /// A definition of custom resources; Helm takes it from the folder `crds`.
    Definition,
    /// What the hub writes into: the Secret of peers, the Lease.
    Written,
    /// What the programs need before they start.
    Ground,
    /// A program.
    Program,
}

/// Where to install, and what is called so that it is found again.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The namespace.
    pub namespace: &'a str,
    /// Value of [`MANAGED_BY`]: who removes it again.
    pub manager: &'a str,
}

impl Object {
    fn new<K>(part: Part, object: &K) -> Self
    where
        K: Resource<DynamicType = ()> + Serialize,
    {
        let mut value = serde_json::to_value(object).expect("types of Kubernetes serialise");
        // Definitions are made with an empty status, which is not ours to say.
        value.as_object_mut().map(|fields| fields.remove("status"));
        Self { resource: ApiResource::erase::<K>(&()), part, value }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.value["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// Its namespace; none for objects of the cluster.
    pub fn namespace(&self) -> Option<&str> {
        self.value["metadata"]["namespace"].as_str()
    }

    /// `Kind namespace/name`, for people.
    pub fn describe(&self) -> String {
        let namespace = self.namespace().map(|namespace| format!("{namespace}/")).unwrap_or_default();
        format!("{} {namespace}{}", self.resource.kind, self.name())
    }
}

/// Everything that is installed, in the order of application: what is needed by others first.
pub fn render(values: &Checked, target: Target<'_>) -> Vec<Object> {
    let mut objects = vec![Object::new(Part::Namespace, &namespace(values, target))];
    objects.extend(definitions(target));
    objects.extend(rbac::objects(values, target));
    objects.extend(network::objects(values, target));
    if values.profile == Profile::Agent {
        objects.extend(agent::ground(target));
    }
    objects.extend(hub::objects(values, target));
    if values.profile == Profile::Agent {
        objects.push(agent::daemon_set(values, target));
    }
    objects
}

/// The definitions of custom resources.
pub fn definitions(target: Target<'_>) -> Vec<Object> {
    let labelled = |mut definition: CustomResourceDefinition| {
        definition.metadata.labels.get_or_insert_default().extend(labels(target, None));
        Object::new(Part::Definition, &definition)
    };
    mesh_resources::definitions().into_iter().map(labelled).collect()
}

fn namespace(values: &Checked, target: Target<'_>) -> Namespace {
    // Agents share their node's network and cgroups, which the other levels refuse. The hub alone satisfies the strictest.
    let level = if values.profile == Profile::Agent { "privileged" } else { "restricted" };
    let mut metadata = metadata(target, target.namespace, None);
    metadata.namespace = None;
    let enforce = ("pod-security.kubernetes.io/enforce".to_owned(), level.to_owned());
    metadata.labels.get_or_insert_default().extend([enforce]);
    Namespace { metadata, ..Namespace::default() }
}

/// Reads a toleration of the values. Fails if a member has the wrong type or is unknown.
pub(super) fn toleration(from: &Map<String, Value>) -> Result<Toleration, String> {
    let known = ["key", "operator", "value", "effect", "tolerationSeconds"];
    if let Some(unknown) = from.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(format!("{unknown} is no member of a toleration, expected {}", known.join(", ")));
    }
    serde_json::from_value(Value::Object(from.clone())).map_err(|error| error.to_string())
}

fn metadata(target: Target<'_>, name: &str, component: Option<&str>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(target.namespace.to_owned()),
        labels: Some(labels(target, component).collect()),
        ..ObjectMeta::default()
    }
}

fn labels(target: Target<'_>, component: Option<&str>) -> impl Iterator<Item = (String, String)> {
    let managed = (MANAGED_BY.to_owned(), target.manager.to_owned());
    selector(component).into_iter().chain([managed])
}

fn selector(component: Option<&str>) -> Vec<(String, String)> {
    let name = ("app.kubernetes.io/name".to_owned(), NAME.to_owned());
    let component =
        component.map(|component| ("app.kubernetes.io/component".to_owned(), component.to_owned()));
    [name].into_iter().chain(component).collect()
}

/// The label that says who removes an object again.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// What `meshctl` writes there, and calls itself as a field manager.
pub const MANAGER: &str = "meshctl";
/// The value of `app.kubernetes.io/name` on everything that is ours.
pub const NAME: &str = "isthmus";
/// The name of all objects of the hub.
pub const HUB: &str = "isthmus-hub";
/// The name of all objects of the agents.
pub const AGENT: &str = "isthmus-agent";
const ETCD_PORT: i32 = 2379;
const HUB_ADMIN_PORT: i32 = 9980;
const AGENT_ADMIN_PORT: i32 = 9970;
const PROBE_PORT: i32 = 9971;
