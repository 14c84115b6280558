//! What the hub may do at the API server of its cluster: each rule with what it is for. Agents may do nothing there.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};

use super::{HUB, Object, Part, Target, metadata};
use crate::install::checked::Checked;
use crate::install::values::Profile;

pub(super) fn objects(values: &Checked, target: Target<'_>) -> Vec<Object> {
    let account = ServiceAccount { metadata: metadata(target, HUB, COMPONENT), ..ServiceAccount::default() };
    let role =
        ClusterRole { metadata: of_cluster(target), rules: Some(rules(values)), ..ClusterRole::default() };
    let binding = ClusterRoleBinding {
        metadata: of_cluster(target),
        role_ref: role_ref("ClusterRole"),
        subjects: Some(vec![subject(target)]),
    };
    let mut objects = vec![
        Object::new(Part::Ground, &account),
        Object::new(Part::Ground, &role),
        Object::new(Part::Ground, &binding),
    ];
    objects.extend(written(values, target));
    let rules = rules_for_written(values);
    if !rules.is_empty() {
        let role = Role { metadata: metadata(target, HUB, COMPONENT), rules: Some(rules) };
        let binding = RoleBinding {
            metadata: metadata(target, HUB, COMPONENT),
            role_ref: role_ref("Role"),
            subjects: Some(vec![subject(target)]),
        };
        objects.extend([Object::new(Part::Ground, &role), Object::new(Part::Ground, &binding)]);
    }
    objects
}

fn rules(values: &Checked) -> Vec<PolicyRule> {
    let mut rules = vec![
        // The source: docs/kubernetes-source.md.
        rule("", &["namespaces", "nodes", "services", "pods"], READ),
        rule("discovery.k8s.io", &["endpointslices"], READ),
        // Policies, which are looked at and counted.
        rule("networking.k8s.io", &["networkpolicies"], READ),
        rule("cilium.io", &["ciliumnetworkpolicies", "ciliumclusterwidenetworkpolicies"], READ),
        // Custom resources, what became of them, and what changed: docs/custom-resources.md.
        rule("isthmus.dev", &["clusterpeers", "failoverpolicies"], READ),
        rule("isthmus.dev", &["clusterpeers/status", "failoverpolicies/status"], &["patch"]),
        rule("events.k8s.io", &["events"], &["create", "patch"]),
    ];
    // Numbers of identities: docs/identities.md.
    rules.push(match values.profile {
        Profile::Cilium => rule(
            "cilium.io",
            &["ciliumidentities", "ciliumendpoints", "ciliumendpointslices", "ciliumnodes"],
            READ,
        ),
        Profile::Agent | Profile::Agentless => {
            rule("isthmus.dev", &["meshidentities"], &["list", "watch", "create", "patch", "delete"])
        }
    });
    // Backends of peers: docs/endpoint-slices.md.
    if values.hub_follows_peers() {
        rules.push(rule("discovery.k8s.io", &["endpointslices"], &["create", "update", "delete"]));
    }
    rules
}

/// What the hub writes in its namespace, empty, so that it needs no right to make such objects.
fn written(values: &Checked, target: Target<'_>) -> Vec<Object> {
    let mut objects = Vec::new();
    if values.hub_writes_peers() {
        let secret = Secret {
            metadata: metadata(target, &values.agent.peers_secret, COMPONENT),
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        };
        objects.push(Object::new(Part::Written, &secret));
    }
    if values.hub_has_replicas() {
        let lease = Lease { metadata: metadata(target, HUB, COMPONENT), ..Lease::default() };
        objects.push(Object::new(Part::Written, &lease));
    }
    objects
}

fn rules_for_written(values: &Checked) -> Vec<PolicyRule> {
    let named = |group: &str, resource: &str, names: &[String], verbs: &[&str]| PolicyRule {
        resource_names: Some(names.to_vec()),
        ..rule(group, &[resource], verbs)
    };
    let mut rules = Vec::new();
    if values.hub_writes_peers() {
        let name = std::slice::from_ref(&values.agent.peers_secret);
        rules.push(named("", "secrets", name, &["get", "patch"]));
        if !values.cluster_peers.trust_secrets.is_empty() {
            rules.push(named("", "secrets", &values.cluster_peers.trust_secrets, &["get"]));
        }
    }
    // Which replica writes: docs/leader-election.md.
    if values.hub_has_replicas() {
        rules.push(named("coordination.k8s.io", "leases", &[HUB.to_owned()], &["get", "update"]));
    }
    rules
}

fn role_ref(kind: &str) -> RoleRef {
    RoleRef { api_group: Some(RBAC.to_owned()), kind: kind.to_owned(), name: HUB.to_owned() }
}

fn subject(target: Target<'_>) -> Subject {
    Subject {
        kind: "ServiceAccount".to_owned(),
        name: HUB.to_owned(),
        namespace: Some(target.namespace.to_owned()),
        ..Subject::default()
    }
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> PolicyRule {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(owned(resources)),
        verbs: owned(verbs),
        ..PolicyRule::default()
    }
}

fn of_cluster(target: Target<'_>) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
    let mut metadata = metadata(target, HUB, COMPONENT);
    metadata.namespace = None;
    metadata
}

const COMPONENT: Option<&str> = Some("hub");
const RBAC: &str = "rbac.authorization.k8s.io";
const READ: &[&str] = &["list", "watch"];
