//! Several hubs and a Lease: who writes, and that nothing shows when another one does.

mod outages;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use e2e::eventually;
use e2e::kube_api::{KubeApi, SmallOptions};
use serde_json::Value;

use super::cluster_peers::{define, peer, tokyo};
use super::ground::{Ground, Hub, Records, SOON, digest};
use super::objects::{cluster, service};
use super::{SERVICES, has};

/// The Lease as it is in the API server: its holder, and how often that changed.
async fn lease(ground: &Ground) -> Result<(String, i64)> {
    let leases = ground.objects("coordination.k8s.io", "v1", "Lease", "leases").await?;
    let spec = &leases.get("mesh-apiserver").with_context(|| format!("{leases:#?}"))?["spec"];
    let holder = spec["holderIdentity"].as_str().unwrap_or_default().to_owned();
    Ok((holder, spec["leaseTransitions"].as_i64().unwrap_or(0)))
}

/// Waits until a hub writes, or does not.
async fn leads(hub: &Hub, leads: bool) -> Result<()> {
    hub.shows(if leads { "it leads" } else { "it leads no longer" }, |status| {
        let etcd = &status["store"]["etcd"];
        ensure!(etcd["leads"] == leads, "{etcd:#}");
        Ok(())
    })
    .await
}

/// Waits until a hub leads and holds the Lease.
async fn reigns(hub: &Hub) -> Result<()> {
    hub.shows("it leads with the Lease", |status| {
        let etcd = &status["store"]["etcd"];
        ensure!(etcd["leads"] == true && etcd["lease"]["held"] == true, "{etcd:#}");
        Ok(())
    })
    .await
}

/// Waits until a change gets through the hub that leads; gives the records without it.
async fn is_fed(ground: &Ground, hub: &Hub) -> Result<Records> {
    ground.apply([service("marker", "10.96.1.99")]).await?;
    let marker = format!("{SERVICES}marker");
    let mut records = hub.publishes("the change", |records| has(records, &marker)).await?;
    records.retain(|key, _| !key.contains("marker"));
    Ok(records)
}

/// The objects of identities, by number, with their revision.
async fn identities(ground: &Ground) -> Result<BTreeMap<String, Value>> {
    let objects = ground.objects("isthmus.dev", "v1alpha1", "MeshIdentity", "meshidentities").await?;
    Ok(objects
        .into_iter()
        .map(|(name, object)| (name, object["metadata"]["resourceVersion"].clone()))
        .collect())
}

/// What a watcher was told: keys put, and keys deleted.
fn told(file: &Path) -> Result<(usize, Vec<String>)> {
    let (mut puts, mut deletes) = (0, Vec::new());
    let text = std::fs::read_to_string(file)?;
    // The last line may be half written.
    for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        let response: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        for event in response["Events"].as_array().into_iter().flatten() {
            match event["type"] == 1 {
                true => deletes.push(event["kv"]["key"].to_string()),
                false => puts += 1,
            }
        }
    }
    Ok((puts, deletes))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_shows_when_the_leader_is_killed() -> Result<()> {
    let ground = Ground::over(KubeApi::start().await?)?;
    define(&ground).await?;
    ground.apply(cluster()).await?;
    let etcd = ground.etcd()?;
    let mut first = ground.replica("a", &etcd)?;
    first.ready().await?;
    reigns(&first).await?;
    let second = ground.replica("b", &etcd)?;
    second.ready().await?;
    first
        .shows("identities are objects", |status| {
            let identities = &status["identities"];
            ensure!(identities["inUse"] == 3 && identities["waiting"] == 0, "{identities}");
            ensure!(identities["keptBy"] == "objects", "{identities}");
            Ok(())
        })
        .await?;
    let before = (digest(&first.records().await?), identities(&ground).await?);
    assert_eq!(lease(&ground).await?, ("a".to_owned(), 0));
    let file = ground.path("told.json");
    let _watcher = second.watch("cilium/state/", &file)?;

    first.kill().await?;
    reigns(&second).await?;
    let after = is_fed(&ground, &second).await?;
    assert_eq!((digest(&after), identities(&ground).await?), before, "{after:#?}");
    assert_eq!(lease(&ground).await?, ("b".to_owned(), 1));
    let seen = eventually("the watcher was told of the change", SOON, || async {
        let (puts, deletes) = told(&file)?;
        ensure!(puts > 0, "nothing yet");
        Ok(deletes)
    });
    assert_eq!(seen.await?, [""; 0], "deletions");

    // It comes back as a standby, and whoever leads goes on.
    first.start()?;
    first.ready().await?;
    first
        .shows("who leads", |status| {
            let etcd = &status["store"]["etcd"];
            ensure!(etcd["leader"] == "b" && etcd["lease"]["holder"] == "b", "{etcd:#}");
            ensure!(etcd["leads"] == false && etcd["lease"]["held"] == false, "{etcd:#}");
            Ok(())
        })
        .await?;
    let page = second.page("/metrics").await?;
    for line in
        ["leader 1", "lease_held 1", "lease_usable 1", "lease_transitions 1", "lease_renewal_age_seconds "]
    {
        ensure!(page.contains(&format!("mesh_apiserver_{line}")), "no {line} in {page}");
    }
    assert_eq!(lease(&ground).await?.0, "b");
    ground.nothing_unsupported()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stops_in_order_is_followed_before_its_lease_runs_out() -> Result<()> {
    let ground = Ground::over(KubeApi::start().await?)?;
    ground.apply(cluster()).await?;
    let etcd = ground.etcd()?;
    // Longer than any wait of this test.
    let times = [600, 300, 2];
    let mut first = ground.replica_of("a", &etcd, times)?;
    reigns(&first).await?;
    first.ready().await?;
    let second = ground.replica_of("b", &etcd, times)?;
    second.ready().await?;
    let before = digest(&first.records().await?);
    first.stop().await?;
    ensure!(first.log().contains("Lease released"), "{}", first.log());
    reigns(&second).await?;
    assert_eq!(digest(&is_fed(&ground, &second).await?), before);
    assert_eq!(lease(&ground).await?, ("b".to_owned(), 1));
    ground.nothing_unsupported()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_slept_through_its_lease_writes_nothing_when_it_wakes_up() -> Result<()> {
    let ground = Ground::small(SmallOptions::default()).await?;
    define(&ground).await?;
    ground.load(cluster())?;
    let etcd = ground.etcd()?;
    let first = ground.replica("a", &etcd)?;
    reigns(&first).await?;
    let second = ground.replica("b", &etcd)?;
    second.ready().await?;
    first.ready().await?;
    let says = |hub: &Hub, name: &str| {
        hub.log().lines().filter(|line| line.contains("ClusterPeer") && line.contains(name)).count()
    };
    ground.apply([tokyo(&Value::Null)]).await?;
    eventually("the leader says what became of the peer", SOON, || async {
        ensure!(says(&first, "tokyo") > 0, "{}", first.log());
        Ok(())
    })
    .await?;
    assert_eq!(says(&second, "tokyo"), 0, "a standby says nothing");

    first.freeze()?;
    // Its connections take this in while it sleeps.
    let endpoints = serde_json::json!({"endpoints": ["https://lima.mesh.cilium.io:2379"],
        "hostAliases": [{"hostname": "lima.mesh.cilium.io", "ips": ["172.18.0.11"]}]});
    ground.apply([peer("lima", endpoints)]).await?;
    reigns(&second).await?;
    eventually("the next leader says what became of the other", SOON, || async {
        ensure!(says(&second, "lima") > 0, "{}", second.log());
        Ok(())
    })
    .await?;
    let fed = is_fed(&ground, &second).await?;
    let answers = || {
        let tally = ground.server().requests();
        ["apply", "patch"].map(|verb| tally.count(&format!("{verb} clusterpeers.isthmus.dev/status")))
    };
    let (count, held) = (answers(), lease(&ground).await?);
    ensure!(count != [0, 0], "{:#?}", ground.server().requests());

    first.thaw()?;
    leads(&first, false).await?;
    first
        .shows("it knows who leads", |status| {
            let etcd = &status["store"]["etcd"];
            ensure!(etcd["leader"] == "b" && etcd["lease"]["holder"] == "b", "{etcd:#}");
            Ok(())
        })
        .await?;
    eventually("it says why", SOON, || async {
        ensure!(first.log().contains("this replica writes no longer"), "{}", first.log());
        Ok(())
    })
    .await?;
    assert_eq!(says(&first, "lima"), 0, "{}", first.log());
    assert_eq!((answers(), lease(&ground).await?), (count, held));
    let after = second.records().await?;
    let changed: Vec<&String> =
        fed.iter().filter(|(key, record)| after.get(*key) != Some(record)).map(|(key, _)| key).collect();
    assert_eq!(changed, [""; 0]);
    ground.nothing_unsupported()
}
