//! `kill -9` of an agent: traffic goes on, and the agent that comes back changes nothing that need not change.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::scenario::{self, CLUSTERS, SOON, URL4, answered_by};
use e2e::{Daemon, status};

#[tokio::test]
async fn traffic_goes_on_and_backend_ids_stay() -> Result<()> {
    let mut lab = scenario::running("agent-crash").await?;
    let agent = Daemon::agent("paris", "n1");
    let before = status::backend_ids(&lab.image("paris", "n1").await?)?;
    ensure!(before.len() == 16, "4 backends, 2 families, 2 ports: expected 16 entries, saw {before:#?}");

    let load = lab.client("paris", "n1")?.http(URL4).load(100)?;
    load.next(50, SOON).await?;
    lab.kill(&agent).await?;
    let without = load.next(300, SOON).await?;
    without.expect_clusters(&CLUSTERS)?;
    lab.restart(&agent).await?;
    load.next(100, SOON).await?;
    load.stop().await?.expect_clusters(&CLUSTERS)?;

    let after = status::backend_ids(&lab.image("paris", "n1").await?)?;
    ensure!(before == after, "backend ids changed\nbefore: {before:#?}\nafter: {after:#?}");
    lab.finish().await
}

#[tokio::test]
async fn what_changed_meanwhile_is_caught_up() -> Result<()> {
    let mut lab = scenario::running("agent-catches-up").await?;
    let agent = Daemon::agent("paris", "n1");
    let before = status::backend_ids(&lab.image("paris", "n1").await?)?;
    let leaving = lab.pod_addresses("tokyo", "echo-1")?;
    let leaving = [leaving.v4.to_string(), leaving.v6.to_string()];
    lab.kill(&agent).await?;
    lab.stop_pod("tokyo", "echo-1").await?;
    scenario::start_backend(&mut lab, "berlin", "echo-2").await?;
    lab.restart(&agent).await?;

    let client = lab.client("paris", "n1")?;
    e2e::eventually("the new backend answers, the old one is not asked", SOON, || async {
        let tally = client.http(URL4).count(60).timeout(Duration::from_millis(500)).run().await?;
        tally.expect_clusters(&CLUSTERS)?;
        ensure!(tally.pod("berlin", "echo-2") > 0 && tally.pod("tokyo", "echo-1") == 0, "{tally}");
        Ok(())
    })
    .await?;
    let after = status::backend_ids(&lab.image("paris", "n1").await?)?;
    for (backend, id) in &before {
        let left = leaving.iter().any(|address| backend.contains(address));
        ensure!(
            left || after.get(backend) == Some(id),
            "backend {backend} had id {id}, now {:?}",
            after.get(backend)
        );
    }
    lab.finish().await
}

#[tokio::test]
async fn a_clean_end_keeps_traffic_too() -> Result<()> {
    let mut lab = scenario::running("agent-term").await?;
    let agent = Daemon::agent("paris", "n1");
    let load = lab.client("paris", "n1")?.http(URL4).load(100)?;
    load.next(50, SOON).await?;
    lab.terminate(&agent).await?;
    load.next(100, SOON).await?;
    lab.restart(&agent).await?;
    load.next(100, SOON).await?;
    load.stop().await?.expect_clusters(&CLUSTERS)?;
    answered_by(&lab.client("paris", "n1")?, &CLUSTERS).await?;
    lab.finish().await
}
