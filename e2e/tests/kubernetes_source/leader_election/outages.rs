//! The API server or etcd away, for all replicas or for the one that leads.

use anyhow::{Result, ensure};
use e2e::kube_api::{Fault, Requests, SmallOptions};
use e2e::status::has_finding;

use super::{is_fed, leads, lease, reigns};
use crate::ground::{Ground, digest};
use crate::objects::cluster;
use crate::{SERVICES, has};

const LEASES: &str = "leases.coordination.k8s.io";

#[tokio::test(flavor = "multi_thread")]
async fn nothing_vanishes_and_nobody_follows_while_the_api_server_is_away() -> Result<()> {
    let ground = Ground::small(SmallOptions::default()).await?;
    ground.load(cluster())?;
    let etcd = ground.etcd()?;
    let first = ground.replica("a", &etcd)?;
    reigns(&first).await?;
    first.ready().await?;
    let second = ground.replica("b", &etcd)?;
    second.ready().await?;
    let (before, held) = (digest(&first.records().await?), lease(&ground).await?);
    let away = |only: Requests| Fault::Answer { only, status: 503, retry_after_secs: None, count: None };
    ground.inject(away(Requests::all()));
    ground.inject(Fault::DropWatches { broken: true });
    for hub in [&first, &second] {
        hub.shows("the Lease elects nobody", |status| {
            ensure!(has_finding(&status["findings"], &["leader-lease", "503"]), "no finding");
            ensure!(status["store"]["etcd"]["leader"] == "a", "{:#}", status["store"]["etcd"]);
            ensure!(status["store"]["etcd"]["lease"]["usable"] == false, "{:#}", status["store"]["etcd"]);
            Ok(())
        })
        .await?;
        assert_eq!(digest(&hub.records().await?), before);
    }
    ground.inject(Fault::Clear);
    reigns(&first).await?;
    second
        .shows("the Lease elects again", |status| {
            ensure!(!has_finding(&status["findings"], &["leader-lease"]), "a finding");
            Ok(())
        })
        .await?;
    assert_eq!(digest(&is_fed(&ground, &first).await?), before);
    assert_eq!(lease(&ground).await?, held, "the same holder all the time");
    ensure!(!second.log().contains("this replica writes from now on"), "{}", second.log());
    ground.nothing_unsupported()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_cut_off_from_the_api_server_is_deposed() -> Result<()> {
    let ground = Ground::small(SmallOptions::default()).await?;
    ground.load(cluster())?;
    let etcd = ground.etcd()?;
    let relay = ground.relay().await?;
    let first = ground.replica_through(&relay, "a", &etcd)?;
    reigns(&first).await?;
    first.ready().await?;
    let second = ground.replica("b", &etcd)?;
    second.ready().await?;
    let before = digest(&first.records().await?);
    relay.cut();
    reigns(&second).await?;
    leads(&first, false).await?;
    ensure!(second.log().contains("a replica that led without the Lease"), "{}", second.log());
    assert_eq!(digest(&is_fed(&ground, &second).await?), before);
    // It serves on, what the other one writes.
    first.publishes("the change", |records| has(records, &format!("{SERVICES}marker"))).await?;
    relay.mend();
    first
        .shows("it stands by", |status| {
            let lease = &status["store"]["etcd"]["lease"];
            ensure!(lease["usable"] == true && lease["holder"] == "b" && lease["held"] == false, "{lease:#}");
            Ok(())
        })
        .await?;
    reigns(&second).await?;
    assert_eq!(lease(&ground).await?, ("b".to_owned(), 1));
    ground.nothing_unsupported()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_leases_etcd_alone_elects() -> Result<()> {
    let ground = Ground::small(SmallOptions::default()).await?;
    ground.load(cluster())?;
    let only = Requests { resource: Some(LEASES.to_owned()), ..Requests::default() };
    ground.inject(Fault::Deny { only });
    let etcd = ground.etcd()?;
    let mut first = ground.replica("a", &etcd)?;
    leads(&first, true).await?;
    first.ready().await?;
    let second = ground.replica("b", &etcd)?;
    second.ready().await?;
    for hub in [&first, &second] {
        hub.shows("it says so", |status| {
            let words = ["leader-lease", "403", "Role rule {apiGroups: [coordination.k8s.io]"];
            ensure!(has_finding(&status["findings"], &words), "no finding");
            Ok(())
        })
        .await?;
    }
    let before = digest(&first.records().await?);
    first.kill().await?;
    leads(&second, true).await?;
    assert_eq!(digest(&is_fed(&ground, &second).await?), before);
    // Once it is allowed, the leader of the moment takes the Lease, and goes on.
    ground.inject(Fault::Clear);
    reigns(&second).await?;
    assert_eq!(lease(&ground).await?, ("b".to_owned(), 0));
    let terms = second.log().matches("this replica writes from now on").count();
    assert_eq!(terms, 1, "{}", second.log());
    ground.nothing_unsupported()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_cut_off_from_etcd_leaves_the_lease_to_others() -> Result<()> {
    let ground = Ground::small(SmallOptions::default()).await?;
    ground.load(cluster())?;
    let etcd = ground.etcd()?;
    let (relay, at_its_end) = etcd.relay().await?;
    let first = ground.replica("a", &at_its_end)?;
    reigns(&first).await?;
    first.ready().await?;
    let second = ground.replica("b", &etcd)?;
    second.ready().await?;
    let before = digest(&first.records().await?);
    relay.cut();
    reigns(&second).await?;
    leads(&first, false).await?;
    assert_eq!(digest(&first.records().await?), before, "it serves what it has");
    assert_eq!(digest(&is_fed(&ground, &second).await?), before);
    relay.mend();
    first.publishes("the change", |records| has(records, &format!("{SERVICES}marker"))).await?;
    assert_eq!(lease(&ground).await?, ("b".to_owned(), 1));
    ground.nothing_unsupported()
}
