//! Numbers of identities as objects of the API server.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::eventually;
use e2e::kube_api::{Fault, KubeApi, Requests, SmallOptions};
use e2e::status::{expect_finding, has_finding};
use serde_json::{Value, json};

use super::ground::{Ground, Records, SOON, values};
use super::objects::{cluster, pod, service};
use super::{ADDRESSES, SERVICES, has, lacks};

const IDENTITIES: &str = "cilium/state/identities/v1/id/";

/// The definition that is installed.
fn definition() -> Result<Value> {
    let file = include_str!("../../../deploy/crds/meshidentities.isthmus.dev.yaml");
    serde_yaml_ng::from_str(file).context("the definition")
}

async fn objects(ground: &Ground) -> Result<BTreeMap<String, Value>> {
    ground.objects("isthmus.dev", "v1alpha1", "MeshIdentity", "meshidentities").await
}

/// Waits until the objects are as wanted.
async fn become_so(
    ground: &Ground,
    why: &str,
    wanted: impl Fn(&BTreeMap<String, Value>) -> Result<()>,
) -> Result<BTreeMap<String, Value>> {
    eventually(why, SOON, || async {
        let found = objects(ground).await?;
        wanted(&found).with_context(|| format!("{found:#?}"))?;
        Ok(found)
    })
    .await
}

/// An object as another hub would have made it.
fn object(number: u32, app: &str) -> Value {
    json!({"apiVersion": "isthmus.dev/v1alpha1", "kind": "MeshIdentity", "metadata": {"name": number.to_string()},
        "spec": {"labels": labels(app)}})
}

fn labels(app: &str) -> Value {
    json!({"k8s:app": app, "k8s:io.cilium.k8s.policy.cluster": "paris",
        "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name": "shop",
        "k8s:io.cilium.k8s.policy.serviceaccount": "default", "k8s:io.kubernetes.pod.namespace": "shop"})
}

fn published(records: &Records) -> Vec<String> {
    records.keys().filter_map(|key| key.strip_prefix(IDENTITIES)).map(str::to_owned).collect()
}

/// The number of the record of an address.
fn number(records: &Records, address: &str) -> Result<u64> {
    let record = records.get(&format!("{ADDRESSES}{address}")).with_context(|| format!("no {address}"))?;
    let value: Value = serde_json::from_str(&record.value)?;
    value["ID"].as_u64().context("ID")
}

#[tokio::test(flavor = "multi_thread")]
async fn losing_the_store_renumbers_nothing() -> Result<()> {
    let ground = Ground::over(KubeApi::start().await?)?;
    ground.apply([definition()?]).await?;
    ground.apply(cluster()).await?;
    let mut hub = ground.hub("first")?;
    hub.ready().await?;
    let before = hub.publishes("three identities", |records| {
        ensure!(published(records).len() == 3, "{:?}", published(records));
        Ok(())
    });
    let before = before.await?;
    let made = objects(&ground).await?;
    assert_eq!(made.keys().cloned().collect::<Vec<_>>(), published(&before));
    for (name, object) in &made {
        let text = &before[&format!("{IDENTITIES}{name}")].value;
        let labels = object["spec"]["labels"].as_object().context("labels")?;
        ensure!(
            labels
                .iter()
                .all(|(key, value)| text.contains(&format!("{key}={};", value.as_str().unwrap_or("?")))),
            "{text} {object}"
        );
        assert_eq!(object["metadata"]["labels"]["io.kubernetes.pod.namespace"], "shop");
    }
    hub.shows("who keeps them", |status| {
        let identities = &status["identities"];
        ensure!(identities["keptBy"] == "objects" && identities["waiting"] == 0, "{identities}");
        ensure!(identities["inUse"] == 3, "{identities}");
        ensure!(!has_finding(&status["findings"], &["identit"]), "a finding");
        Ok(())
    })
    .await?;
    // Killed, and its disk is gone. A pod that comes first in the alphabet would be the first to get a number.
    hub.kill().await?;
    ground.apply([pod("a-first", "a-first", "10.1.1.200")]).await?;
    let again = ground.hub("second")?;
    again.ready().await?;
    let after =
        again.publishes("all of them", |records| has(records, &format!("{ADDRESSES}10.1.1.200"))).await?;
    let (before, after) = (values(&before), values(&after));
    for (key, value) in &before {
        ensure!(after.get(key) == Some(value), "{key} was {value}, is {:?}", after.get(key));
    }
    assert_eq!(after.len(), before.len() + 2, "the new pod and its identity");
    ground.nothing_unsupported()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_waits_for_its_object_and_nothing_else_does() -> Result<()> {
    let ground = Ground::small(SmallOptions::default()).await?;
    ground.apply([definition()?]).await?;
    ground.load(cluster())?;
    let hub = ground.hub("waiting")?;
    hub.ready().await?;
    let creations = Requests::of("create", "meshidentities.isthmus.dev");
    ground.inject(Fault::Answer {
        only: creations.clone(),
        status: 500,
        retry_after_secs: None,
        count: None,
    });
    ground.load([
        pod("new", "new", "10.1.1.201"),
        service("more", "10.96.1.50"),
        pod("cart-9", "cart", "10.1.1.202"),
    ])?;
    let records = hub.publishes("what needs no object", |records| {
        has(records, &format!("{SERVICES}more"))?;
        has(records, &format!("{ADDRESSES}10.1.1.202"))
    });
    lacks(&records.await?, &format!("{ADDRESSES}10.1.1.201"))?;
    hub.shows("that it waits", |status| {
        ensure!(status["identities"]["waiting"] == 1, "{}", status["identities"]);
        expect_finding(&status["findings"], &["identity-objects", "create: 500"])
    })
    .await?;
    lacks(&hub.records().await?, &format!("{ADDRESSES}10.1.1.201"))?;
    // A pod that changes its labels keeps the record that it has until it can have another.
    let before = number(&hub.records().await?, "10.1.1.202")?;
    ground.load([pod("cart-9", "changed", "10.1.1.202")])?;
    hub.shows("that it waits", |status| {
        ensure!(status["identities"]["waiting"] == 2, "{}", status["identities"]);
        Ok(())
    })
    .await?;
    assert_eq!(number(&hub.records().await?, "10.1.1.202")?, before);
    ground.inject(Fault::Clear);
    hub.publishes("the pods", |records| {
        has(records, &format!("{ADDRESSES}10.1.1.201"))?;
        ensure!(number(records, "10.1.1.202")? != before, "still {before}");
        Ok(())
    })
    .await?;
    hub.shows("no finding", |status| {
        ensure!(!has_finding(&status["findings"], &["identity-objects"]), "still there");
        ensure!(status["identities"]["waiting"] == 0, "{}", status["identities"]);
        Ok(())
    })
    .await?;
    // Not allowed at all: then the store alone remembers, and that is said.
    ground.inject(Fault::Deny { only: creations });
    ground.load([pod("late", "late", "10.1.1.203")])?;
    hub.publishes("the pod", |records| has(records, &format!("{ADDRESSES}10.1.1.203"))).await?;
    hub.shows("the finding", |status| {
        expect_finding(
            &status["findings"],
            &["identity-objects", "create: 403", "verbs: [list, watch, create"],
        )
    })
    .await?;
    let late = number(&hub.records().await?, "10.1.1.203")?.to_string();
    ensure!(!objects(&ground).await?.contains_key(&late), "an object of {late}");
    ground.inject(Fault::Clear);
    become_so(&ground, "the object", |objects| {
        ensure!(objects.contains_key(&late), "no {late}");
        Ok(())
    })
    .await?;
    assert_eq!(number(&hub.records().await?, "10.1.1.203")?.to_string(), late);
    ground.nothing_unsupported()
}

/// Two hubs without a store in common: what one created counts for the other.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_creates_a_number_first_has_it() -> Result<()> {
    let ground = Ground::over(KubeApi::start().await?)?;
    ground.apply([definition()?]).await?;
    // The number that cart would get is another's, and cash has one already.
    ground.apply([object(65_537, "elsewhere"), object(65_600, "cash")]).await?;
    ground.apply(cluster()).await?;
    let hub = ground.hub("one")?;
    hub.ready().await?;
    let records = hub.publishes("identities", |records| {
        ensure!(published(records).len() == 3, "{:?}", published(records));
        Ok(())
    });
    let records = records.await?;
    assert_eq!(number(&records, "10.1.1.11")?, 65_600, "cash");
    ensure!(number(&records, "10.1.1.1")? != 65_537, "cart");
    let other = ground.hub("two")?;
    other.ready().await?;
    let both = other.publishes("identities", |records| {
        ensure!(published(records).len() == 3, "{:?}", published(records));
        Ok(())
    });
    assert_eq!(values(&both.await?), values(&records));
    // Both see a pod of new labels at the same time, again and again.
    for n in 0..20 {
        ground.apply([pod(&format!("new-{n}"), &format!("new-{n}"), &format!("10.1.2.{}", n + 1))]).await?;
    }
    let seen = |records: &Records| has(records, &format!("{ADDRESSES}10.1.2.20"));
    hub.publishes("all pods", |records| seen(records)).await?;
    eventually("both agree", SOON, || async {
        let (one, two) = (hub.records().await?, other.records().await?);
        ensure!(published(&one).len() == 23, "{} identities", published(&one).len());
        ensure!(values(&one) == values(&two), "they differ: {one:#?} {two:#?}");
        Ok(())
    })
    .await?;
    ground.nothing_unsupported()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_uses_is_marked_and_then_deleted() -> Result<()> {
    let ground = Ground::over(KubeApi::start().await?)?;
    ground.apply([definition()?]).await?;
    ground.apply(cluster()).await?;
    ground.apply([pod("once", "once", "10.1.1.210"), pod("again", "again", "10.1.1.211")]).await?;
    let hub = ground.hub_with("collecting", ["--identity-gc-after=2"])?;
    hub.ready().await?;
    let records = hub.publishes("the pods", |records| {
        has(records, &format!("{ADDRESSES}10.1.1.210"))?;
        has(records, &format!("{ADDRESSES}10.1.1.211"))
    });
    let records = records.await?;
    let (once, again) = (number(&records, "10.1.1.210")?, number(&records, "10.1.1.211")?);
    let used = published(&records).len();
    ground.delete(&pod("once", "once", "")).await?;
    ground.delete(&pod("again", "again", "")).await?;
    let marked = |objects: &BTreeMap<String, Value>, number: u64| {
        objects
            .get(&number.to_string())
            .map(|object| !object["metadata"]["annotations"]["isthmus.dev/unused"].is_null())
    };
    become_so(&ground, "a mark", |objects| {
        ensure!(marked(objects, again) == Some(true), "no mark");
        Ok(())
    })
    .await?;
    // Used again: it loses the mark, and keeps its number.
    ground.apply([pod("again", "again", "10.1.1.212")]).await?;
    let records = hub.publishes("the pod", |records| has(records, &format!("{ADDRESSES}10.1.1.212"))).await?;
    assert_eq!(number(&records, "10.1.1.212")?, again);
    let left = become_so(&ground, "the other one is gone", |objects| {
        ensure!(marked(objects, once).is_none(), "still there");
        Ok(())
    });
    let left = left.await?;
    assert_eq!((marked(&left, again), left.len()), (Some(false), used - 1));
    // Deleted by hand while it is in use: it is made again, and nothing is renumbered.
    let before = hub.records().await?;
    ground.delete(&object(u32::try_from(again)?, "again")).await?;
    become_so(&ground, "it is back", |objects| {
        ensure!(marked(objects, again) == Some(false), "not there");
        Ok(())
    })
    .await?;
    assert_eq!(hub.records().await?, before);
    ground.nothing_unsupported()
}

/// Without the definition the store remembers, which is said; objects are made when it comes.
#[tokio::test(flavor = "multi_thread")]
async fn the_definition_may_come_later() -> Result<()> {
    let ground = Ground::small(SmallOptions::default()).await?;
    ground.load(cluster())?;
    let hub = ground.hub("later")?;
    hub.ready().await?;
    hub.shows("who keeps them", |status| {
        ensure!(status["identities"]["keptBy"] == "store", "{}", status["identities"]);
        expect_finding(&status["findings"], &["identities-in-store", "meshidentities"])
    })
    .await?;
    let before = hub.records().await?;
    ground.apply([definition()?]).await?;
    become_so(&ground, "objects of what is in use", |objects| {
        ensure!(objects.len() == 3, "{} objects", objects.len());
        Ok(())
    })
    .await?;
    hub.shows("who keeps them", |status| {
        ensure!(status["identities"]["keptBy"] == "objects", "{}", status["identities"]);
        ensure!(!has_finding(&status["findings"], &["identities-in-store"]), "still said");
        Ok(())
    })
    .await?;
    assert_eq!(hub.records().await?, before, "nothing is written anew");
    ground.nothing_unsupported()
}

/// A leader dies: the next one has the same numbers, though it asks the API server anew.
#[tokio::test(flavor = "multi_thread")]
async fn another_leader_goes_on_with_the_same_objects() -> Result<()> {
    let ground = Ground::small(SmallOptions::default()).await?;
    ground.apply([definition()?]).await?;
    ground.load(cluster())?;
    let etcd = ground.etcd()?;
    let mut leader = ground.replica("a", &etcd)?;
    leader.ready().await?;
    let standby = ground.replica("b", &etcd)?;
    standby.ready().await?;
    let before = leader.publishes("identities", |records| {
        ensure!(published(records).len() == 3, "{:?}", published(records));
        Ok(())
    });
    let before = before.await?;
    leader.kill().await?;
    ground.load([pod("late", "late", "10.1.1.77")])?;
    let seen = standby
        .publishes("what came meanwhile", |records| has(records, &format!("{ADDRESSES}10.1.1.77")))
        .await?;
    for (key, record) in &before {
        ensure!(seen.get(key) == Some(record), "{key} was {record:?}, is {:?}", seen.get(key));
    }
    assert_eq!(objects(&ground).await?.len(), 4);
    tokio::time::timeout(Duration::from_secs(10), standby.status()).await.context("it answers")??;
    ground.nothing_unsupported()
}
