//! What the hub may do at the API server of its cluster: each rule with what it is for. Agents may do nothing there.

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, RoleRef, Subject};

use super::{HUB, Object, Part, Target, metadata};
use crate::install::checked::Checked;

pub(super) fn objects(values: &Checked, target: Target<'_>) -> Vec<Object> {
    let account = ServiceAccount { metadata: metadata(target, HUB, COMPONENT), ..ServiceAccount::default() };
    let role =
        ClusterRole { metadata: of_cluster(target), rules: Some(rules(values)), ..ClusterRole::default() };
    let binding = ClusterRoleBinding {
        metadata: of_cluster(target),
        role_ref: RoleRef {
            api_group: Some(RBAC.to_owned()),
            kind: "ClusterRole".to_owned(),
            name: HUB.to_owned(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name: HUB.to_owned(),
            namespace: Some(target.namespace.to_owned()),
            ..Subject::default()
        }]),
    };
    vec![
        Object::new(Part::Ground, &account),
        Object::new(Part::Ground, &role),
        Object::new(Part::Ground, &binding),
    ]
}

fn rules(_values: &Checked) -> Vec<PolicyRule> {
    vec![
        // The source: docs/kubernetes-source.md.
        rule("", &["namespaces", "nodes", "services", "pods"], READ),
        rule("discovery.k8s.io", &["endpointslices"], READ),
    ]
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
