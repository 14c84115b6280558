//! The Helm chart in `deploy/chart` and `meshctl install` give the same objects; values, schema and definitions of the chart
//! are those of `meshctl`. Helm itself is not run here: `template` has the part of its language that the chart uses.
//!
//! `UPDATE_CHART=1 cargo test -p meshctl --test chart` writes what is generated: schema, definitions, golden files.

mod template;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use meshctl::install::checked::Checked;
use meshctl::install::print::{Form, print};
use meshctl::install::render::{MANAGER, Object, Part, Target, definitions, render};
use meshctl::install::values::{Cloud, LogFormat, Profile, ServiceType, Values};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::template::Templates;

type Objects = BTreeMap<(String, String), Value>;

#[test]
fn the_files_of_values_are_the_defaults() {
    let file: Value = serde_yaml_ng::from_str(&read("values.yaml")).expect("YAML");
    assert_eq!(file, serde_json::to_value(Values::default()).expect("values"));
    let chart: Value = serde_yaml_ng::from_str(&read("Chart.yaml")).expect("YAML");
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn the_schema_is_that_of_the_values() {
    let schema = schemars::schema_for!(Values);
    let text = serde_json::to_string_pretty(&schema).expect("a schema") + "\n";
    generated("values.schema.json", &text);
}

#[test]
fn the_definitions_are_those_of_install() {
    let target = Target { namespace: "isthmus", manager: "Helm" };
    let mut expected: Vec<String> = Vec::new();
    for object in definitions(target) {
        let text = serde_yaml_ng::to_string(&object.value).expect("YAML");
        let name = format!("{}.yaml", object.name());
        generated(&format!("crds/{name}"), &text);
        expected.push(name);
    }
    let found = std::fs::read_dir(chart().join("crds")).map(|entries| {
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect()
    });
    let mut found: Vec<String> = found.unwrap_or_default();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn four_installations_as_yaml() {
    for (name, values) in samples() {
        let target = Target { namespace: "isthmus", manager: MANAGER };
        let objects = render(&Checked::new(values).expect("sound"), target);
        let text = print(&objects, Form::Yaml).expect("YAML");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.yaml"));
        held(&path, &text);
    }
}

#[test]
fn chart_and_install_give_the_same_for_samples() {
    for (name, values) in samples() {
        assert_eq!(of_chart(&values), of_install(&values), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn chart_and_install_give_the_same(values in any_values()) {
        prop_assert_eq!(of_chart(&values), of_install(&values));
    }
}

/// What the chart gives, by kind and name.
fn of_chart(values: &Values) -> Objects {
    let root =
        json!({"Values": values, "Release": {"Name": "isthmus", "Namespace": "mesh", "Service": "Helm"}});
    let mut templates = Templates::default();
    templates.define(&read("templates/_helpers.tpl")).expect("helpers");
    let mut objects = Objects::new();
    let mut files: Vec<_> = std::fs::read_dir(chart().join("templates"))
        .expect("templates")
        .map(|entry| entry.expect("entry").path())
        .collect();
    files.sort();
    for path in files {
        let file = path.file_name().and_then(|name| name.to_str()).expect("a name");
        let text = templates
            .render(&read(&format!("templates/{file}")), &root)
            .unwrap_or_else(|error| panic!("{file}: {error:#}"));
        if !file.ends_with(".yaml") {
            continue;
        }
        for document in serde_yaml_ng::Deserializer::from_str(&text) {
            let object: Value = serde::Deserialize::deserialize(document)
                .unwrap_or_else(|error| panic!("{file}: {error}\n{text}"));
            if !object.is_null() {
                insert(&mut objects, object);
            }
        }
    }
    objects
}

/// What install gives, but for what Helm keeps apart.
fn of_install(values: &Values) -> Objects {
    let checked = Checked::new(values.clone()).expect("sound values");
    let mut objects = Objects::new();
    let apart = |object: &Object| matches!(object.part, Part::Namespace | Part::Definition);
    for object in render(&checked, Target { namespace: "mesh", manager: "Helm" }) {
        if !apart(&object) {
            insert(&mut objects, object.value);
        }
    }
    objects
}

fn insert(objects: &mut Objects, object: Value) {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let key = (text(&object["kind"]), text(&object["metadata"]["name"]));
    let twice = objects.insert(key.clone(), object);
    assert_eq!(twice, None, "{key:?} is there twice");
}

fn samples() -> Vec<(&'static str, Values)> {
    let mut agents = Values::default();
    agents.cluster.name = "paris".to_owned();
    agents.cluster.id = 1;
    agents.image.registry = "registry.example/isthmus".to_owned();
    let mut cilium = agents.clone();
    cilium.profile = Profile::Cilium;
    cilium.hub.service.kind = ServiceType::NodePort;
    cilium.hub.service.node_port = 32_379;
    let mut agentless = agents.clone();
    agentless.profile = Profile::Agentless;
    agentless.cluster_peers.trust_secrets = vec!["tokyo-roots".to_owned()];
    let mut etcd = agents.clone();
    etcd.cluster.region = "eu-west".to_owned();
    etcd.hub.store.etcd =
        vec!["https://etcd-0.etcd.svc:2379".to_owned(), "https://etcd-1.etcd.svc:2379".to_owned()];
    etcd.hub.service.cloud = Cloud::Aws;
    etcd.hub.network_policy.clients = vec!["10.0.0.0/8".to_owned()];
    etcd.hub.network_policy.metrics_namespace = "monitoring".to_owned();
    etcd.agent.cgroup = "kubepods.slice".to_owned();
    vec![("agents", agents), ("cilium", cilium), ("agentless", agentless), ("etcd", etcd)]
}

fn any_values() -> impl Strategy<Value = Values> {
    let service = (
        prop::sample::select(vec![ServiceType::LoadBalancer, ServiceType::NodePort, ServiceType::ClusterIP]),
        prop::sample::select(vec![
            Cloud::None,
            Cloud::Aws,
            Cloud::Gcp,
            Cloud::Azure,
            Cloud::Alibaba,
            Cloud::Ibm,
            Cloud::Openstack,
            Cloud::Oracle,
        ]),
        prop::collection::btree_map(
            prop::sample::select(vec![
                "a.example/b".to_owned(),
                "networking.gke.io/load-balancer-type".to_owned(),
            ]),
            "[ -~]{0,12}",
            0..3,
        ),
        any::<bool>(),
    );
    let hub = (any::<[bool; 9]>(), service, 1..9_u16, "[a-z]{0,8}");
    let agent = (any::<[bool; 6]>(), prop::sample::select(vec!["1", "25%"]));
    let toleration = |key: &str| {
        let toleration =
            json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30});
        toleration.as_object().cloned().expect("a map")
    };
    (
        prop::sample::select(vec![Profile::Agent, Profile::Cilium, Profile::Agentless]),
        any::<bool>(),
        "[a-z][a-z0-9]{0,20}",
        1..256_u16,
        "[a-zA-Z0-9: -]{0,9}",
        hub,
        agent,
    )
        .prop_map(move |(profile, text, name, id, region, hub, agent)| {
            let mut values = Values { profile, ..Values::default() };
            if text {
                values.log_format = LogFormat::Text;
                values.image.pull_secrets = vec!["a".to_owned(), "1".to_owned()];
            }
            values.cluster.name = if name == "default" { "other".to_owned() } else { name };
            values.cluster.id = id;
            values.cluster.region = region;
            values.image.registry = "localhost:5000/i".to_owned();
            let (flags, (kind, cloud, annotations, port), replicas, class) = hub;
            let [etcd, policy, clients, metrics, ranges, selector, tolerations, bare, slices] = flags;
            values.hub.replicas = replicas;
            values.hub.store.storage_class = class;
            values.hub.service.kind = kind;
            values.hub.service.cloud = cloud;
            values.hub.service.annotations = annotations;
            if port && kind != ServiceType::ClusterIP {
                values.hub.service.node_port = 30_001;
            }
            values.hub.endpoint_slices = slices;
            if etcd {
                values.hub.store.etcd = vec!["https://[fd00::1]:2379".to_owned(), "https://b:1".to_owned()];
            }
            values.hub.network_policy.enabled = policy;
            if clients {
                values.hub.network_policy.clients = vec!["10.0.0.0/8".to_owned(), "fd00::/8".to_owned()];
            }
            if metrics {
                values.hub.network_policy.metrics_namespace = "monitoring".to_owned();
            }
            if ranges {
                values.hub.service.load_balancer_source_ranges = vec!["192.0.2.0/24".to_owned()];
            }
            if selector {
                values.hub.node_selector = [("a/b".to_owned(), "true".to_owned())].into_iter().collect();
            }
            if tolerations {
                values.hub.tolerations = vec![toleration("a"), toleration("b")];
            }
            if bare {
                values.hub.resources.limits.clear();
                values.hub.resources.requests = [("cpu".to_owned(), "1".to_owned())].into_iter().collect();
                values.hub.priority_class.clear();
                values.hub.bind_address = "0.0.0.0".to_owned();
            }
            values.cluster_peers.enabled = !text;
            if values.cluster_peers.enabled && etcd {
                values.cluster_peers.trust_secrets = vec!["roots".to_owned(), "2".to_owned()];
            }
            let ([cgroup, selector, tolerations, bare, unconfined, root], unavailable) = agent;
            values.agent.max_unavailable = unavailable.to_owned();
            if cgroup {
                values.agent.cgroup = "kubepods.slice/a".to_owned();
            }
            if selector {
                values.agent.node_selector = [("c".to_owned(), "1".to_owned())].into_iter().collect();
            }
            if tolerations {
                values.agent.tolerations.clear();
            }
            if bare {
                values.agent.resources.requests.clear();
                values.agent.priority_class.clear();
            }
            if unconfined {
                values.agent.seccomp_profile = "Unconfined".to_owned();
            }
            if root {
                values.agent.cgroup_root = "/sys/fs/cgroup/unified".to_owned();
            }
            values
        })
}

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/chart")
}

fn read(file: &str) -> String {
    let path = chart().join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn generated(file: &str, text: &str) {
    held(&chart().join(file), text);
}

/// Compares a file with what it should be, or writes it where the environment says so.
fn held(path: &Path, text: &str) {
    if std::env::var_os("UPDATE_CHART").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("make the folder");
        std::fs::write(path, text).expect("write");
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == text,
        "{} is not what is generated; UPDATE_CHART=1 writes it\n--- generated\n{text}",
        path.display()
    );
}
