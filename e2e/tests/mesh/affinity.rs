//! `service.cilium.io/affinity`: which clusters answer, and how it changes with the backends that are there.

use anyhow::Result;
use e2e::manifest::service::{AFFINITY, SHARED};
use e2e::scenario::{self, CLUSTERS, answered_by, echo};

#[tokio::test]
async fn local_stays_local_moves_when_the_last_one_leaves_and_comes_back() -> Result<()> {
    let mut lab = scenario::running("affinity-local").await?;
    let paris = lab.client("paris", "n1")?;
    lab.service("paris", echo().annotation(AFFINITY, "local"))?;
    answered_by(&paris, &["paris"]).await?;
    // The annotation is the client's side: another cluster without it goes on as before.
    answered_by(&lab.client("berlin", "n1")?, &CLUSTERS).await?;

    scenario::start_backend(&mut lab, "paris", "echo-2").await?;
    lab.stop_pod("paris", "echo-1").await?;
    answered_by(&paris, &["paris"]).await?;
    lab.stop_pod("paris", "echo-2").await?;
    answered_by(&paris, &["berlin", "tokyo"]).await?;
    scenario::start_backend(&mut lab, "paris", "echo-3").await?;
    answered_by(&paris, &["paris"]).await?;
    lab.finish().await
}

#[tokio::test]
async fn an_unready_backend_counts_as_gone() -> Result<()> {
    let mut lab = scenario::running("affinity-ready").await?;
    let paris = lab.client("paris", "n1")?;
    lab.service("paris", echo().annotation(AFFINITY, "local"))?;
    answered_by(&paris, &["paris"]).await?;
    lab.set_pod_ready("paris", "echo-1", false)?;
    answered_by(&paris, &["berlin", "tokyo"]).await?;
    lab.set_pod_ready("paris", "echo-1", true)?;
    answered_by(&paris, &["paris"]).await?;
    lab.finish().await
}

#[tokio::test]
async fn remote_prefers_the_others_and_falls_back_to_itself() -> Result<()> {
    let mut lab = scenario::running("affinity-remote").await?;
    let paris = lab.client("paris", "n1")?;
    lab.service("paris", echo().annotation(AFFINITY, "remote"))?;
    answered_by(&paris, &["berlin", "tokyo"]).await?;
    for cluster in ["berlin", "tokyo"] {
        lab.service(cluster, echo().annotation(SHARED, "false"))?;
    }
    answered_by(&paris, &["paris"]).await?;
    lab.service("tokyo", echo())?;
    answered_by(&paris, &["tokyo"]).await?;
    lab.finish().await
}

#[tokio::test]
async fn none_and_unknown_values_mean_all() -> Result<()> {
    let mut lab = scenario::running("affinity-none").await?;
    let paris = lab.client("paris", "n1")?;
    for value in ["none", "sideways", ""] {
        // From a value with an effect, so that the change can be seen.
        lab.service("paris", echo().annotation(AFFINITY, "local"))?;
        answered_by(&paris, &["paris"]).await?;
        lab.service("paris", echo().annotation(AFFINITY, value))?;
        answered_by(&paris, &CLUSTERS).await?;
    }
    lab.finish().await
}
