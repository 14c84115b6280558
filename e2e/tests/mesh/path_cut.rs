//! A cut of the data path moves traffic; a cut of the control path alone does not.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::scenario::{self, CLUSTERS, SOON, UDP4, URL4, URL6, answered_by};
use e2e::{Link, eventually};

#[tokio::test]
async fn traffic_leaves_a_cut_data_path_and_comes_back() -> Result<()> {
    let mut lab = scenario::running("data-cut").await?;
    let client = lab.client("paris", "n1")?;
    let load = client.http(URL4).timeout(Duration::from_millis(500)).load(100)?;
    load.next(50, SOON).await?.expect_clusters(&CLUSTERS)?;

    let link = Link::data("paris", "tokyo");
    lab.cut(link.clone())?;
    let moved = |tally: &e2e::Tally| tally.expect_clusters(&["paris", "berlin"]);
    load.until("paris does without tokyo", 100, SOON, moved).await?;
    client.http(URL6).count(60).run().await?.expect_clusters(&["paris", "berlin"])?;
    client.udp(UDP4).count(60).run().await?.expect_clusters(&["paris", "berlin"])?;
    // It is a matter of this path: berlin reaches tokyo as before.
    answered_by(&lab.client("berlin", "n1")?, &CLUSTERS).await?;

    lab.heal(&link)?;
    load.until("paris uses tokyo again", 100, SOON, |tally| tally.expect_clusters(&CLUSTERS)).await?;
    lab.finish().await
}

#[tokio::test]
async fn a_cut_control_path_changes_nothing() -> Result<()> {
    let mut lab = scenario::running("control-cut").await?;
    let load = lab.client("paris", "n1")?.http(URL4).load(100)?;
    load.next(50, SOON).await?;
    let link = Link::control("paris", "tokyo");
    lab.cut(link.clone())?;
    // That the stream is really cut is seen by a change that does not arrive in paris, but does in berlin.
    scenario::start_backend(&mut lab, "tokyo", "echo-3").await?;
    let berlin = lab.client("berlin", "n1")?;
    eventually("berlin sees the new backend", SOON, || async {
        let tally = berlin.http(URL4).count(60).run().await?;
        ensure!(tally.pod("tokyo", "echo-3") > 0, "{tally}");
        Ok(())
    })
    .await?;
    let during = load.next(500, SOON).await?;
    during.expect_clusters(&CLUSTERS)?;
    ensure!(during.pod("tokyo", "echo-3") == 0, "the control path is not cut: {during}");

    lab.heal(&link)?;
    load.until("paris catches up", 100, Duration::from_secs(60), |tally| {
        tally.expect_clusters(&CLUSTERS)?;
        ensure!(tally.pod("tokyo", "echo-3") > 0, "{tally}");
        Ok(())
    })
    .await?;
    load.stop().await?.expect_clusters(&CLUSTERS)?;
    lab.finish().await
}
