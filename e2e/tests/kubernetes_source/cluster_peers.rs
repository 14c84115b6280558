//! Peers as custom resources: what a peer is shown, what the agents get, and what each object says became of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::eventually;
use e2e::kube_api::{Fault, KubeApi, Requests, SmallOptions};
use e2e::status::{expect_finding, has_finding};
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use super::ground::{Ground, Hub, SOON};
use super::objects::cluster;

const CART: &str = "cilium/state/services/v1/paris/shop/cart";
const CASH: &str = "cilium/state/services/v1/paris/shop/cash";

/// The definitions as they lie in `deploy/crds`.
fn definitions() -> Result<Vec<Value>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/crds");
    let mut definitions = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let text = std::fs::read_to_string(entry?.path())?;
        definitions.push(serde_yaml_ng::from_str(&text)?);
    }
    ensure!(definitions.len() == 3, "{definitions:#?}");
    Ok(definitions)
}

/// Writes the definitions and waits until the API server has their kinds.
pub(super) async fn define(ground: &Ground) -> Result<()> {
    ground.apply(definitions()?).await?;
    let client = ground.client().await?;
    for kind in ["ClusterPeer", "FailoverPolicy"] {
        eventually(kind, SOON, || async {
            objects(&client, kind).list(&ListParams::default()).await.context("list").map(drop)
        })
        .await?;
    }
    Ok(())
}

fn objects(client: &kube::Client, kind: &str) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &resource("isthmus.dev", "v1alpha1", kind))
}

fn resource(group: &str, version: &str, kind: &str) -> ApiResource {
    let mut resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    if kind == "FailoverPolicy" {
        resource.plural = "failoverpolicies".to_owned();
    }
    resource
}

pub(super) fn peer(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "isthmus.dev/v1alpha1", "kind": "ClusterPeer", "metadata": {"name": name}, "spec": spec})
}

pub(super) fn tokyo(more: &Value) -> Value {
    let mut spec = json!({"endpoints": ["https://tokyo.mesh.cilium.io:2379"],
        "hostAliases": [{"hostname": "tokyo.mesh.cilium.io", "ips": ["172.18.0.10"]}]});
    for (member, value) in more.as_object().into_iter().flatten() {
        spec[member] = value.clone();
    }
    peer("tokyo", spec)
}

/// Waits until a condition of a peer is so; gives its message.
pub(crate) async fn says(ground: &Ground, hub: &Hub, name: &str, wanted: [&str; 3]) -> Result<String> {
    let api = objects(&ground.client().await?, "ClusterPeer");
    let [kind, status, reason] = wanted;
    let why = format!("{name}: {kind} is {status}, {reason}");
    let said = eventually(&why, SOON, || async {
        let object = api.get(name).await?;
        let conditions = object.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let condition = conditions.iter().find(|condition| condition["type"] == kind);
        let condition = condition.with_context(|| format!("conditions are {conditions:#?}"))?;
        let generation = object.metadata.generation;
        ensure!(
            condition["observedGeneration"].as_i64() == generation,
            "of another generation: {condition:#}"
        );
        ensure!(condition["status"] == status && condition["reason"] == reason, "it is {condition:#}");
        Ok(condition["message"].as_str().unwrap_or_default().to_owned())
    });
    said.await.with_context(|| hub.log())
}

/// Waits until the peer tokyo is shown these and not those.
async fn shown(hub: &Hub, why: &str, these: &[&str], not_those: &[&str]) -> Result<()> {
    let shown = eventually(why, SOON, || async {
        let records = hub.shown().await?;
        let keys: Vec<&String> = records.keys().collect();
        ensure!(these.iter().all(|key| records.contains_key(*key)), "not all of {these:?}: {keys:#?}");
        ensure!(not_those.iter().all(|key| !records.contains_key(*key)), "one of {not_those:?}: {keys:#?}");
        Ok(())
    });
    shown.await.with_context(|| hub.log())
}

/// Waits until the agents' Secret is as wanted.
async fn published(
    ground: &Ground,
    hub: &Hub,
    why: &str,
    wanted: impl Fn(&BTreeMap<String, String>) -> Result<()>,
) -> Result<()> {
    let client = ground.client().await?;
    let api = Api::<DynamicObject>::namespaced_with(client, "mesh", &resource("", "v1", "Secret"));
    let published = eventually(why, SOON, || async {
        let secret = api.get("peers").await?;
        let mut data = BTreeMap::new();
        for (key, value) in secret.data["data"].as_object().into_iter().flatten() {
            let bytes = STANDARD.decode(value.as_str().unwrap_or_default())?;
            data.insert(key.clone(), String::from_utf8(bytes)?);
        }
        wanted(&data).with_context(|| format!("{data:#?}"))
    });
    published.await.with_context(|| hub.log())
}

async fn events(ground: &Ground, hub: &Hub, reason: &str) -> Result<()> {
    let client = ground.client().await?;
    let api = Api::<DynamicObject>::all_with(client, &resource("events.k8s.io", "v1", "Event"));
    let why = format!("an Event {reason}");
    let found = eventually(&why, SOON, || async {
        let events = api.list(&ListParams::default()).await?.items;
        let found = events
            .iter()
            .any(|event| event.data["reason"] == reason && event.data["regarding"]["name"] == "tokyo");
        ensure!(found, "{events:#?}");
        Ok(())
    });
    found.await.with_context(|| hub.log())
}

fn secret_flags() -> Vec<String> {
    vec!["--agent-peers-secret=mesh/peers".to_owned()]
}

pub(crate) fn mesh_namespace() -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "mesh"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_is_shown_what_its_object_says_and_agents_follow_it() -> Result<()> {
    let ground = Ground::over(KubeApi::start().await?)?;
    define(&ground).await?;
    ground.apply(cluster()).await?;
    ground.apply([mesh_namespace()]).await?;
    let mut hub = ground.hub_with("hub", secret_flags())?;
    hub.ready().await?;
    shown(&hub, "without an object it is shown everything", &[CART, CASH], &[]).await?;

    let no_cash = json!({"export": {"services": {"exclude": ["shop/cash"]}}});
    ground.apply([tokyo(&no_cash)]).await?;
    says(&ground, &hub, "tokyo", ["Accepted", "True", "Accepted"]).await?;
    says(&ground, &hub, "tokyo", ["Published", "True", "Published"]).await?;
    // What a condition says is so.
    let records = hub.shown().await?;
    ensure!(records.contains_key(CART) && !records.contains_key(CASH), "{:?}", records.keys());
    published(&ground, &hub, "its configuration", |data| {
        let text = data.get("tokyo").context("no tokyo")?;
        ensure!(text.contains("- \"https://tokyo.mesh.cilium.io:2379\""), "{text}");
        ensure!(
            text.contains("ips: [\"172.18.0.10\"]") && text.contains("/etc/isthmus/tls/tls.key"),
            "{text}"
        );
        Ok(())
    })
    .await?;
    events(&ground, &hub, "Accepted").await?;

    let no_cart = json!({"export": {"services": {"exclude": ["shop/cart"]}}});
    ground.apply([tokyo(&no_cart)]).await?;
    shown(&hub, "another filter", &[CASH], &[CART]).await?;

    let mut paused = no_cart.clone();
    paused["paused"] = json!(true);
    ground.apply([tokyo(&paused)]).await?;
    says(&ground, &hub, "tokyo", ["Paused", "True", "Asked"]).await?;
    let records = hub.shown().await?;
    let allowed =
        |key: &String| key.starts_with("cilium/state/nodes/") || key.starts_with("cilium/state/ip/");
    ensure!(records.keys().all(allowed), "{:?}", records.keys());
    published(&ground, &hub, "no configuration", |data| {
        ensure!(data.is_empty(), "it is still there");
        Ok(())
    })
    .await?;
    events(&ground, &hub, "Asked").await?;

    // A restart while the API server is silent: what was in force is in force from the first moment.
    hub.kill().await?;
    if ground.has_faults() {
        ground.inject(Fault::Delay { only: Requests::all(), millis: 3000, count: Some(40) });
    }
    hub.start()?;
    shown(&hub, "after a restart", &[], &[CART, CASH]).await?;
    if ground.has_faults() {
        ground.inject(Fault::Clear);
    }
    ground.delete(&tokyo(&paused)).await?;
    shown(&hub, "without its object it is shown everything", &[CART, CASH], &[]).await?;
    ground.nothing_unsupported()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_without_a_meaning_is_refused_or_answered_and_changes_nothing() -> Result<()> {
    let ground = Ground::over(KubeApi::start().await?)?;
    define(&ground).await?;
    ground.apply(cluster()).await?;
    ground.apply([mesh_namespace()]).await?;
    for (spec, field) in [
        (json!({"endpoints": []}), "spec.endpoints"),
        (json!({"endpoints": ["tokyo:2379"]}), "spec.endpoints[0]"),
        (json!({"endpoints": ["https://a"], "cluster": {"id": 512}}), "spec.cluster.id"),
        (json!({"endpoints": ["https://a"], "import": {"preset": "Some"}}), "spec.import.preset"),
        (
            json!({"endpoints": ["https://a"], "trust": {"bundle": "-----BEGIN CERTIFICATE-----", "secretRef": {"name": "a"}}}),
            "spec.trust",
        ),
        (
            json!({"endpoints": ["https://a"], "export": {"namespaces": {"include": []}}}),
            "spec.export.namespaces.include",
        ),
    ] {
        let refused = ground.apply([peer("bad", spec.clone())]).await.expect_err(&spec.to_string());
        ensure!(format!("{refused:#}").contains(field), "{spec}: {refused:#}");
    }
    let hub = ground.hub_with("hub", secret_flags())?;
    hub.ready().await?;
    let no_cash = json!({"export": {"services": {"exclude": ["shop/cash"]}}});
    ground.apply([tokyo(&no_cash)]).await?;
    says(&ground, &hub, "tokyo", ["Published", "True", "Published"]).await?;

    let mut bad = no_cash.clone();
    bad["endpoints"] = json!(["https://0.0.0.0:2379"]);
    ground.apply([tokyo(&bad)]).await?;
    let message = says(&ground, &hub, "tokyo", ["Accepted", "False", "BadEndpoint"]).await?;
    ensure!(message.contains("0.0.0.0"), "{message}");
    events(&ground, &hub, "BadEndpoint").await?;
    hub.shows("a finding", |status| {
        expect_finding(status, &["object-invalid", "ClusterPeer tokyo", "BadEndpoint"])
    })
    .await?;
    shown(&hub, "its filter still counts", &[CART], &[CASH]).await?;
    let is_there = |data: &BTreeMap<String, String>| {
        ensure!(data.get("tokyo").is_some_and(|text| text.contains("tokyo.mesh.cilium.io")), "tokyo is gone");
        Ok(())
    };
    published(&ground, &hub, "as before", is_there).await?;

    // A schema cannot tell this one: a service has a namespace.
    let bad = json!({"export": {"services": {"exclude": ["cart"]}}});
    ground.apply([tokyo(&bad)]).await?;
    says(&ground, &hub, "tokyo", ["Accepted", "False", "BadExport"]).await?;
    shown(&hub, "the last filter with a meaning counts", &[CART], &[CASH]).await?;

    // Roots that are not there.
    let mut roots = no_cash.clone();
    roots["trust"] = json!({"secretRef": {"name": "roots"}});
    ground.apply([tokyo(&roots)]).await?;
    let message = says(&ground, &hub, "tokyo", ["Published", "False", "AsBefore"]).await?;
    ensure!(message.contains("mesh/roots: it is not there"), "{message}");
    published(&ground, &hub, "as before", is_there).await?;
    ground.nothing_unsupported()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_claim_the_same_are_a_conflict_that_is_stated() -> Result<()> {
    let ground = Ground::over(KubeApi::start().await?)?;
    define(&ground).await?;
    ground.apply(cluster()).await?;
    let no_cash = json!({"export": {"services": {"exclude": ["shop/cash"]}}});
    ground.apply([tokyo(&no_cash)]).await?;
    let mut hub = ground.hub("hub")?;
    hub.ready().await?;
    says(&ground, &hub, "tokyo", ["Accepted", "True", "Accepted"]).await?;
    let other = json!({"endpoints": ["https://a"], "cluster": {"name": "tokyo"},
        "export": {"services": {"exclude": ["shop/cart"]}}});
    ground.apply([peer("zz-other", other.clone())]).await?;
    let message = says(&ground, &hub, "zz-other", ["Accepted", "False", "Conflict"]).await?;
    ensure!(message.contains("ClusterPeer tokyo"), "{message}");
    hub.shows("a finding", |status| expect_finding(status, &["object-conflict", "ClusterPeer zz-other"]))
        .await?;
    shown(&hub, "the older one counts", &[CART], &[CASH]).await?;
    ground.delete(&tokyo(&no_cash)).await?;
    says(&ground, &hub, "zz-other", ["Accepted", "True", "Accepted"]).await?;
    shown(&hub, "then the other one", &[CASH], &[CART]).await?;
    hub.kill().await?;

    // The file counts before an object, and the object says so.
    let file = ground.path("filters.yaml");
    std::fs::write(&file, "peers:\n  tokyo: {services: {exclude: [shop/cash]}}\n")?;
    let hub = ground.hub_with("hub", [format!("--peer-filters={}", file.display())])?;
    hub.ready().await?;
    let message = says(&ground, &hub, "zz-other", ["Accepted", "False", "Conflict"]).await?;
    ensure!(message.contains("--peer-filters"), "{message}");
    shown(&hub, "the file counts", &[CART], &[CASH]).await?;
    std::fs::write(&file, "peers: {}\n")?;
    says(&ground, &hub, "zz-other", ["Accepted", "True", "Accepted"]).await?;
    shown(&hub, "the object counts", &[CASH], &[CART]).await?;
    ground.nothing_unsupported()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_definitions_or_permission_it_is_stated_once_and_nothing_else_stops() -> Result<()> {
    let ground = Ground::small(SmallOptions::default()).await?;
    ground.load(cluster())?;
    let hub = ground.hub("hub")?;
    hub.ready().await?;
    hub.shows("a finding", |status| {
        expect_finding(status, &["custom-resources-absent", "ClusterPeer and FailoverPolicy"])
    })
    .await?;
    shown(&hub, "everything goes on", &[CART, CASH], &[]).await?;

    // They come later.
    define(&ground).await?;
    let no_cash = json!({"export": {"services": {"exclude": ["shop/cash"]}}});
    ground.apply([tokyo(&no_cash)]).await?;
    says(&ground, &hub, "tokyo", ["Accepted", "True", "Accepted"]).await?;
    shown(&hub, "its filter counts", &[CART], &[CASH]).await?;
    hub.shows("no finding", |status| {
        ensure!(!has_finding(status, &["custom-resources-absent"]), "it is still there");
        Ok(())
    })
    .await?;

    // The status may not be written, then nothing may be seen any more.
    let only = Requests { resource: Some("clusterpeers.isthmus.dev/status".to_owned()), ..Requests::all() };
    ground.inject(Fault::Deny { only });
    let no_cart = json!({"export": {"services": {"exclude": ["shop/cart"]}}});
    ground.apply([tokyo(&no_cart)]).await?;
    shown(&hub, "the filter counts all the same", &[CASH], &[CART]).await?;
    let only = Requests { resource: Some("clusterpeers.isthmus.dev".to_owned()), ..Requests::all() };
    ground.inject(Fault::Deny { only });
    ground.inject(Fault::DropWatches { broken: false });
    hub.shows("a finding", |status| {
        expect_finding(status, &["source-denied", "kind ClusterPeer", "clusterpeers"])
    })
    .await?;
    shown(&hub, "what is in force stays", &[CASH], &[CART]).await?;
    ground.inject(Fault::Clear);
    says(&ground, &hub, "tokyo", ["Accepted", "True", "Accepted"]).await?;
    ground.nothing_unsupported()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_policy_is_checked_and_says_that_nobody_applies_it() -> Result<()> {
    let ground = Ground::over(KubeApi::start().await?)?;
    define(&ground).await?;
    ground.apply(cluster()).await?;
    let policy = |name: &str, tiers: Value| {
        json!({"apiVersion": "isthmus.dev/v1alpha1", "kind": "FailoverPolicy",
            "metadata": {"name": name, "namespace": "shop"}, "spec": {"services": {"names": ["cart"]}, "tiers": tiers}})
    };
    let client = ground.client().await?;
    let api = Api::<DynamicObject>::namespaced_with(
        client,
        "shop",
        &resource("isthmus.dev", "v1alpha1", "FailoverPolicy"),
    );
    for tiers in [json!([]), json!([{"to": "Mars"}]), json!([{"to": "Any", "minHealthy": "half"}])] {
        let bad: DynamicObject = serde_json::from_value(policy("bad", tiers.clone()))?;
        ensure!(api.create(&Default::default(), &bad).await.is_err(), "{tiers} is accepted");
    }
    let hub = ground.hub("hub")?;
    hub.ready().await?;
    for (name, tiers, reason) in [
        ("good", json!([{"to": "SameZone", "minHealthy": "50%"}, {"to": "Any"}]), "Accepted"),
        ("odd", json!([{"to": "Clusters"}]), "Invalid"),
    ] {
        let object: DynamicObject = serde_json::from_value(policy(name, tiers))?;
        api.create(&Default::default(), &object).await?;
        let said = eventually(reason, SOON, || async {
            let status = api.get(name).await?.data["status"].clone();
            ensure!(status["conditions"][0]["reason"] == reason, "{status:#}");
            ensure!(status["conditions"][1]["type"] == "Programmed", "{status:#}");
            ensure!(status["conditions"][1]["status"] == "False", "{status:#}");
            Ok(())
        });
        said.await.with_context(|| hub.log())?;
    }
    api.delete("odd", &DeleteParams::default()).await?;
    ground.nothing_unsupported()
}
