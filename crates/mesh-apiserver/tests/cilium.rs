//! A cluster that runs Cilium: what its own clustermesh-apiserver publishes of CiliumIdentity, CiliumEndpoint and
//! CiliumNode objects, and ours is the same, byte by byte.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use mesh_apiserver::export::exporter::identity_range;
use mesh_apiserver::export::{Cluster, Delta, Exporter};
use mesh_apiserver::finding::Finding;
use mesh_apiserver::identity::{Allocator, Numbering};
use mesh_apiserver::index::Change;
use mesh_apiserver::object::cilium::{CiliumNode, RawEndpoint, RawIdentity};
use mesh_apiserver::object::{Body, Object};
use serde_json::{Value, json};
use topology::cluster::{ClusterId, MaxClusters};

fn exporter(name: &str, id: u32) -> Exporter {
    let cluster = Cluster {
        name: name.parse().expect("a name"),
        id: ClusterId::try_from(id).expect("an id"),
        max: MaxClusters::N255,
        global_namespaces: true,
    };
    let allocator = Allocator::new(identity_range(&cluster));
    let mut exporter = Exporter::new(cluster, allocator);
    assert!(exporter.number_by(Numbering::Cilium));
    exporter
}

fn object(value: Value) -> Object {
    fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).expect("an object of its kind")
    }
    let kind = value["kind"].as_str().expect("a kind").to_owned();
    let body = match kind.as_str() {
        "Namespace" => Body::Namespace(Arc::new(read::<Namespace>(value))),
        "CiliumNode" => Body::CiliumNode(Arc::new(read::<CiliumNode>(value))),
        "CiliumIdentity" => Body::CiliumIdentity(Arc::new(read::<RawIdentity>(value).into())),
        "CiliumEndpoint" => Body::CiliumEndpoint(Arc::new(read::<RawEndpoint>(value).into())),
        "Node" => Body::Node(Arc::new(read(value))),
        "Pod" => Body::Pod(Arc::new(read::<k8s_openapi::api::core::v1::Pod>(value).into())),
        other => panic!("{other}"),
    };
    Object::try_from(body).expect("sound names")
}

fn apply(exporter: &mut Exporter, objects: impl IntoIterator<Item = Value>) -> Delta {
    exporter.apply(objects.into_iter().map(|value| Change::Apply(object(value))))
}

fn delete(exporter: &mut Exporter, value: Value) {
    exporter.apply([Change::Delete(object(value).reference().clone())]);
}

fn records(exporter: &Exporter, prefix: &str) -> BTreeMap<String, String> {
    let text = |value: bytes::Bytes| String::from_utf8(value.to_vec()).expect("text");
    let records = exporter.desired().into_iter().filter(|(key, _)| key.starts_with(prefix));
    records.map(|(key, value)| (key, text(value))).collect()
}

fn endpoint(namespace: &str, name: &str, identity: u32, addresses: [&str; 2], node: &str) -> Value {
    json!({"kind": "CiliumEndpoint", "metadata": {"namespace": namespace, "name": name}, "status": {
        "identity": {"id": identity, "labels": ["k8s:app=x"]}, "service-account": "default", "state": "ready",
        "networking": {"addressing": [{"ipv4": addresses[0], "ipv6": addresses[1]}], "node": node}}})
}

fn identity(number: u32, namespace: &str, app: &str) -> Value {
    json!({"kind": "CiliumIdentity", "metadata": {"name": number.to_string()}, "security-labels": {
        "k8s:io.kubernetes.pod.namespace": namespace, "k8s:app": app, "k8s:io.cilium.k8s.policy.cluster": "cluster3"}})
}

/// The objects of the recording, and the records that stock made of them.
#[test]
fn records_are_those_that_stock_published() {
    let applied = concat!(
        r#"{"apiVersion":"cilium.io/v2","kind":"CiliumNode","metadata":{"annotations":{},"name":"n9"},"spec":{"addresses":"#,
        r#"[{"ip":"172.30.9.1","type":"InternalIP"},{"ip":"10.9.0.1","type":"CiliumInternalIP"}],"health":"#,
        r#"{"ipv4":"10.9.0.2"},"ipam":{"podCIDRs":["10.9.0.0/24"]}}}"#,
        "\n"
    );
    let mut node: Value = serde_json::from_str(applied).expect("the object as it was applied");
    node["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": applied});
    let mut exporter = exporter("north", 9);
    apply(
        &mut exporter,
        [
            node,
            // Neither is what it seems where Cilium runs.
            json!({"kind": "Node", "metadata": {"name": "n9"}, "spec": {"podCIDRs": ["10.77.0.0/24"]}}),
            json!({"kind": "Pod", "metadata": {"name": "cart-a", "namespace": "shop"},
                "status": {"podIPs": [{"ip": "10.77.0.5"}]}}),
            json!({"kind": "Namespace", "metadata": {"name": "shop"}}),
            json!({"kind": "CiliumIdentity", "metadata": {"name": "589825"}, "security-labels": {"k8s:app": "cart",
                "k8s:io.cilium.k8s.policy.cluster": "north", "k8s:io.kubernetes.pod.namespace": "shop"}}),
            json!({"kind": "CiliumEndpoint", "metadata": {"name": "cart-a", "namespace": "shop"}, "status": {
                "identity": {"id": 589_825}, "named-ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
                "networking": {"addressing": [{"ipv4": "10.9.0.5"}], "node": "172.30.9.1"}}}),
        ],
    );
    let ours = records(&exporter, "cilium/state/");
    let lines = include_str!("golden/apiserver-north.jsonl").lines();
    let recorded = lines.map(|line| serde_json::from_str::<Value>(line).expect("JSON lines"));
    let text = |entry: &Value, member: &str| entry[member].as_str().unwrap_or_default().to_owned();
    let recorded = recorded.map(|entry| (text(&entry, "key"), text(&entry, "value")));
    let kinds = ["cilium/state/nodes/", "cilium/state/identities/", "cilium/state/ip/"];
    let recorded = recorded.filter(|(key, _)| kinds.iter().any(|kind| key.starts_with(kind)));
    let recorded: BTreeMap<String, String> = recorded.collect();
    assert_eq!(recorded.len(), 3);
    assert_eq!(ours, recorded);
    assert_eq!(exporter.findings().collect::<Vec<_>>(), Vec::<&Finding>::new());
}

/// Health and ingress addresses, keys, several blocks; what is no address or block is left out, host bits are cut.
#[test]
fn a_node_with_everything() {
    let mut exporter = exporter("cluster3", 3);
    let node = json!({"kind": "CiliumNode",
        "metadata": {"name": "n1", "labels": {"zone": "a"}, "annotations": {"network.cilium.io/wg-pub-key": "a2V5"}},
        "spec": {"addresses": [{"type": "InternalIP", "ip": "172.18.0.2"}, {"type": "InternalIP", "ip": "nonsense"},
                {"type": "InternalIP", "ip": "fc00:C111:0::2"}],
            "bootid": "570d", "encryption": {"key": 7}, "health": {"ipv4": "10.244.0.134", "ipv6": "fd00::d812"},
            "ingress": {"ipv4": "10.244.0.200", "ipv6": "bad"},
            "ipam": {"podCIDRs": ["10.244.0.9/24", "fd00:10:244::/64", "10.245.0.0/24", "no"],
                "pools": {"allocated": [{"pool": "p", "cidrs": ["10.246.0.0/28"]}]}}}});
    apply(&mut exporter, [node]);
    let expected = concat!(
        r#"{"Name":"n1","Cluster":"cluster3","IPAddresses":[{"Type":"InternalIP","IP":"172.18.0.2"},"#,
        r#"{"Type":"InternalIP","IP":"fc00:c111::2"}],"IPv4AllocCIDR":{"IP":"10.244.0.0","Mask":"////AA=="},"#,
        r#""IPv4SecondaryAllocCIDRs":[{"IP":"10.245.0.0","Mask":"////AA=="},{"IP":"10.246.0.0","Mask":"////8A=="}],"#,
        r#""IPv6AllocCIDR":{"IP":"fd00:10:244::","Mask":"//////////8AAAAAAAAAAA=="},"IPv6SecondaryAllocCIDRs":null,"#,
        r#""IPv4HealthIP":"10.244.0.134","IPv6HealthIP":"fd00::d812","IPv4IngressIP":"10.244.0.200","IPv6IngressIP":"","#,
        r#""ClusterID":3,"Source":"custom-resource","EncryptionKey":7,"Labels":{"zone":"a"},"#,
        r#""Annotations":{"network.cilium.io/wg-pub-key":"a2V5"},"WireguardPubKey":"a2V5","BootID":"570d"}"#,
    );
    let nodes = records(&exporter, "cilium/state/nodes/");
    assert_eq!(
        nodes,
        BTreeMap::from([("cilium/state/nodes/v1/cluster3/n1".to_owned(), expected.to_owned())])
    );
}

/// The rules that stock's own tests of endpoints assert.
#[test]
fn endpoints_come_change_and_share_an_address() {
    let mut exporter = exporter("cluster3", 3);
    let mut second =
        endpoint("bar", "cep-002", 199_475, ["10.244.2.74", "fd00:10:244:2::e024"], "172.18.0.2");
    second["status"]["encryption"] = json!({"key": 5});
    second["status"]["named-ports"] = json!([{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
    apply(
        &mut exporter,
        [endpoint("foo", "cep-001", 199_472, ["10.244.1.79", "fd00:10:244:1::d643"], "172.18.0.3"), second],
    );
    let ips = |exporter: &Exporter| records(exporter, "cilium/state/ip/v1/default/");
    let key = |address: &str| format!("cilium/state/ip/v1/default/{address}");
    let found = ips(&exporter);
    assert_eq!(found.len(), 4);
    assert_eq!(
        found[&key("10.244.2.74")],
        concat!(
            r#"{"IP":"10.244.2.74","Mask":null,"HostIP":"172.18.0.2","ID":199475,"Key":5,"Metadata":"","#,
            r#""K8sNamespace":"bar","K8sPodName":"cep-002","K8sServiceAccount":"default","NamedPorts":"#,
            r#"[{"Name":"http","Port":8080,"Protocol":"TCP"},{"Name":"dns","Port":53,"Protocol":"UDP"}]}"#
        )
    );
    // Another address, and one family less; another identity with the same addresses.
    apply(&mut exporter, [endpoint("foo", "cep-001", 199_472, ["10.244.1.80", ""], "172.18.0.3")]);
    assert_eq!(ips(&exporter).len(), 3);
    let delta =
        apply(&mut exporter, [endpoint("foo", "cep-001", 199_473, ["10.244.1.80", ""], "172.18.0.3")]);
    assert_eq!(delta.puts.keys().collect::<Vec<_>>(), [&key("10.244.1.80")]);
    assert!(ips(&exporter)[&key("10.244.1.80")].contains(r#""ID":199473,"#));
    // Two claim an address: one has it, and the other gets it when the first is gone.
    let third = endpoint("foo", "cep-003", 199_472, ["10.244.2.91", "fd00::3"], "172.18.0.2");
    let fourth = endpoint("foo", "cep-004", 199_479, ["10.244.2.91", "fd00::4"], "172.18.0.3");
    apply(&mut exporter, [third.clone()]);
    apply(&mut exporter, [fourth]);
    assert!(ips(&exporter)[&key("10.244.2.91")].contains("cep-003"));
    assert_eq!(exporter.findings().count(), 1);
    delete(&mut exporter, third);
    assert!(ips(&exporter)[&key("10.244.2.91")].contains("cep-004"));
    assert_eq!(exporter.findings().count(), 0);
    // A namespace that takes no part.
    let home = json!({"clustermesh.cilium.io/global": "false"});
    apply(&mut exporter, [json!({"kind": "Namespace", "metadata": {"name": "foo", "annotations": home}})]);
    assert!(
        ips(&exporter).values().all(|value| value.contains(r#""K8sNamespace":"bar""#)),
        "{:#?}",
        ips(&exporter)
    );
    // One that is not networked yet, and one without an identity.
    let bare =
        json!({"kind": "CiliumEndpoint", "metadata": {"namespace": "bar", "name": "new"}, "status": null});
    let mut unknown = endpoint("bar", "unknown", 0, ["10.244.2.99", ""], "");
    unknown["status"]["identity"] = Value::Null;
    apply(&mut exporter, [bare, unknown]);
    assert!(ips(&exporter)[&key("10.244.2.99")].contains(r#""HostIP":"","ID":0,"#), "{:#?}", ips(&exporter));
}

#[test]
fn identities_are_those_of_cilium_and_of_this_cluster() {
    let mut exporter = exporter("cluster3", 3);
    let ids = |exporter: &Exporter| records(exporter, "cilium/state/identities/v1/id/");
    let key = |number: u32| format!("cilium/state/identities/v1/id/{number}");
    apply(&mut exporter, [identity(196_915, "bar", "baz"), identity(199_472, "foo", "baz")]);
    let value = "k8s:app=baz;k8s:io.cilium.k8s.policy.cluster=cluster3;k8s:io.kubernetes.pod.namespace=bar;";
    assert_eq!(ids(&exporter)[&key(196_915)], value);
    apply(&mut exporter, [identity(196_915, "bar", "fred"), identity(214_794, "bar", "baz")]);
    assert_eq!((ids(&exporter).len(), &ids(&exporter)[&key(214_794)][..]), (3, value));
    delete(&mut exporter, identity(199_472, "foo", "baz"));
    assert_eq!(ids(&exporter).len(), 2);
    // Without labels it is left out; of another cluster too, and that is said once.
    let bare = json!({"kind": "CiliumIdentity", "metadata": {"name": "196916"}, "security-labels": {}});
    apply(&mut exporter, [bare, identity(70_000, "bar", "x"), identity(70_001, "bar", "y")]);
    assert_eq!(ids(&exporter).len(), 2);
    let findings: Vec<String> = exporter.findings().map(ToString::to_string).collect();
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert!(findings[0].contains("70000") && findings[0].contains("196608 to 262143"), "{findings:#?}");
    // Namespaces count by the label that names them.
    let home = json!({"clustermesh.cilium.io/global": "false"});
    let namespace =
        |name: &str| json!({"kind": "Namespace", "metadata": {"name": name, "annotations": home}});
    apply(&mut exporter, [namespace("foo")]);
    assert_eq!(ids(&exporter).len(), 2);
    apply(&mut exporter, [namespace("bar")]);
    assert_eq!(ids(&exporter).len(), 0);
    delete(&mut exporter, identity(70_000, "bar", "x"));
    delete(&mut exporter, identity(70_001, "bar", "y"));
    assert_eq!(exporter.findings().count(), 0);
}

/// Cilium comes to a cluster that had another network: its objects take over in one step.
#[test]
fn cilium_takes_over() {
    let mut exporter = exporter("cluster3", 3);
    exporter.number_by(Numbering::Store);
    let pod = json!({"kind": "Pod", "metadata": {"name": "a", "namespace": "bar", "labels": {"app": "a"}},
        "status": {"podIPs": [{"ip": "10.1.0.1"}]}});
    apply(&mut exporter, [pod, endpoint("bar", "a", 196_700, ["10.2.0.1", ""], "172.18.0.2")]);
    apply(&mut exporter, [identity(196_700, "bar", "a")]);
    let all = |exporter: &Exporter| records(exporter, "cilium/state/").into_keys().collect::<Vec<_>>();
    assert_eq!(
        all(&exporter),
        ["cilium/state/identities/v1/id/196609", "cilium/state/ip/v1/default/10.1.0.1"]
    );
    exporter.number_by(Numbering::Cilium);
    let delta = exporter.apply([]);
    assert_eq!((delta.puts.len(), delta.deletes.len()), (2, 2), "{delta:?}");
    assert_eq!(
        all(&exporter),
        ["cilium/state/identities/v1/id/196700", "cilium/state/ip/v1/default/10.2.0.1"]
    );
}
