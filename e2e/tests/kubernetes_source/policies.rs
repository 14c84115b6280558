//! Policies are looked at and counted, and nothing waits for them.

use anyhow::{Result, ensure};
use e2e::kube_api::{Fault, Requests, SmallOptions};
use e2e::status::{expect_finding, has_finding};
use serde_json::{Value, json};

use super::cilium::definition;
use super::ground::{Ground, Hub};
use super::objects::cluster;
use super::{SERVICES, has};

fn policy(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name, "namespace": "shop"},
        "spec": spec})
}

fn of_cilium(kind: &str, name: &str, spec: Value) -> Value {
    let mut object =
        json!({"apiVersion": "cilium.io/v2", "kind": kind, "metadata": {"name": name}, "spec": spec});
    if kind == "CiliumNetworkPolicy" {
        object["metadata"]["namespace"] = json!("shop");
    }
    object
}

/// Waits until the status shows so many sound policies of a kind.
async fn counts(hub: &Hub, kind: &str, number: usize) -> Result<()> {
    hub.shows("the number of policies", |status| {
        let shown = &status["source"]["kinds"][kind];
        ensure!(shown["objects"] == number && shown["listed"] == true, "{kind}: {shown}, expected {number}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn they_are_counted_and_a_broken_one_is_named() -> Result<()> {
    let ground = Ground::small(SmallOptions::default()).await?;
    ground
        .apply([
            definition("CiliumNetworkPolicy", "ciliumnetworkpolicies", "Namespaced", "v2"),
            definition("CiliumClusterwideNetworkPolicy", "ciliumclusterwidenetworkpolicies", "Cluster", "v2"),
        ])
        .await?;
    ground.load(cluster())?;
    let broken = json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/99"}}]}]});
    ground.load([
        policy("closed", json!({"podSelector": {}, "policyTypes": ["Ingress"]})),
        policy("broken", broken),
        of_cilium(
            "CiliumNetworkPolicy",
            "moon",
            json!({"endpointSelector": {}, "ingress": [{"fromEntities": ["moon"]}]}),
        ),
        of_cilium(
            "CiliumClusterwideNetworkPolicy",
            "nodes",
            json!({"nodeSelector": {}, "ingress": [{"fromEntities": ["cluster"]}]}),
        ),
    ])?;
    let hub = ground.hub("policies")?;
    hub.ready().await?;
    has(&hub.records().await?, &format!("{SERVICES}cart"))?;
    counts(&hub, "NetworkPolicy", 1).await?;
    counts(&hub, "CiliumNetworkPolicy", 0).await?;
    counts(&hub, "CiliumClusterwideNetworkPolicy", 1).await?;
    hub.shows("the findings", |status| {
        let place = [
            "document-invalid",
            "NetworkPolicy shop/broken",
            "spec.ingress[0].from[0].ipBlock.cidr",
            "10.0.0.0/99",
        ];
        expect_finding(&status["findings"], &place)?;
        expect_finding(&status["findings"], &["document-invalid", "CiliumNetworkPolicy shop/moon", "moon"])
    })
    .await?;
    let mended = json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]});
    ground.load([policy("broken", mended)])?;
    ground.delete(&of_cilium("CiliumNetworkPolicy", "moon", json!({}))).await?;
    counts(&hub, "NetworkPolicy", 2).await?;
    hub.shows("no finding", |status| {
        ensure!(!has_finding(&status["findings"], &["document-invalid"]), "{:#}", status["findings"]);
        Ok(())
    })
    .await?;
    let metrics = hub.page("/metrics").await?;
    let line = r#"mesh_apiserver_source_objects{kind="NetworkPolicy"} 2"#;
    ensure!(metrics.lines().any(|found| found == line), "no {line} in {metrics}");
    ground.nothing_unsupported()
}

/// Without the right to read them nothing else is missing.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_waits_for_them() -> Result<()> {
    let ground = Ground::small(SmallOptions::default()).await?;
    ground.load(cluster())?;
    for verb in ["list", "watch"] {
        ground.inject(Fault::Deny { only: Requests::of(verb, "networkpolicies.networking.k8s.io") });
    }
    let hub = ground.hub("denied-policies")?;
    hub.ready().await?;
    has(&hub.records().await?, &format!("{SERVICES}cart"))?;
    let rule = "resources: [networkpolicies], verbs: [list, watch]";
    hub.shows("the finding", |status| {
        expect_finding(&status["findings"], &["source-denied", rule, "neither counted nor checked"])
    })
    .await?;
    ground.inject(Fault::Clear);
    ground.load([policy("late", json!({"podSelector": {}}))])?;
    counts(&hub, "NetworkPolicy", 1).await
}
