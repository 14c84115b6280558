//! `kill -9` of a hub: agents go on with what they know, resume when it is back, and numbers stay.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::authority::Role;
use e2e::scenario::{self, BACKENDS, CLUSTERS, SOON, URL4};
use e2e::{Daemon, Lab, eventually, status};

/// The identities that a hub publishes: labels by number, and the revision at which each was written.
async fn identities(lab: &Lab, cluster: &str) -> Result<BTreeMap<String, String>> {
    let tls = lab.tls_dir(cluster, Role::Remote);
    let output =
        lab.etcdctl(cluster, Some(&tls), &["get", "--prefix", "cilium/state/identities/v1/"]).await?;
    ensure!(output.success, "etcdctl: {}", output.stderr);
    let mut lines = output.stdout.lines();
    let mut found = BTreeMap::new();
    while let (Some(key), Some(value)) = (lines.next(), lines.next()) {
        found.insert(key.to_owned(), value.to_owned());
    }
    Ok(found)
}

#[tokio::test]
async fn no_backend_is_lost_and_identities_keep_their_numbers() -> Result<()> {
    let mut lab = scenario::running("hub-crash").await?;
    let hub = Daemon::hub("tokyo");
    let numbers = identities(&lab, "tokyo").await?;
    ensure!(numbers.values().any(|labels| labels.contains("app=echo")), "{numbers:?}");
    let backends = status::backend_ids(&lab.image("paris", "n1").await?)?;

    let load = lab.client("paris", "n1")?.http(URL4).load(100)?;
    load.next(50, SOON).await?;
    lab.kill(&hub).await?;
    load.next(400, SOON).await?.expect_proportion(&BACKENDS, 0.5)?;
    let meanwhile = status::backend_ids(&lab.image("paris", "n1").await?)?;
    ensure!(meanwhile == backends, "before: {backends:#?}\nwhile the hub is down: {meanwhile:#?}");
    lab.restart(&hub).await?;
    load.next(200, SOON).await?;
    ensure!(identities(&lab, "tokyo").await? == numbers, "identities changed: {numbers:?}");

    // The agents follow the new hub: a change of after the restart arrives everywhere.
    scenario::start_backend(&mut lab, "tokyo", "echo-3").await?;
    for cluster in CLUSTERS {
        let client = lab.client(cluster, "n1")?;
        eventually(&format!("{cluster} sees the new backend"), SOON, || async {
            let tally = client.http(URL4).count(60).timeout(Duration::from_millis(500)).run().await?;
            ensure!(tally.pod("tokyo", "echo-3") > 0, "{tally}");
            Ok(())
        })
        .await?;
    }
    load.stop().await?.expect_clusters(&CLUSTERS)?;
    lab.finish().await
}

#[tokio::test]
async fn a_new_pod_with_known_labels_gets_the_known_number_after_a_restart() -> Result<()> {
    let mut lab = scenario::running("hub-identities").await?;
    let hub = Daemon::hub("paris");
    let numbers = identities(&lab, "paris").await?;
    lab.kill(&hub).await?;
    // While the hub is down the last pod with these labels goes and another one comes.
    lab.stop_pod("paris", "echo-1").await?;
    scenario::start_backend(&mut lab, "paris", "echo-2").await?;
    lab.restart(&hub).await?;
    let address = lab.pod_addresses("paris", "echo-2")?.v4.to_string();
    let tls = lab.tls_dir("paris", Role::Remote);
    eventually("the new pod's address is published with the old number", SOON, || async {
        let key = format!("cilium/state/ip/v1/default/{address}");
        let output = lab.etcdctl("paris", Some(&tls), &["get", "--print-value-only", &key]).await?;
        let value: serde_json::Value = serde_json::from_str(output.stdout.trim())
            .with_context(|| format!("{key}: {} {}", output.stdout, output.stderr))?;
        let identity = value["ID"].as_u64().with_context(|| value.to_string())?;
        let known = numbers.get(&format!("cilium/state/identities/v1/id/{identity}"));
        ensure!(known.is_some_and(|labels| labels.contains("app=echo")), "{value}; known are {numbers:?}");
        Ok(())
    })
    .await?;
    lab.finish().await
}

#[tokio::test]
async fn the_own_hub_may_be_down() -> Result<()> {
    let mut lab = scenario::running("own-hub").await?;
    let hub = Daemon::hub("paris");
    let load = lab.client("paris", "n1")?.http(URL4).load(100)?;
    load.next(50, SOON).await?;
    lab.kill(&hub).await?;
    // Peers are followed directly, so a change of theirs still arrives.
    lab.stop_pod("berlin", "echo-1").await?;
    load.until("berlin is out", 60, SOON, |tally| tally.expect_clusters(&["paris", "tokyo"])).await?;
    lab.restart(&hub).await?;
    // The agent is connected to the hub that came back, so what this says has been taken into account.
    let agent = Daemon::agent("paris", "n1");
    eventually("the own hub is followed again", SOON, || async {
        let status = lab.status(&agent).await?;
        ensure!(status["ownHub"]["state"] == "fresh", "{:#}", status["ownHub"]);
        Ok(())
    })
    .await?;
    load.until("still so", 60, SOON, |tally| tally.expect_clusters(&["paris", "tokyo"])).await?;
    lab.finish().await
}
