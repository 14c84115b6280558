//! A hub of a cluster that runs Cilium.

use anyhow::{Result, ensure};
use e2e::kube_api::{Fault, KubeApi, Requests, SmallOptions};
use e2e::status::{expect_finding, has_finding};
use serde_json::{Value, json};

use super::ground::{Ground, Records};
use super::objects::{cluster, pod, service};
use super::{ADDRESSES, SERVICES, has, lacks};

const IDENTITIES: &str = "cilium/state/identities/v1/id/";

/// The definitions of Cilium, as far as they matter: any content.
fn definitions() -> Vec<Value> {
    let kinds = [
        ("CiliumIdentity", "ciliumidentities", "Cluster"),
        ("CiliumEndpoint", "ciliumendpoints", "Namespaced"),
        ("CiliumNode", "ciliumnodes", "Cluster"),
    ];
    kinds.map(|(kind, plural, scope)| definition(kind, plural, scope, "v2")).to_vec()
}

/// A definition of Cilium's group: any content.
pub(crate) fn definition(kind: &str, plural: &str, scope: &str, version: &str) -> Value {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let below = if kind == "CiliumEndpoint" { json!({"status": {}}) } else { json!({}) };
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.cilium.io")},
        "spec": {"group": "cilium.io", "scope": scope, "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind},
            "versions": [{"name": version, "served": true, "storage": true,
                "subresources": below, "schema": {"openAPIV3Schema": schema}}]}})
}

fn identity(number: u32, app: &str) -> Value {
    json!({"apiVersion": "cilium.io/v2", "kind": "CiliumIdentity", "metadata": {"name": number.to_string()},
        "security-labels": {"k8s:app": app, "k8s:io.cilium.k8s.policy.cluster": "paris",
            "k8s:io.kubernetes.pod.namespace": "shop"}})
}

fn endpoint(name: &str, number: u32, address: &str) -> Value {
    json!({"apiVersion": "cilium.io/v2", "kind": "CiliumEndpoint", "metadata": {"name": name, "namespace": "shop"},
        "status": {"id": 7, "identity": {"id": number}, "networking": {"addressing": [{"ipv4": address}], "node": "172.30.1.1"},
            "encryption": {"key": 3}, "service-account": "default", "state": "ready",
            "named-ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]}})
}

fn packed(name: &str, endpoints: &[(&str, u32, &str)]) -> Value {
    let one = |(name, number, address): &(&str, u32, &str)| {
        json!({"name": name, "id": number, "service-account": "default", "encryption": {"key": 3},
            "networking": {"addressing": [{"ipv4": address}], "node": "172.30.1.1"},
            "named-ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]})
    };
    json!({"apiVersion": "cilium.io/v2alpha1", "kind": "CiliumEndpointSlice", "metadata": {"name": name},
        "namespace": "shop", "endpoints": endpoints.iter().map(one).collect::<Vec<_>>()})
}

fn cilium_node(number: u8) -> Value {
    json!({"apiVersion": "cilium.io/v2", "kind": "CiliumNode", "metadata": {"name": format!("n{number}"), "labels": {"zone": "a"}},
        "spec": {"addresses": [{"type": "InternalIP", "ip": format!("172.30.1.{number}")}, {"type": "CiliumInternalIP", "ip": "10.7.0.1"}],
            "encryption": {"key": 3}, "health": {"ipv4": "10.7.0.2"}, "ingress": {"ipv4": "10.7.0.3"},
            "ipam": {"podCIDRs": ["10.7.0.0/24"]}, "bootid": "b"}})
}

fn objects() -> Vec<Value> {
    vec![
        identity(65_600, "cart"),
        identity(65_601, "cash"),
        endpoint("cart-0", 65_600, "10.7.0.10"),
        endpoint("cash-0", 65_601, "10.7.0.11"),
        cilium_node(1),
    ]
}

fn value(records: &Records, key: &str) -> String {
    records.get(key).map(|record| record.value.clone()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn its_identities_endpoints_and_nodes_are_published() -> Result<()> {
    let ground = Ground::over(KubeApi::start().await?)?;
    ground.apply(definitions()).await?;
    let file = include_str!("../../../deploy/crds/meshidentities.isthmus.dev.yaml");
    ground.apply([serde_yaml_ng::from_str(file)?]).await?;
    ground.apply(cluster()).await?;
    ground.apply(objects()).await?;
    let mut hub = ground.hub("cilium")?;
    hub.ready().await?;
    let records =
        hub.publishes("endpoints", |records| has(records, &format!("{ADDRESSES}10.7.0.10"))).await?;
    let expected = concat!(
        r#"{"IP":"10.7.0.10","Mask":null,"HostIP":"172.30.1.1","ID":65600,"Key":3,"Metadata":"","K8sNamespace":"shop","#,
        r#""K8sPodName":"cart-0","K8sServiceAccount":"default","NamedPorts":[{"Name":"http","Port":8080,"Protocol":"TCP"}]}"#
    );
    assert_eq!(value(&records, &format!("{ADDRESSES}10.7.0.10")), expected);
    let labels = "k8s:app=cart;k8s:io.cilium.k8s.policy.cluster=paris;k8s:io.kubernetes.pod.namespace=shop;";
    assert_eq!(value(&records, &format!("{IDENTITIES}65600")), labels);
    let node = value(&records, "cilium/state/nodes/v1/paris/n1");
    for part in [
        r#""IPv4HealthIP":"10.7.0.2""#,
        r#""IPv4IngressIP":"10.7.0.3""#,
        r#""EncryptionKey":3"#,
        "CiliumInternalIP",
    ] {
        ensure!(node.contains(part), "no {part} in {node}");
    }
    // Nothing of its own: neither pods, nor nodes that Cilium does not have, nor numbers.
    lacks(&records, &format!("{ADDRESSES}10.1.1.1"))?;
    lacks(&records, "cilium/state/nodes/v1/paris/n2")?;
    has(&records, &format!("{SERVICES}cart"))?;
    assert_eq!(records.keys().filter(|key| key.starts_with(IDENTITIES)).count(), 2);
    let ours = ground.objects("isthmus.dev", "v1alpha1", "MeshIdentity", "meshidentities").await?;
    ensure!(ours.is_empty(), "{ours:#?}");
    hub.shows("what it follows", |status| {
        ensure!(
            status["identities"]["keptBy"] == "cilium" && status["identities"]["inUse"] == 2,
            "{}",
            status["identities"]
        );
        let kinds = &status["source"]["kinds"];
        ensure!(kinds["CiliumEndpoint"]["objects"] == 2 && kinds["Pod"].is_null(), "{kinds}");
        Ok(())
    })
    .await?;
    // Changes, and a restart.
    ground.apply([endpoint("cart-0", 65_601, "10.7.0.12"), cilium_node(2)]).await?;
    ground.delete(&endpoint("cash-0", 0, "")).await?;
    let records = hub.publishes("the changes", |records| {
        has(records, &format!("{ADDRESSES}10.7.0.12"))?;
        has(records, "cilium/state/nodes/v1/paris/n2")?;
        lacks(records, &format!("{ADDRESSES}10.7.0.11"))
    });
    let records = records.await?;
    lacks(&records, &format!("{ADDRESSES}10.7.0.10"))?;
    hub.kill().await?;
    hub.start()?;
    hub.ready().await?;
    assert_eq!(hub.records().await?, records);
    ground.nothing_unsupported()
}

/// An operator knows better: an earlier Cilium left its kinds behind.
#[tokio::test(flavor = "multi_thread")]
async fn its_kinds_can_be_left_alone() -> Result<()> {
    let ground = Ground::small(SmallOptions::default()).await?;
    ground.apply(definitions()).await?;
    ground.load(cluster())?;
    ground.load(objects())?;
    let hub = ground.hub_with("off", ["--cilium=off"])?;
    hub.ready().await?;
    let records = hub.records().await?;
    has(&records, &format!("{ADDRESSES}10.1.1.1"))?;
    lacks(&records, &format!("{ADDRESSES}10.7.0.10"))?;
    let requests = ground.server().requests();
    ensure!(requests.count("list ciliumendpoints.cilium.io") == 0, "{requests:?}");
    ground.nothing_unsupported()
}

/// Cilium's kinds may not be read: what needs them is not touched, and nothing is made up instead.
#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_read_is_not_replaced_by_own_numbers() -> Result<()> {
    let ground = Ground::small(SmallOptions::default()).await?;
    ground.apply(definitions()).await?;
    ground.load(cluster())?;
    ground.load(objects())?;
    for verb in ["list", "watch"] {
        for plural in ["ciliumidentities", "ciliumendpoints"] {
            ground.inject(Fault::Deny { only: Requests::of(verb, &format!("{plural}.cilium.io")) });
        }
    }
    let hub = ground.hub("denied")?;
    hub.shows("the findings", |status| {
        expect_finding(
            &status["findings"],
            &["source-denied", "resources: [ciliumidentities], verbs: [list, watch]"],
        )?;
        expect_finding(
            &status["findings"],
            &["source-denied", "resources: [ciliumendpoints], verbs: [list, watch]"],
        )
    })
    .await?;
    ground.load([service("more", "10.96.1.50"), pod("late", "late", "10.1.1.201")])?;
    let records = hub.publishes("services", |records| has(records, &format!("{SERVICES}more"))).await?;
    ensure!(
        !records.keys().any(|key| key.starts_with(ADDRESSES) || key.starts_with(IDENTITIES)),
        "{records:#?}"
    );
    ensure!(hub.page("/readyz").await.is_err(), "ready without any endpoint known");
    ground.inject(Fault::Clear);
    hub.ready().await?;
    hub.publishes("endpoints", |records| has(records, &format!("{ADDRESSES}10.7.0.10"))).await?;
    hub.shows("no finding", |status| {
        ensure!(!has_finding(&status["findings"], &["source-denied"]), "still denied");
        Ok(())
    })
    .await
}

/// Cilium comes while the hub runs: what it has takes over at once when all of it is known.
#[tokio::test(flavor = "multi_thread")]
async fn it_may_come_later() -> Result<()> {
    let ground = Ground::small(SmallOptions::default()).await?;
    ground.load(cluster())?;
    let hub = ground.hub("later")?;
    hub.ready().await?;
    has(&hub.records().await?, &format!("{ADDRESSES}10.1.1.1"))?;
    ground.apply(definitions()).await?;
    ground.load(objects())?;
    let records =
        hub.publishes("endpoints", |records| has(records, &format!("{ADDRESSES}10.7.0.10"))).await?;
    lacks(&records, &format!("{ADDRESSES}10.1.1.1"))?;
    assert_eq!(records.keys().filter(|key| key.starts_with(IDENTITIES)).count(), 2);
    ground.nothing_unsupported()
}

/// Where its operator packs endpoints together: what slices alone tell of is published as its own object would be.
#[tokio::test(flavor = "multi_thread")]
async fn endpoints_in_slices_are_published_too() -> Result<()> {
    let ground = Ground::over(KubeApi::start().await?)?;
    ground.apply(definitions()).await?;
    ground.apply([definition("CiliumEndpointSlice", "ciliumendpointslices", "Cluster", "v2alpha1")]).await?;
    ground.apply(cluster()).await?;
    let identities = [identity(65_600, "cart"), identity(65_601, "cash")];
    ground
        .apply(identities.into_iter().chain([cilium_node(1), endpoint("cart-0", 65_600, "10.7.0.10")]))
        .await?;
    let (cart, cash, late) =
        (("cart-0", 65_601, "10.7.0.99"), ("cash-0", 65_601, "10.7.0.11"), ("late-0", 65_600, "10.7.0.12"));
    ground.apply([packed("ces-a", &[cart, cash])]).await?;
    let mut hub = ground.hub("slices")?;
    hub.ready().await?;
    let first = hub.publishes("both", |records| {
        has(records, &format!("{ADDRESSES}10.7.0.10"))?;
        has(records, &format!("{ADDRESSES}10.7.0.11"))
    });
    let first = first.await?;
    lacks(&first, &format!("{ADDRESSES}10.7.0.99"))?;
    let expected = concat!(
        r#"{"IP":"10.7.0.11","Mask":null,"HostIP":"172.30.1.1","ID":65601,"Key":3,"Metadata":"","K8sNamespace":"shop","#,
        r#""K8sPodName":"cash-0","K8sServiceAccount":"default","NamedPorts":[{"Name":"http","Port":8080,"Protocol":"TCP"}]}"#
    );
    assert_eq!(value(&first, &format!("{ADDRESSES}10.7.0.11")), expected);

    // It moves to another slice: no record changes for it.
    ground.apply([packed("ces-b", &[cash, late]), packed("ces-a", &[])]).await?;
    let second =
        hub.publishes("what is new", |records| has(records, &format!("{ADDRESSES}10.7.0.12"))).await?;
    let moved = format!("{ADDRESSES}10.7.0.11");
    assert_eq!(second.get(&moved), first.get(&moved));
    // The object of its own is gone, and no slice tells of it.
    ground.delete(&endpoint("cart-0", 0, "")).await?;
    ground.apply([packed("ces-b", &[late])]).await?;
    let third = hub.publishes("what is gone", |records| {
        lacks(records, &format!("{ADDRESSES}10.7.0.10"))?;
        lacks(records, &moved)
    });
    let third = third.await?;
    hub.kill().await?;
    hub.start()?;
    hub.ready().await?;
    assert_eq!(hub.records().await?, third);
    ground.nothing_unsupported()
}
