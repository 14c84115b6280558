//! Endpoint slices of other clusters' backends: a hub of paris over an API server, and hubs of other clusters.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::eventually;
use e2e::kube_api::{Fault, KubeApi, Requests, SmallOptions};
use e2e::status::{expect_finding, has_finding};
use serde_json::{Value, json};

use crate::ground::{Ground, Hub, SOON};
use crate::objects::{namespace, service, slice};

const GLOBAL: &str = "service.cilium.io/global";
const SYNC: &str = "service.cilium.io/global-sync-endpoint-slices";

pub(crate) type Slices = BTreeMap<String, Value>;

pub(crate) fn headless(name: &str) -> Value {
    let mut headless = service(name, "None");
    headless["spec"]["clusterIPs"] = json!(["None"]);
    headless["spec"]["ipFamilies"] = json!(["IPv4"]);
    headless
}

/// A global service of another cluster, with backends in that cluster's block.
pub(crate) fn offered(name: &str, cluster: u8, numbers: impl IntoIterator<Item = usize>) -> [Value; 2] {
    let address = |n: usize| format!("10.{cluster}.{}.{}", n / 250, n % 250 + 1);
    let mut backends = slice(name, &format!("{name}-a"), &[]);
    let endpoint =
        |n: usize| json!({"addresses": [address(n)], "hostname": format!("{name}-{n}"), "zone": "z"});
    backends["endpoints"] = numbers.into_iter().map(endpoint).collect();
    [service(name, &format!("10.97.{cluster}.1")), backends]
}

/// Addresses in slices of a service, by cluster.
pub(crate) fn addresses(slices: &Slices, service: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for slice in slices.values() {
        let labels = &slice["metadata"]["labels"];
        if labels["kubernetes.io/service-name"] != service {
            continue;
        }
        let cluster = labels["multicluster.kubernetes.io/source-cluster"].as_str().unwrap_or_default();
        let addresses = slice["endpoints"].as_array().into_iter().flatten();
        let addresses = addresses.filter_map(|endpoint| endpoint["addresses"][0].as_str().map(str::to_owned));
        found.entry(cluster.to_owned()).or_default().extend(addresses);
    }
    found
}

/// Waits until a service's slices hold these numbers of addresses, by cluster.
pub(crate) async fn settle(
    ground: &Ground,
    hub: &Hub,
    service: &str,
    expected: &[(&str, usize)],
) -> Result<Slices> {
    let expected: BTreeMap<String, usize> =
        expected.iter().map(|(cluster, count)| ((*cluster).to_owned(), *count)).collect();
    let settled = eventually("the slices", SOON, || async {
        let slices = ground.remote_slices().await?;
        let found = addresses(&slices, service);
        let counts: BTreeMap<String, usize> =
            found.iter().map(|(cluster, addresses)| (cluster.clone(), addresses.len())).collect();
        ensure!(counts == expected, "{service}: {found:?}, expected {expected:?}");
        Ok(slices)
    });
    settled.await.with_context(|| hub.log())
}

/// Revisions of all slices: equal, if nothing was written.
fn revisions(slices: &Slices) -> BTreeMap<&str, &Value> {
    slices.iter().map(|(name, slice)| (name.as_str(), &slice["metadata"]["resourceVersion"])).collect()
}

fn flags(ground: &Ground, more: &[&str]) -> Vec<String> {
    let peers = format!("--peers={}", ground.peers().display());
    std::iter::once(peers).chain(more.iter().map(|flag| (*flag).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn services_get_slices_of_other_clusters_backends() -> Result<()> {
    let ground = Ground::over(KubeApi::start().await?)?;
    ground.apply([namespace("shop", true), headless("peers"), service("cart", "10.96.1.1")]).await?;
    ground.apply([slice("peers", "peers-own", &["10.1.0.1".to_owned()])]).await?;
    let tokyo = ground.peer("tokyo", 2).await?;
    let osaka = ground.peer("osaka", 3).await?;
    tokyo.has(offered("peers", 2, 0..3).into_iter().chain(offered("cart", 2, 0..2)))?;
    osaka.has(offered("peers", 3, 0..1))?;
    let hub = ground.hub_with("mirroring", flags(&ground, &[]))?;
    hub.ready().await?;
    let slices = settle(&ground, &hub, "peers", &[("osaka", 1), ("tokyo", 3)]).await?;
    ensure!(addresses(&slices, "cart").is_empty(), "a service with an address has to ask: {slices:#?}");
    let (name, found) = slices
        .iter()
        .find(|(_, slice)| {
            slice["metadata"]["labels"]["multicluster.kubernetes.io/source-cluster"] == "osaka"
        })
        .context("osaka's slice")?;
    ensure!(name.starts_with("peers-osaka-"), "{name}");
    let expected = json!([{
        "addresses": ["10.3.0.1"], "hostname": "peers-0", "zone": "z", "nodeName": "osaka",
        "conditions": {"ready": true, "serving": true, "terminating": false},
    }]);
    ensure!(found["endpoints"] == expected, "{found:#}");
    ensure!(found["ports"] == json!([{"name": "http", "port": 8080, "protocol": "TCP"}]), "{found:#}");
    ensure!(found["metadata"]["ownerReferences"][0]["name"] == "peers", "{found:#}");
    let managed_by = &found["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"];
    ensure!(*managed_by == "endpointslice-mesh-controller.cilium.io", "{found:#}");

    // On request, by the main name of the annotation.
    let mut asking = service("cart", "10.96.1.1");
    asking["metadata"]["annotations"][SYNC] = json!("true");
    ground.apply([asking]).await?;
    settle(&ground, &hub, "cart", &[("tokyo", 2)]).await?;
    let records = hub.records().await?;
    let remote: Vec<&String> = records
        .iter()
        .filter(|(_, record)| record.value.contains("10.2.0.") || record.value.contains("10.3.0."))
        .map(|(key, _)| key)
        .collect();
    ensure!(remote.is_empty(), "what others offered is offered again: {remote:?}");
    ensure!(
        !records.keys().any(|key| key.contains("peers-osaka") || key.contains("-tokyo-")),
        "{records:#?}"
    );
    hub.shows("what it wrote", |status| {
        let said = &status["remoteSlices"];
        ensure!(said["services"] == 2 && said["slices"] == 3 && said["endpoints"] == 6, "{said}");
        ensure!(said["peers"]["tokyo"]["link"] == "fresh" && said["profile"] == "agents", "{said}");
        Ok(())
    })
    .await?;

    // And no more; the older name of `global` is none here.
    let mut older = service("cart", "10.96.1.1");
    older["metadata"]["annotations"] = json!({"io.cilium/global-service": "true", (SYNC): "true"});
    ground.apply([older]).await?;
    settle(&ground, &hub, "cart", &[]).await?;
    // A backend less, one more: what a peer says counts at once.
    tokyo.has(offered("peers", 2, 2..7))?;
    settle(&ground, &hub, "peers", &[("osaka", 1), ("tokyo", 5)]).await?;
    // Somebody deletes one, somebody changes one.
    let slices = ground.remote_slices().await?;
    let (_, victim) = slices.iter().next().context("a slice")?;
    ground.delete(victim).await?;
    settle(&ground, &hub, "peers", &[("osaka", 1), ("tokyo", 5)]).await?;
    let mut unshared = headless("peers");
    unshared["metadata"]["annotations"][GLOBAL] = json!("false");
    ground.apply([unshared]).await?;
    settle(&ground, &hub, "peers", &[]).await?;
    ground.apply([headless("peers")]).await?;
    settle(&ground, &hub, "peers", &[("osaka", 1), ("tokyo", 5)]).await?;
    ground.delete(&headless("peers")).await?;
    settle(&ground, &hub, "peers", &[]).await?;
    ground.nothing_unsupported()
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_and_restarts_change_nothing() -> Result<()> {
    let ground = Ground::over(KubeApi::start().await?)?;
    ground.apply([namespace("shop", true), headless("peers")]).await?;
    let mut tokyo = ground.peer("tokyo", 2).await?;
    tokyo.has(offered("peers", 2, 0..3))?;
    let mut hub = ground.hub_with("steady", flags(&ground, &[]))?;
    hub.ready().await?;
    let before = settle(&ground, &hub, "peers", &[("tokyo", 3)]).await?;
    let link = |wanted: &'static str| {
        move |status: &Value| {
            let link = &status["remoteSlices"]["peers"]["tokyo"]["link"];
            ensure!(*link == wanted, "{link}, expected {wanted}");
            Ok(())
        }
    };
    tokyo.hub.kill().await?;
    hub.shows("the peer is silent", link("stale")).await?;
    // Another service is seen to: whatever was to be written has been.
    let shows_work = async |hub: &Hub, round: usize| -> Result<()> {
        let name = format!("other-{round}");
        ground.apply([headless(&name)]).await?;
        hub.publishes("another service", |records| {
            ensure!(records.contains_key(&format!("isthmus/v1/local/services/shop/{name}")), "not yet");
            Ok(())
        })
        .await?;
        let passes = |status: &Value| status["remoteSlices"]["passes"].as_u64().unwrap_or_default();
        let before_it = passes(&hub.status().await?);
        // One pass may have begun before the service was told.
        for (at, more) in ["a", "b"].into_iter().enumerate() {
            ground.apply([headless(&format!("{name}-{more}"))]).await?;
            hub.shows("a pass", |status| {
                ensure!(
                    passes(status) > before_it + at as u64,
                    "{} passes, {before_it} before",
                    passes(status)
                );
                Ok(())
            })
            .await?;
        }
        let after = ground.remote_slices().await?;
        assert_eq!(revisions(&after), revisions(&before), "round {round}");
        Ok(())
    };
    shows_work(&hub, 0).await?;
    // The hub begins anew and hears nothing of the peer.
    hub.kill().await?;
    hub.start()?;
    hub.ready().await?;
    hub.shows("the peer is not heard", link("joining")).await?;
    shows_work(&hub, 1).await?;
    tokyo.hub.start()?;
    hub.shows("the peer is back", link("fresh")).await?;
    shows_work(&hub, 2).await?;
    // A configuration that cannot be used is a peer, too.
    let file = ground.peers().join("tokyo");
    let text = fs::read_to_string(&file)?;
    fs::write(&file, "endpoints: 7\n")?;
    hub.shows("the file", |status| expect_finding(&status["findings"], &["peer-unusable", "tokyo"])).await?;
    shows_work(&hub, 3).await?;
    fs::write(&file, text)?;
    hub.shows("the file is right", |status| {
        ensure!(!has_finding(&status["findings"], &["peer-unusable"]), "still");
        Ok(())
    })
    .await?;
    shows_work(&hub, 4).await?;
    // Who is no longer a peer has no slices.
    fs::remove_file(&file)?;
    settle(&ground, &hub, "peers", &[]).await?;
    // And who comes back has.
    ground.tell_of("tokyo", &tokyo)?;
    settle(&ground, &hub, "peers", &[("tokyo", 3)]).await?;
    // What was made before the hub looked: the service is gone, and comes anew, while it is away.
    hub.kill().await?;
    ground.delete(&headless("peers")).await?;
    hub.start()?;
    hub.ready().await?;
    settle(&ground, &hub, "peers", &[]).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_changed_is_written_and_failures_are_got_over() -> Result<()> {
    let ground = Ground::small(SmallOptions::default()).await?;
    ground.load([namespace("shop", true), headless("peers")])?;
    let tokyo = ground.peer("tokyo", 2).await?;
    tokyo.has(offered("peers", 2, 0..250))?;
    let hub = ground.hub_with("careful", flags(&ground, &[]))?;
    hub.ready().await?;
    let slices = settle(&ground, &hub, "peers", &[("tokyo", 250)]).await?;
    let sizes: BTreeSet<usize> =
        slices.values().map(|slice| slice["endpoints"].as_array().map_or(0, Vec::len)).collect();
    ensure!(slices.len() == 3 && sizes.iter().all(|size| *size <= 100), "{sizes:?}");
    let resource = "endpointslices.discovery.k8s.io";
    let writes = || {
        let tally = ground.server().requests();
        ["create", "update", "delete"].map(|verb| tally.count(&format!("{verb} {resource}")))
    };
    assert_eq!(writes(), [3, 0, 0]);
    tokyo.has(offered("peers", 2, (0..250).filter(|n| *n != 7)))?;
    settle(&ground, &hub, "peers", &[("tokyo", 249)]).await?;
    assert_eq!(writes(), [3, 1, 0], "one slice of three");

    let only = |verb: &str| Requests::of(verb, resource);
    let answer = |verb: &str, status: u16| Fault::Answer {
        only: only(verb),
        status,
        retry_after_secs: None,
        count: Some(2),
    };
    for (round, status) in [409, 422, 429, 500, 503].into_iter().enumerate() {
        ground.inject(answer("update", status));
        tokyo.has(offered("peers", 2, 0..(240 - round)))?;
        settle(&ground, &hub, "peers", &[("tokyo", 240 - round)]).await.context(status)?;
    }
    // A name that another object has, which the hub does not know as one of the service's.
    let taken = {
        let mut probe = headless("taken");
        probe["metadata"]["name"] = json!("taken");
        tokyo.has(offered("peers", 2, 0..5).into_iter().chain(offered("taken", 2, 0..2)))?;
        ground.load([probe.clone()])?;
        let slices = settle(&ground, &hub, "taken", &[("tokyo", 2)]).await?;
        let name = slices.keys().find(|name| name.starts_with("taken-tokyo-")).context("a slice")?.clone();
        ground.delete(&probe).await?;
        settle(&ground, &hub, "taken", &[]).await?;
        let mut other = slice("somebody", &name, &["10.1.0.9".to_owned()]);
        other["metadata"]["labels"] = json!({});
        ground.load([other, probe])?;
        name
    };
    let slices = settle(&ground, &hub, "taken", &[("tokyo", 2)]).await?;
    ensure!(!slices.contains_key(&taken), "the other object is left alone");

    // Without the right, it is said which, and the rest of the hub goes on.
    for verb in ["create", "update", "delete"] {
        ground.inject(Fault::Deny { only: only(verb) });
    }
    tokyo.has(offered("peers", 2, 0..9).into_iter().chain(offered("taken", 2, 0..2)))?;
    hub.shows("the right that is missing", |status| {
        expect_finding(&status["findings"], &["slices-not-written", "verbs: [create, update, delete]"])
    })
    .await?;
    ground.load([service("late", "10.96.1.9")])?;
    hub.publishes("another service", |records| {
        ensure!(records.contains_key("cilium/state/services/v1/paris/shop/late"), "not yet");
        Ok(())
    })
    .await?;
    ground.inject(Fault::Clear);
    settle(&ground, &hub, "peers", &[("tokyo", 9)]).await?;
    hub.shows("no finding", |status| {
        ensure!(!has_finding(&status["findings"], &["slices-not-written"]), "still");
        Ok(())
    })
    .await?;
    let metrics = hub.page("/metrics").await?;
    for line in
        ["mesh_apiserver_remote_slices_endpoints 11", "writes_total{verb=\"update\",outcome=\"failure\"}"]
    {
        ensure!(metrics.contains(line), "no {line} in {metrics}");
    }
    ground.nothing_unsupported()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_agents_every_global_service_has_slices() -> Result<()> {
    let ground = Ground::over(KubeApi::start().await?)?;
    let with = |name: &str, number: u8, affinity: &str| {
        let mut service = service(name, &format!("10.96.1.{number}"));
        service["metadata"]["annotations"]["service.cilium.io/affinity"] = json!(affinity);
        service
    };
    let own = |name: &str, numbers: &[u8]| {
        let addresses: Vec<String> = numbers.iter().map(|n| format!("10.1.0.{n}")).collect();
        slice(name, &format!("{name}-own"), &addresses)
    };
    let services = [("any", "none"), ("near", "local"), ("far", "remote")];
    ground.apply([namespace("shop", true)]).await?;
    for (at, (name, affinity)) in (1..).zip(services) {
        ground.apply([with(name, at, affinity), own(name, &[at])]).await?;
    }
    let mut unasked = with("unasked", 9, "none");
    unasked["metadata"]["annotations"][SYNC] = json!("false");
    ground.apply([unasked]).await?;
    let tokyo = ground.peer("tokyo", 2).await?;
    let names = ["any", "near", "far", "unasked"];
    tokyo.has(names.into_iter().flat_map(|name| offered(name, 2, 0..2)))?;
    let hub = ground.hub_with("agentless", flags(&ground, &["--profile=agentless"]))?;
    hub.ready().await?;
    settle(&ground, &hub, "any", &[("tokyo", 2)]).await?;
    let slices = settle(&ground, &hub, "far", &[("tokyo", 2)]).await?;
    ensure!(addresses(&slices, "near").is_empty(), "there is a backend at home: {slices:#?}");
    ensure!(addresses(&slices, "unasked").is_empty(), "it asks for none: {slices:#?}");
    hub.shows("what kube-proxy cannot do", |status| {
        expect_finding(&status["findings"], &["affinity-not-kept", "shop/far"])
    })
    .await?;
    // The last backend at home goes, is not ready, comes back.
    ground.apply([own("near", &[])]).await?;
    settle(&ground, &hub, "near", &[("tokyo", 2)]).await?;
    ground.apply([own("near", &[2])]).await?;
    settle(&ground, &hub, "near", &[]).await?;
    let mut unready = own("near", &[2]);
    unready["endpoints"][0]["conditions"] = json!({"ready": false, "serving": false});
    ground.apply([unready]).await?;
    settle(&ground, &hub, "near", &[("tokyo", 2)]).await?;
    // The own slices are never touched.
    let records = hub.records().await?;
    ensure!(records.contains_key("cilium/state/endpointslices/v1/paris/shop/far-own"), "{records:#?}");
    ground.nothing_unsupported()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_replica_writes_and_the_next_writes_nothing_anew() -> Result<()> {
    let ground = Ground::over(KubeApi::start().await?)?;
    ground.apply([namespace("shop", true), headless("peers")]).await?;
    let tokyo = ground.peer("tokyo", 2).await?;
    tokyo.has(offered("peers", 2, 0..3))?;
    let etcd = ground.etcd()?;
    let mut leader = ground.replica_with("one", &etcd, flags(&ground, &[]))?;
    leader.ready().await?;
    let before = settle(&ground, &leader, "peers", &[("tokyo", 3)]).await?;
    let standby = ground.replica_with("two", &etcd, flags(&ground, &[]))?;
    standby.ready().await?;
    let waiting = |status: &Value| &status["remoteSlices"]["waitingFor"] == "another replica writes";
    standby
        .shows("it waits", |status| {
            ensure!(waiting(status), "{}", status["remoteSlices"]);
            Ok(())
        })
        .await?;
    leader.kill().await?;
    standby
        .shows("it writes", |status| {
            ensure!(
                !waiting(status) && status["remoteSlices"]["endpoints"] == 3,
                "{}",
                status["remoteSlices"]
            );
            Ok(())
        })
        .await?;
    assert_eq!(revisions(&ground.remote_slices().await?), revisions(&before));
    tokyo.has(offered("peers", 2, 0..4))?;
    settle(&ground, &standby, "peers", &[("tokyo", 4)]).await?;
    ground.nothing_unsupported()
}
