use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};
use topology::ServiceName;
use topology::record::local::{LocalBackend, ServicePort};
use topology::record::service::RemoteService;

use super::*;
use crate::export::annotation::Sharing;
use crate::export::local;

/// A service of namespace `shop`, with annotations and `spec`, and own backends at these addresses, port 8080.
fn service(annotations: &Value, spec: &Value, own: &[&str]) -> GlobalService {
    let object: Service = serde_json::from_value(json!({
        "metadata": {"name": "cart", "namespace": "shop", "annotations": annotations}, "spec": spec,
    }))
    .expect("a service");
    let sharing = Sharing::of(&object, "", &mut Vec::new());
    let name: ServiceName = "shop/cart".parse().expect("a name");
    let mut local = local::value(name, &object, sharing, true, std::iter::empty(), &mut Vec::new());
    local.backends = own
        .iter()
        .map(|address| LocalBackend {
            address: address.parse().expect("an address"),
            port: 8080,
            protocol: Protocol::Tcp,
            port_names: vec!["http".to_owned()],
            node: None,
            zone: None,
            terminating: false,
        })
        .collect();
    GlobalService { object: Arc::new(object), local }
}

fn backend(address: &str, port: u16, names: &[&str]) -> RemoteBackend {
    RemoteBackend {
        address: address.parse().expect("an address"),
        port,
        protocol: Protocol::Tcp,
        port_names: names.iter().map(|name| (*name).to_owned()).collect(),
        zone: None,
        hostname: None,
    }
}

fn peers(backends: &[(&str, Vec<RemoteBackend>)]) -> Peers {
    let member = |(name, backends): &(&str, Vec<RemoteBackend>)| {
        let cluster: ClusterName = name.parse().expect("a name");
        let mut member = Member::unknown(cluster.clone());
        let service =
            RemoteService { name: "shop/cart".parse().expect("a name"), backends: backends.clone() };
        member.services.insert(service.name.clone(), Arc::new(service));
        (cluster, Some(Arc::new(member)))
    };
    backends.iter().map(member).collect()
}

/// The endpoints as `cluster address name:port[,…]` lines, and the number of findings.
fn lines(profile: Profile, service: &GlobalService, peers: &Peers) -> (Vec<String>, usize) {
    let mut findings = Vec::new();
    let wanted = wanted(profile, service, peers, &mut findings);
    let mut lines = Vec::new();
    for (group, endpoints) in wanted {
        let ports: Vec<String> =
            group.ports.iter().map(|(name, (_, port))| format!("{name}:{port}")).collect();
        lines.extend(endpoints.keys().map(|a| format!("{} {a} {}", group.cluster, ports.join(","))));
    }
    (lines, findings.len())
}

fn http() -> Value {
    json!({"clusterIP": "10.96.0.1", "ports": [{"name": "http", "port": 80}]})
}

#[test]
fn which_services_are_mirrored() {
    let (global, alias, sync) = (
        "service.cilium.io/global",
        "io.cilium/global-service",
        "service.cilium.io/global-sync-endpoint-slices",
    );
    let headless = json!({"clusterIP": "None", "ports": []});
    // Annotations, headless, with agents, agentless.
    let rows = [
        (json!({global: "true"}), false, false, true),
        (json!({global: "true"}), true, true, true),
        (json!({global: "True", sync: "TRUE"}), false, true, true),
        (json!({global: "true", sync: "false"}), true, false, false),
        (json!({global: "true", sync: "yes"}), true, false, false),
        // The older name makes a service global, but does not count for slices.
        (json!({alias: "true", sync: "true"}), false, false, true),
        (json!({alias: "true"}), true, false, true),
    ];
    for (annotations, is_headless, agents, agentless) in rows {
        let spec = if is_headless { headless.clone() } else { http() };
        let service = service(&annotations, &spec, &[]);
        assert_eq!(is_mirrored(Profile::Agents, &service), agents, "{annotations} {is_headless}");
        assert_eq!(is_mirrored(Profile::Agentless, &service), agentless, "{annotations} {is_headless}");
    }
}

#[test]
fn ports_have_the_names_of_the_service() {
    let ports = |ports: Value| service(&json!({}), &json!({"clusterIP": "None", "ports": ports}), &[]);
    let offered = peers(&[(
        "tokyo",
        vec![
            backend("10.2.0.1", 8080, &["http", "web"]),
            backend("10.2.0.1", 9090, &["metrics"]),
            backend("10.2.0.2", 8081, &[]),
        ],
    )]);
    let found = |service: GlobalService| lines(Profile::Agents, &service, &offered).0;
    let named = ports(json!([{"name": "http", "port": 80}]));
    assert_eq!(found(named), ["tokyo 10.2.0.1 http:8080", "tokyo 10.2.0.2 http:8081"]);
    let two = ports(json!([{"name": "http", "port": 80}, {"name": "metrics", "port": 81}]));
    assert_eq!(
        found(two),
        ["tokyo 10.2.0.1 http:8080,metrics:9090", "tokyo 10.2.0.2 http:8081,metrics:8081"]
    );
    // Two ports of one name are in two slices: a slice's names are unique.
    let unnamed = ports(json!([{"port": 80}]));
    assert_eq!(found(unnamed), ["tokyo 10.2.0.1 :8080", "tokyo 10.2.0.2 :8081", "tokyo 10.2.0.1 :9090"]);
    let none = ports(json!([]));
    assert_eq!(found(none), ["tokyo 10.2.0.2 :8081", "tokyo 10.2.0.1 http:8080,metrics:9090,web:8080"]);
}

#[test]
fn addresses_that_an_api_server_refuses_are_left_out() {
    let all = [
        "127.0.0.1",
        "0.0.0.0",
        "169.254.1.1",
        "224.0.0.1",
        "::1",
        "fe80::1",
        "ff02::1",
        "10.2.0.1",
        "fd00::1",
    ];
    let offered = peers(&[("tokyo", all.iter().map(|address| backend(address, 80, &["http"])).collect())]);
    let service =
        service(&json!({}), &json!({"clusterIP": "None", "ports": [{"name": "http", "port": 80}]}), &[]);
    let (found, odd) = lines(Profile::Agents, &service, &offered);
    assert_eq!(found, ["tokyo 10.2.0.1 http:80", "tokyo fd00::1 http:80"]);
    assert_eq!(odd, 7);
}

#[test]
fn families_are_those_of_the_service() {
    let offered =
        peers(&[("tokyo", vec![backend("10.2.0.1", 80, &["http"]), backend("fd00::1", 80, &["http"])])]);
    let v4 = "tokyo 10.2.0.1 http:80".to_owned();
    let v6 = "tokyo fd00::1 http:80".to_owned();
    let supported = "clustermesh.cilium.io/supported-ip-families";
    let rows = [
        (json!({}), json!(["IPv4"]), vec![v4.clone()]),
        (json!({}), json!(["IPv6", "IPv4"]), vec![v4.clone(), v6.clone()]),
        (json!({}), json!(null), vec![v4.clone(), v6.clone()]),
        (json!({supported: "IPv6"}), json!(["IPv4", "IPv6"]), vec![v6.clone()]),
        (json!({supported: "IPv5"}), json!(["IPv4"]), vec![v4.clone()]),
    ];
    for (annotations, families, expected) in rows {
        let spec =
            json!({"clusterIP": "None", "ipFamilies": families, "ports": [{"name": "http", "port": 80}]});
        let service = service(&annotations, &spec, &[]);
        assert_eq!(lines(Profile::Agents, &service, &offered).0, expected, "{annotations} {families}");
    }
}

#[test]
fn without_agents_affinity_decides() {
    let offered = peers(&[("tokyo", vec![backend("10.2.0.1", 80, &["http"])])]);
    let remote = vec!["tokyo 10.2.0.1 http:80".to_owned()];
    // Affinity, own backends, what is in slices, findings.
    let rows = [
        ("none", 1, &remote[..], 0),
        ("local", 1, &[], 0),
        ("local", 0, &remote, 0),
        ("remote", 0, &remote, 0),
        // The own slices cannot be taken away.
        ("remote", 1, &remote, 1),
    ];
    for (affinity, own, expected, odd) in rows {
        let annotations = json!({"service.cilium.io/global": "true", "service.cilium.io/affinity": affinity});
        let service = service(&annotations, &http(), &["10.1.0.1"][..own]);
        let found = lines(Profile::Agentless, &service, &offered);
        assert_eq!((&found.0[..], found.1), (expected, odd), "{affinity} {own}");
        // With agents, which select themselves, all are written.
        assert_eq!(lines(Profile::Agents, &service, &offered).0, remote, "{affinity} {own}");
    }
    let port = ServicePort { name: "http".to_owned(), protocol: Protocol::Tcp, port: 80 };
    let here = service(&json!({"service.cilium.io/global": "true"}), &http(), &["10.2.0.1"]);
    assert_eq!(here.local.ports, [port]);
    // An address that is the own cluster's, too, is its own: but for the port, which differs.
    let (found, _) =
        lines(Profile::Agentless, &here, &peers(&[("tokyo", vec![backend("10.2.0.1", 8080, &["http"])])]));
    assert_eq!(found, [""; 0]);
}
