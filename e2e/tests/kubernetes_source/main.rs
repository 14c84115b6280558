//! A hub that follows an API server: what it publishes, and that nothing is lost and nothing blinks while the API server
//! does what API servers do.

mod cilium;
mod cluster_peers;
mod ground;
mod identities;
mod leader_election;
mod objects;
mod peers;
mod policies;
mod remote_slices;
mod rules;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::kube_api::{Fault, KubeApi, Requests, SmallOptions};
use e2e::status::{expect_finding, has_finding};
use serde_json::{Value, json};

use self::ground::{Ground, Records, digest, values};
use self::objects::{cluster, node, pod, service, slice};

const SERVICES: &str = "cilium/state/services/v1/paris/shop/";
const ADDRESSES: &str = "cilium/state/ip/v1/default/";

fn has(records: &Records, key: &str) -> Result<()> {
    ensure!(records.contains_key(key), "no {key} in {:#?}", records.keys().collect::<Vec<_>>());
    Ok(())
}

fn lacks(records: &Records, key: &str) -> Result<()> {
    ensure!(!records.contains_key(key), "{key} is still there");
    Ok(())
}

/// The record of a service in this namespace, as JSON.
fn published(records: &Records, name: &str) -> Result<Value> {
    let record = records.get(&format!("{SERVICES}{name}")).with_context(|| format!("no {name}"))?;
    Ok(serde_json::from_str(&record.value)?)
}

fn backends(records: &Records, name: &str) -> Result<usize> {
    Ok(published(records, name)?["backends"].as_object().map_or(0, serde_json::Map::len))
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_those_of_the_same_objects_as_manifests() -> Result<()> {
    let ground = Ground::over(KubeApi::start().await?)?;
    ground.apply(cluster()).await?;
    let hub = ground.hub("followed")?;
    hub.ready().await?;
    let other = ground.hub_of_manifests("read").await?;
    other.ready().await?;
    let (followed, read) = (hub.records().await?, other.records().await?);
    assert_eq!(values(&followed), values(&read));
    has(&followed, &format!("{SERVICES}cart"))?;
    has(&followed, &format!("{ADDRESSES}10.1.1.1"))?;
    has(&followed, "cilium/state/nodes/v1/paris/n1")?;
    assert_eq!(backends(&followed, "cart")?, 3);
    assert_eq!(backends(&followed, "peers")?, 1, "a slice without conditions is ready");
    lacks(&followed, &format!("{SERVICES}shop-db"))?;
    lacks(&followed, "cilium/state/services/v1/paris/back/hidden")?;
    // One by one, as they change: the same again.
    ground.apply([service("late", "10.96.1.77"), slice("late", "late-a", &["10.1.1.77".to_owned()])]).await?;
    ground.delete(&slice("mail", "mail-a", &[])).await?;
    let followed = hub
        .publishes("the changes", |records| {
            ensure!(backends(records, "late")? == 1 && backends(records, "mail")? == 0, "not yet");
            Ok(())
        })
        .await?;
    let third = ground.hub_of_manifests("read-again").await?;
    third.ready().await?;
    assert_eq!(values(&followed), values(&third.records().await?));
    ground.nothing_unsupported()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_streaming_lists_is_listed_in_pages() -> Result<()> {
    let ground = Ground::small(SmallOptions { streaming_lists: false, ..SmallOptions::default() }).await?;
    ground.load(cluster())?;
    ground.load(
        (0..1200).map(|n| pod(&format!("p{n}"), "many", &format!("10.2.{}.{}", n / 250, n % 250 + 1))),
    )?;
    let hub = ground.hub("paged")?;
    hub.ready().await?;
    has(&hub.records().await?, &format!("{ADDRESSES}10.2.4.200"))?;
    let requests = ground.server().requests();
    ensure!(requests.count("list pods") >= 3, "pages of bounded size: {requests:?}");
    ground.load([pod("late", "late", "10.2.9.9")])?;
    hub.publishes("a change", |records| has(records, &format!("{ADDRESSES}10.2.9.9"))).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_and_nothing_blinks() -> Result<()> {
    let ground = Ground::small(SmallOptions::default()).await?;
    ground.load(cluster())?;
    let mut hub = ground.hub("stormy")?;
    hub.ready().await?;
    let before = hub.records().await?;
    let all = Requests::all();
    let storms = [
        vec![Fault::DropWatches { broken: false }],
        vec![Fault::DropWatches { broken: true }],
        vec![Fault::FailWatches { status: 410 }],
        vec![Fault::FailWatches { status: 500 }],
        vec![Fault::Compact, Fault::DropWatches { broken: true }],
        vec![
            Fault::Answer { only: all.clone(), status: 429, retry_after_secs: Some(1), count: Some(7) },
            Fault::FailWatches { status: 410 },
        ],
        vec![
            Fault::Answer { only: all.clone(), status: 503, retry_after_secs: None, count: Some(7) },
            Fault::DropWatches { broken: false },
        ],
        vec![Fault::Restart { millis: 300, new_history: true }],
        vec![Fault::Delay { only: all, millis: 500, count: Some(10) }, Fault::FailWatches { status: 410 }],
    ];
    for (at, storm) in storms.into_iter().enumerate() {
        let name = format!("{storm:?}");
        for fault in storm {
            ground.inject(fault).await;
        }
        // Written while nobody watches: one more each time, and one that changes each time.
        let (new, old) = (format!("10.3.0.{}", at + 1), format!("10.3.0.{at}"));
        ground.load([
            pod("moving", "moving", &new),
            service(&format!("s{at}"), &format!("10.96.2.{}", at + 1)),
        ])?;
        let seen = hub.publishes("what was written meanwhile", |records| {
            has(records, &format!("{ADDRESSES}{new}"))?;
            has(records, &format!("{SERVICES}s{at}"))?;
            lacks(records, &format!("{ADDRESSES}{old}"))
        });
        let seen = seen.await.context(name.clone())?;
        for (key, record) in &before {
            ensure!(seen.get(key) == Some(record), "{name}: {key} was {record:?}, is {:?}", seen.get(key));
        }
    }
    // Deleted while nobody watches, and the history is gone: a relist notices.
    ground.delete(&pod("moving", "moving", "")).await?;
    ground.inject(Fault::Restart { millis: 100, new_history: true }).await;
    let last = hub
        .publishes("a deletion", |records| {
            ensure!(!records.keys().any(|key| key.starts_with(&format!("{ADDRESSES}10.3."))), "still there");
            Ok(())
        })
        .await?;
    // The hub itself: nothing is written anew.
    hub.kill().await?;
    hub.start()?;
    hub.ready().await?;
    assert_eq!(hub.records().await?, last);
    ground.nothing_unsupported()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_away_is_a_finding_and_no_more() -> Result<()> {
    let ground = Ground::small(SmallOptions::default()).await?;
    ground.load(cluster())?;
    let hub = ground.hub("alone")?;
    hub.ready().await?;
    hub.shows("it is connected", |status| {
        ensure!(status["source"]["connected"] == true, "not connected");
        ensure!(status["source"]["kinds"]["Pod"]["objects"] == 11, "other pods");
        Ok(())
    })
    .await?;
    let before = hub.records().await?;
    ground.inject(Fault::RefuseConnections { millis: 4000 }).await;
    hub.shows("it says that nobody answers", |status| {
        ensure!(status["source"]["connected"] == false, "connected");
        expect_finding(&status["findings"], &["source-unreachable", "127.0.0.1", "since"])
    })
    .await?;
    assert_eq!(hub.records().await?, before, "what was known stays");
    hub.shows("it is back", |status| {
        ensure!(!has_finding(&status["findings"], &["source-unreachable"]), "still away");
        ensure!(status["source"]["connected"] == true, "not connected");
        Ok(())
    })
    .await?;
    assert_eq!(hub.records().await?, before);
    let metrics = hub.page("/metrics").await?;
    for line in
        ["mesh_apiserver_source_objects{kind=\"Pod\"} 11", "mesh_apiserver_source_age_seconds{kind=\"Node\"}"]
    {
        ensure!(metrics.contains(line), "no {line} in {metrics}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_starts_alone_waits_and_says_so() -> Result<()> {
    let ground = Ground::small(SmallOptions::default()).await?;
    ground.load(cluster())?;
    ground.inject(Fault::RefuseConnections { millis: 3000 }).await;
    let hub = ground.hub("early")?;
    hub.shows("it says that nobody answers", |status| {
        expect_finding(&status["findings"], &["source-unreachable", "127.0.0.1", "since"])
    })
    .await?;
    hub.ready().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_kind_is_a_finding_and_the_others_go_on() -> Result<()> {
    let ground = Ground::small(SmallOptions::default()).await?;
    ground.load(cluster())?;
    let deny = |resource: &str| {
        for verb in ["list", "watch"] {
            ground.inject(Fault::Deny { only: Requests::of(verb, resource) });
        }
    };
    deny("pods");
    let mut hub = ground.hub("denied")?;
    let denied = |status: &Value| {
        expect_finding(&status["findings"], &["source-denied", "resources: [pods], verbs: [list, watch]"])
    };
    hub.shows("the finding", denied).await?;
    let records = hub.publishes("services", |records| has(records, &format!("{SERVICES}cart"))).await?;
    ensure!(!records.keys().any(|key| key.starts_with(ADDRESSES)), "{records:#?}");
    ensure!(hub.page("/readyz").await.is_err(), "ready without any pod known");
    ground.load([service("more", "10.96.1.50")])?;
    hub.publishes("a change of another kind", |records| has(records, &format!("{SERVICES}more"))).await?;

    ground.inject(Fault::Clear);
    hub.ready().await?;
    let complete = hub.publishes("pods", |records| has(records, &format!("{ADDRESSES}10.1.1.1"))).await?;

    // Taken away later, and a restart besides: what was published of the kind stays as it is.
    deny("pods");
    deny("endpointslices.discovery.k8s.io");
    ground.inject(Fault::FailWatches { status: 410 });
    hub.shows("the finding", denied).await?;
    ground.load([node(7)])?;
    hub.publishes("a node", |records| has(records, "cilium/state/nodes/v1/paris/n7")).await?;
    hub.kill().await?;
    hub.start()?;
    hub.shows("the finding", denied).await?;
    ground.load([node(8)])?;
    let after = hub.publishes("a node", |records| has(records, "cilium/state/nodes/v1/paris/n8")).await?;
    for (key, record) in &complete {
        ensure!(after.get(key) == Some(record), "{key} was {record:?}, is {:?}", after.get(key));
    }
    hub.ready().await?;

    ground.inject(Fault::Clear);
    hub.shows("no finding of the source", |status| {
        ensure!(!has_finding(&status["findings"], &["source-denied"]), "still denied");
        ensure!(status["source"]["kinds"]["EndpointSlice"]["listed"] == true, "not listed");
        Ok(())
    })
    .await?;
    let last = hub.records().await?;
    for (key, record) in &complete {
        ensure!(last.get(key) == Some(record), "{key} was {record:?}, is {:?}", last.get(key));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_changes_what_it_is() -> Result<()> {
    let ground = Ground::small(SmallOptions::default()).await?;
    ground.load(cluster())?;
    let hub = ground.hub("changing")?;
    hub.ready().await?;
    let frontends = |records: &Records| -> Result<usize> {
        Ok(published(records, "cart")?["frontends"].as_object().map_or(0, serde_json::Map::len))
    };
    let mut headless = service("cart", "None");
    headless["spec"]["clusterIPs"] = json!(["None"]);
    let mut elsewhere = service("cart", "");
    elsewhere["spec"] = json!({"type": "ExternalName", "externalName": "cart.example"});
    for _ in 0..2 {
        ground.load([headless.clone()])?;
        hub.publishes("headless", |records| {
            ensure!(
                frontends(records)? == 0 && backends(records, "cart")? == 3,
                "{:?}",
                published(records, "cart")
            );
            Ok(())
        })
        .await?;
        ground.load([elsewhere.clone()])?;
        hub.publishes("a name elsewhere", |records| {
            lacks(records, "cilium/state/endpointslices/v1/paris/shop/cart-a")?;
            lacks(records, &format!("{SERVICES}cart"))
        })
        .await?;
        ground.load([service("cart", "10.96.1.1")])?;
        hub.publishes("a service with an address", |records| {
            ensure!(
                frontends(records)? == 1 && backends(records, "cart")? == 3,
                "{:?}",
                published(records, "cart")
            );
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_slices_of_one_service() -> Result<()> {
    let ground = Ground::small(SmallOptions::default()).await?;
    let address = |n: usize| format!("10.{}.{}.{}", 8 + n / 62_500, n / 250 % 250, n % 250 + 1);
    ground.load([service("huge", "10.96.3.1")])?;
    ground.load((0..5000).map(|n| slice("huge", &format!("huge-{n}"), &[address(n)])))?;
    let hub = ground.hub("huge")?;
    hub.ready().await?;
    assert_eq!(backends(&hub.records().await?, "huge")?, 5000);
    ground.load([slice("huge", "huge-4999", &[])])?;
    ground.inject(Fault::FailWatches { status: 410 });
    ground.load([slice("huge", "huge-4998", &[])])?;
    hub.publishes("two fewer", |records| {
        let found = backends(records, "huge")?;
        ensure!(found == 4998, "{found} backends");
        Ok(())
    })
    .await?;
    ensure!(hub.pid().is_some(), "it runs");
    tokio::time::timeout(Duration::from_secs(10), hub.status()).await.context("it answers")??;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_leader_lists_anew_and_writes_nothing_anew() -> Result<()> {
    let ground = Ground::small(SmallOptions::default()).await?;
    ground.load(cluster())?;
    let etcd = ground.etcd()?;
    let mut leader = ground.replica("a", &etcd)?;
    leader.ready().await?;
    let standby = ground.replica("b", &etcd)?;
    standby.ready().await?;
    let before = leader.records().await?;
    assert_eq!(standby.records().await?, before);
    // While nobody leads, one pod comes and one goes.
    leader.kill().await?;
    ground.load([pod("late", "late", "10.1.1.77")])?;
    ground.delete(&pod("cart-0", "cart", "")).await?;
    let seen = standby.publishes("what changed meanwhile", |records| {
        has(records, &format!("{ADDRESSES}10.1.1.77"))?;
        lacks(records, &format!("{ADDRESSES}10.1.1.1"))
    });
    let seen = seen.await?;
    for (key, record) in before.iter().filter(|(key, _)| !key.ends_with("/10.1.1.1")) {
        ensure!(seen.get(key) == Some(record), "{key} was {record:?}, is {:?}", seen.get(key));
    }
    ground.nothing_unsupported()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_and_a_failover_publish_the_same_digest() -> Result<()> {
    let ground = Ground::over(KubeApi::start().await?)?;
    ground.apply(cluster()).await?;
    let mut hub = ground.hub("restarted")?;
    hub.ready().await?;
    let before = digest(&hub.records().await?);
    for _ in 0..2 {
        hub.kill().await?;
        hub.start()?;
        hub.ready().await?;
        // A change after the restart shows that it has begun to write: nothing else may have been written until then.
        ground.apply([service("marker", "10.96.1.99")]).await?;
        hub.publishes("the change", |records| has(records, &format!("{SERVICES}marker"))).await?;
        ground.delete(&service("marker", "10.96.1.99")).await?;
        let after = hub.publishes("its end", |records| lacks(records, &format!("{SERVICES}marker"))).await?;
        assert_eq!(digest(&after), before, "{after:#?}");
    }

    let etcd = ground.etcd()?;
    let mut leader = ground.replica("first", &etcd)?;
    leader.ready().await?;
    let mut standby = ground.replica("second", &etcd)?;
    standby.ready().await?;
    let before = digest(&leader.records().await?);
    for number in 0..2 {
        leader.kill().await?;
        ground.apply([service("marker", "10.96.1.99")]).await?;
        standby.publishes("the change", |records| has(records, &format!("{SERVICES}marker"))).await?;
        ground.delete(&service("marker", "10.96.1.99")).await?;
        let after =
            standby.publishes("its end", |records| lacks(records, &format!("{SERVICES}marker"))).await?;
        assert_eq!(digest(&after), before, "fail-over {number}: {after:#?}");
        // The other way round.
        leader.start()?;
        leader.ready().await?;
        std::mem::swap(&mut leader, &mut standby);
    }
    Ok(())
}
