//! Un-sharing, un-globalling and deleting a service take its backends out everywhere.

use anyhow::Result;
use e2e::Lab;
use e2e::manifest::service::{GLOBAL, SHARED};
use e2e::scenario::{self, CLUSTERS, answered_by, echo};

async fn others_are_answered_by(lab: &Lab, clusters: &[&str]) -> Result<()> {
    for cluster in ["paris", "berlin"] {
        answered_by(&lab.client(cluster, "n1")?, clusters).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_unshared_service_serves_its_own_cluster_alone() -> Result<()> {
    let mut lab = scenario::running("unshare").await?;
    lab.service("tokyo", echo().annotation(SHARED, "false"))?;
    others_are_answered_by(&lab, &["paris", "berlin"]).await?;
    // It still imports: sharing is about what a cluster gives.
    answered_by(&lab.client("tokyo", "n1")?, &CLUSTERS).await?;
    lab.service("tokyo", echo())?;
    others_are_answered_by(&lab, &CLUSTERS).await?;
    lab.finish().await
}

#[tokio::test]
async fn a_service_that_is_no_longer_global_leaves_the_mesh() -> Result<()> {
    let mut lab = scenario::running("unglobal").await?;
    lab.service("tokyo", echo().without_annotation(GLOBAL))?;
    others_are_answered_by(&lab, &["paris", "berlin"]).await?;
    lab.service("tokyo", echo())?;
    others_are_answered_by(&lab, &CLUSTERS).await?;
    lab.finish().await
}

#[tokio::test]
async fn a_deleted_service_leaves_the_mesh() -> Result<()> {
    let mut lab = scenario::running("delete").await?;
    lab.delete_service("tokyo", "shop", "echo")?;
    others_are_answered_by(&lab, &["paris", "berlin"]).await?;
    lab.service("tokyo", echo())?;
    others_are_answered_by(&lab, &CLUSTERS).await?;
    lab.finish().await
}

#[tokio::test]
async fn a_namespace_can_leave_and_join() -> Result<()> {
    let mut lab = scenario::running("namespace").await?;
    lab.namespace("tokyo", "shop", &[("clustermesh.cilium.io/global", "false")])?;
    others_are_answered_by(&lab, &["paris", "berlin"]).await?;
    lab.namespace("tokyo", "shop", &[])?;
    others_are_answered_by(&lab, &CLUSTERS).await?;
    lab.finish().await
}
