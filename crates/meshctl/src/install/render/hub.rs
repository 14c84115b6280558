//! The hub: a StatefulSet with a volume for the embedded store, a Deployment for an etcd.

use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment, StatefulSet, StatefulSetSpec,
};
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, PersistentVolumeClaim, PersistentVolumeClaimSpec, PodSecurityContext, PodSpec,
    PodTemplateSpec, TopologySpreadConstraint, VolumeResourceRequirements,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::agent::{PEERS_DIR, REMOTE_TLS_DIR};
use super::pod::{
    confined, field, image, log_format, mount, named, node_selector, probe, pull_secrets, resources, seccomp,
    secret, tolerations,
};
use super::{ETCD_PORT, HUB, HUB_ADMIN_PORT, Object, Part, Target, labels, metadata, selector};
use crate::install::checked::Checked;
use crate::install::values::Profile;

pub(super) fn objects(values: &Checked, target: Target<'_>) -> Vec<Object> {
    let selected = LabelSelector {
        match_labels: Some(selector(COMPONENT).into_iter().collect()),
        ..LabelSelector::default()
    };
    let template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels(target, COMPONENT).collect()),
            ..ObjectMeta::default()
        }),
        spec: Some(pod(values, target)),
    };
    if values.hub.store.etcd.is_empty() {
        let spec = StatefulSetSpec {
            replicas: Some(1),
            service_name: Some(HUB.to_owned()),
            selector: selected,
            template,
            volume_claim_templates: Some(vec![claim(values, target)]),
            ..StatefulSetSpec::default()
        };
        let set = StatefulSet {
            metadata: metadata(target, HUB, COMPONENT),
            spec: Some(spec),
            ..StatefulSet::default()
        };
        return vec![Object::new(Part::Program, &set)];
    }
    let budget = PodDisruptionBudget {
        metadata: metadata(target, HUB, COMPONENT),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(selected.clone()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    };
    let rolling = RollingUpdateDeployment {
        max_surge: Some(IntOrString::Int(1)),
        max_unavailable: Some(IntOrString::Int(0)),
    };
    let spec = DeploymentSpec {
        replicas: Some(values.hub.replicas.into()),
        strategy: Some(DeploymentStrategy {
            type_: Some("RollingUpdate".to_owned()),
            rolling_update: Some(rolling),
        }),
        selector: selected,
        template,
        ..DeploymentSpec::default()
    };
    let deployment =
        Deployment { metadata: metadata(target, HUB, COMPONENT), spec: Some(spec), ..Deployment::default() };
    vec![Object::new(Part::Ground, &budget), Object::new(Part::Program, &deployment)]
}

fn pod(values: &Checked, target: Target<'_>) -> PodSpec {
    let hub = &values.hub;
    let embedded = hub.store.etcd.is_empty();
    let mut volumes = vec![secret("tls", &hub.tls_secret, false)];
    let mut mounts = vec![mount("tls", TLS_DIR, true)];
    if embedded {
        mounts.push(mount("data", DATA_DIR, false));
    } else {
        volumes.push(secret("store-tls", &hub.store.tls_secret, false));
        mounts.push(mount("store-tls", STORE_TLS_DIR, true));
    }
    if values.hub_follows_peers() {
        volumes.push(secret("remote-tls", &values.agent.remote_tls_secret, true));
        volumes.push(secret("peers", &values.agent.peers_secret, true));
        mounts.push(mount("remote-tls", REMOTE_TLS_DIR, true));
        mounts.push(mount("peers", PEERS_DIR, true));
    }
    let port = |name: &str, port| ContainerPort {
        name: Some(name.to_owned()),
        container_port: port,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    let container = Container {
        name: "hub".to_owned(),
        image: Some(image(values, "mesh-apiserver")),
        image_pull_policy: Some(values.image.pull_policy.clone()),
        args: Some(arguments(values, target)),
        env: Some(vec![field("POD_NAME", "metadata.name")]),
        ports: Some(vec![port("etcd", ETCD_PORT), port("admin", HUB_ADMIN_PORT)]),
        // The first list of a large cluster, and a journal that is read back, take their time before the first answer.
        startup_probe: Some(probe("/livez", HUB_ADMIN_PORT, None, 2, 60)),
        liveness_probe: Some(probe("/livez", HUB_ADMIN_PORT, None, 10, 6)),
        readiness_probe: Some(probe("/readyz", HUB_ADMIN_PORT, None, 5, 2)),
        resources: Some(resources(&hub.resources)),
        security_context: Some(confined(&[])),
        volume_mounts: Some(mounts),
        ..Container::default()
    };
    let spread = TopologySpreadConstraint {
        max_skew: 1,
        topology_key: "kubernetes.io/hostname".to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(LabelSelector {
            match_labels: Some(selector(COMPONENT).into_iter().collect()),
            ..LabelSelector::default()
        }),
        ..TopologySpreadConstraint::default()
    };
    PodSpec {
        service_account_name: Some(HUB.to_owned()),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(seccomp("RuntimeDefault")),
            ..PodSecurityContext::default()
        }),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(30),
        priority_class_name: named(&hub.priority_class),
        image_pull_secrets: pull_secrets(values),
        node_selector: node_selector(&hub.node_selector),
        tolerations: tolerations(&hub.tolerations),
        topology_spread_constraints: (!embedded).then(|| vec![spread]),
        containers: vec![container],
        volumes: Some(volumes),
        ..PodSpec::default()
    }
}

fn arguments(values: &Checked, target: Target<'_>) -> Vec<String> {
    let (cluster, hub) = (&values.cluster, &values.hub);
    let mut arguments = vec![
        format!("--cluster-name={}", cluster.name),
        format!("--cluster-id={}", cluster.id),
        format!("--max-connected-clusters={}", cluster.max_connected_clusters),
        "--source=kubernetes".to_owned(),
        format!("--listen={}:{ETCD_PORT}", hub.bind_address),
        format!("--admin-listen={}:{HUB_ADMIN_PORT}", hub.bind_address),
        format!("--tls-dir={TLS_DIR}"),
    ];
    if hub.store.etcd.is_empty() {
        arguments.push(format!("--data-dir={DATA_DIR}"));
    } else {
        arguments.push(format!("--store=etcd:{}", hub.store.etcd.join(",")));
        arguments.push(format!("--store-tls-dir={STORE_TLS_DIR}"));
        arguments.push("--replica-name=$(POD_NAME)".to_owned());
        arguments.push(format!("--leader-elect-resource-name={HUB}"));
    }
    if !cluster.region.is_empty() {
        arguments.push(format!("--region={}", cluster.region));
    }
    if values.hub_writes_peers() {
        arguments.push(format!("--agent-peers-secret={}/{}", target.namespace, values.agent.peers_secret));
        arguments.push(format!("--agent-peers-dir={PEERS_DIR}"));
        arguments.push(format!("--agent-tls-dir={REMOTE_TLS_DIR}"));
    }
    if values.hub_follows_peers() {
        arguments.push(format!("--peers={PEERS_DIR}"));
        if values.cluster_peers.enabled {
            arguments.push("--peers-objects".to_owned());
            arguments.push(format!("--peers-tls-dir={REMOTE_TLS_DIR}"));
        }
    }
    if values.profile == Profile::Agentless {
        arguments.push("--profile=agentless".to_owned());
    }
    arguments.push(log_format(values));
    arguments
}

fn claim(values: &Checked, target: Target<'_>) -> PersistentVolumeClaim {
    let store = &values.hub.store;
    let requests = [("storage".to_owned(), Quantity(store.size.clone()))].into_iter().collect();
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some("data".to_owned()),
            labels: Some(labels(target, COMPONENT).collect()),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: named(&store.storage_class),
            resources: Some(VolumeResourceRequirements { requests: Some(requests), limits: None }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}

const COMPONENT: Option<&str> = Some("hub");
const TLS_DIR: &str = "/etc/isthmus/hub";
const STORE_TLS_DIR: &str = "/etc/isthmus/store";
const DATA_DIR: &str = "/var/lib/isthmus";
/// The user of the images of `cargo xtask image`.
const USER: i64 = 65532;
