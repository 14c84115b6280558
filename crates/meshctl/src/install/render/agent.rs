//! The agents: one a node, in the node's network, with two capabilities.
//!
//! What an agent needs of its node was measured: with CAP_BPF and CAP_NET_ADMIN, as root without any other capability, and
//! with the cgroup file system mounted read-only, it loads its programs, pins and attaches them. It writes to nothing
//! but the BPF file system.

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy, RollingUpdateDaemonSet};
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapVolumeSource, Container, ContainerPort, HostPathVolumeSource, PodSecurityContext,
    PodSpec, PodTemplateSpec, ServiceAccount, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::pod::{
    confined, field, image, log_format, mount, named, node_selector, probe, pull_secrets, resources, seccomp,
    secret, tolerations,
};
use super::{
    AGENT, AGENT_ADMIN_PORT, ETCD_PORT, HUB, Object, PROBE_PORT, Part, Target, labels, metadata, selector,
};
use crate::install::checked::Checked;

/// What agents need before they start: an account without any right, and the way to their hub.
pub(super) fn ground(target: Target<'_>) -> Vec<Object> {
    let account = ServiceAccount {
        metadata: metadata(target, AGENT, COMPONENT),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    };
    let hub = format!(
        "endpoints:\n- https://{HUB}.{}.svc:{ETCD_PORT}\ntrusted-ca-file: {LOCAL_TLS_DIR}/ca.crt\n\
         cert-file: {LOCAL_TLS_DIR}/tls.crt\nkey-file: {LOCAL_TLS_DIR}/tls.key\n",
        target.namespace
    );
    let config = ConfigMap {
        metadata: metadata(target, AGENT, COMPONENT),
        data: Some([("hub.yaml".to_owned(), hub)].into_iter().collect()),
        ..ConfigMap::default()
    };
    vec![Object::new(Part::Ground, &account), Object::new(Part::Ground, &config)]
}

pub(super) fn daemon_set(values: &Checked, target: Target<'_>) -> Object {
    let agent = &values.agent;
    let cgroup = if agent.cgroup.is_empty() { String::new() } else { format!("/{}", agent.cgroup) };
    let container = Container {
        name: "agent".to_owned(),
        args: Some(vec![
            format!("--cluster-name={}", values.cluster.name),
            "--node-name=$(NODE_NAME)".to_owned(),
            format!("--hub-config={CONFIG_DIR}/hub.yaml"),
            format!("--peers-dir={PEERS_DIR}"),
            format!("--cgroup={CGROUP_DIR}{cgroup}"),
            format!("--pin-dir={PIN_DIR}"),
            format!("--admin-listen=127.0.0.1:{AGENT_ADMIN_PORT}"),
            log_format(values),
        ]),
        env: Some(vec![field("NODE_NAME", "spec.nodeName")]),
        ports: Some(vec![ContainerPort {
            name: Some("probes".to_owned()),
            container_port: PROBE_PORT,
            host_port: Some(PROBE_PORT),
            protocol: Some("UDP".to_owned()),
            ..ContainerPort::default()
        }]),
        startup_probe: Some(probe("/livez", AGENT_ADMIN_PORT, Some("127.0.0.1"), 2, 30)),
        liveness_probe: Some(probe("/livez", AGENT_ADMIN_PORT, Some("127.0.0.1"), 10, 6)),
        readiness_probe: Some(probe("/readyz", AGENT_ADMIN_PORT, Some("127.0.0.1"), 5, 2)),
        volume_mounts: Some(vec![
            mount("bpf", BPF_DIR, false),
            mount("cgroup", CGROUP_DIR, true),
            mount("config", CONFIG_DIR, true),
            mount("local-tls", LOCAL_TLS_DIR, true),
            mount("remote-tls", REMOTE_TLS_DIR, true),
            mount("peers", PEERS_DIR, true),
        ]),
        ..program(values)
    };
    let config = ConfigMapVolumeSource { name: AGENT.to_owned(), ..ConfigMapVolumeSource::default() };
    let spec = PodSpec {
        containers: vec![container],
        volumes: Some(vec![
            host_path("bpf", BPF_DIR),
            host_path("cgroup", &agent.cgroup_root),
            Volume { name: "config".to_owned(), config_map: Some(config), ..Volume::default() },
            secret("local-tls", &agent.local_tls_secret, false),
            secret("remote-tls", &agent.remote_tls_secret, true),
            secret("peers", &agent.peers_secret, true),
        ]),
        ..pod(values)
    };
    let update = RollingUpdateDaemonSet {
        max_unavailable: Some(match agent.max_unavailable.parse() {
            Ok(number) => IntOrString::Int(number),
            Err(_percentage) => IntOrString::String(agent.max_unavailable.clone()),
        }),
        max_surge: None,
    };
    Object::new(Part::Program, &set(AGENT, COMPONENT, spec, Some(update), target))
}

/// Takes programs and maps off all nodes on which these agents run: a DaemonSet that waits on each node for the agent's
/// end, and is ready when nothing is left there. To be deleted then. None if `agents` has no containers.
pub fn cleanup(agents: &DaemonSet, target: Target<'_>) -> Option<Object> {
    let mut spec = agents.spec.as_ref()?.template.spec.clone()?;
    let agent = spec.containers.first()?.clone();
    let container = |name: &str, more: &[&str]| {
        let command =
            ["mesh-agent-cleanup", "--wait", "--pin-dir", PIN_DIR].into_iter().chain(more.iter().copied());
        Container {
            name: name.to_owned(),
            command: Some(command.map(str::to_owned).collect()),
            image: agent.image.clone(),
            image_pull_policy: agent.image_pull_policy.clone(),
            resources: agent.resources.clone(),
            security_context: agent.security_context.clone(),
            volume_mounts: Some(vec![mount("bpf", BPF_DIR, false)]),
            ..Container::default()
        }
    };
    spec.init_containers = Some(vec![container("cleanup", &[])]);
    spec.containers = vec![container("wait", &["--then-wait"])];
    spec.volumes = Some(vec![host_path("bpf", BPF_DIR)]);
    // The account goes with the agents.
    spec.service_account_name = None;
    spec.service_account = None;
    Some(Object::new(Part::Program, &set(CLEANUP, Some("cleanup"), spec, None, target)))
}

fn set(
    name: &str,
    component: Option<&str>,
    spec: PodSpec,
    update: Option<RollingUpdateDaemonSet>,
    target: Target<'_>,
) -> DaemonSet {
    let selected = LabelSelector {
        match_labels: Some(selector(component).into_iter().collect()),
        ..LabelSelector::default()
    };
    DaemonSet {
        metadata: metadata(target, name, component),
        spec: Some(DaemonSetSpec {
            selector: selected,
            update_strategy: Some(DaemonSetUpdateStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: update,
            }),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels(target, component).collect()),
                    ..ObjectMeta::default()
                }),
                spec: Some(spec),
            },
            ..DaemonSetSpec::default()
        }),
        ..DaemonSet::default()
    }
}

fn program(values: &Checked) -> Container {
    Container {
        image: Some(image(values, "mesh-agent")),
        image_pull_policy: Some(values.image.pull_policy.clone()),
        resources: Some(resources(&values.agent.resources)),
        security_context: Some(confined(&["BPF", "NET_ADMIN"])),
        ..Container::default()
    }
}

fn pod(values: &Checked) -> PodSpec {
    let agent = &values.agent;
    PodSpec {
        service_account_name: Some(AGENT.to_owned()),
        automount_service_account_token: Some(false),
        // Probes are answered at the node's address, and the hub's name is one of the cluster.
        host_network: Some(true),
        dns_policy: Some("ClusterFirstWithHostNet".to_owned()),
        security_context: Some(PodSecurityContext {
            // Root owns the BPF file system; of root's rights it has none but the capabilities above.
            run_as_user: Some(0),
            run_as_group: Some(0),
            seccomp_profile: Some(seccomp(&agent.seccomp_profile)),
            ..PodSecurityContext::default()
        }),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(10),
        priority_class_name: named(&agent.priority_class),
        image_pull_secrets: pull_secrets(values),
        node_selector: node_selector(&agent.node_selector),
        tolerations: tolerations(&agent.tolerations),
        ..PodSpec::default()
    }
}

fn host_path(name: &str, path: &str) -> Volume {
    let source = HostPathVolumeSource { path: path.to_owned(), type_: Some("Directory".to_owned()) };
    Volume { name: name.to_owned(), host_path: Some(source), ..Volume::default() }
}

/// The name of the DaemonSet that cleans up.
pub(crate) const CLEANUP: &str = "isthmus-cleanup";
const COMPONENT: Option<&str> = Some("agent");
const CONFIG_DIR: &str = "/etc/isthmus/agent";
const LOCAL_TLS_DIR: &str = "/etc/isthmus/local";
pub(super) const REMOTE_TLS_DIR: &str = "/etc/isthmus/remote";
/// Where Cilium mounts them, so that a Secret in ClusterMesh's layout works as it is.
pub(super) const PEERS_DIR: &str = "/var/lib/cilium/clustermesh";
const CGROUP_DIR: &str = "/run/isthmus/cgroup";
const BPF_DIR: &str = "/sys/fs/bpf";
const PIN_DIR: &str = "/sys/fs/bpf/isthmus";
