//! What a peer may bring in: an agent takes what the peer's configuration grants, live, and no address that the peer's
//! passport does not cover.

use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::scenario::{self, CLUSTERS, SOON, answered_by};
use e2e::status::{backend_ids, expect_finding};
use e2e::{Daemon, Lab, eventually};

/// What the agent of paris has in its configuration of tokyo, besides how tokyo is reached.
fn say(lab: &Lab, terms: &str) -> Result<()> {
    let file = lab.peers_dir("paris").join("tokyo");
    let text = fs::read_to_string(&file)?;
    let reached: String =
        text.lines().filter(|line| !line.starts_with("isthmus:")).fold(String::new(), |t, l| t + l + "\n");
    let temporary = lab.scratch("tokyo.tmp");
    fs::write(&temporary, format!("{reached}isthmus: {terms}\n"))?;
    fs::rename(temporary, file).context("replace the configuration")
}

#[tokio::test]
async fn a_grant_is_in_force_at_the_agent_at_once() -> Result<()> {
    let lab = scenario::running("import-grants").await?;
    let (client, agent) = (lab.client("paris", "n1")?, Daemon::agent("paris", "n1"));
    say(&lab, "{import: {namespaces: {exclude: [shop]}}}")?;
    answered_by(&client, &["paris", "berlin"]).await?;
    eventually("the agent says so", SOON, || async {
        expect_finding(&lab.status(&agent).await?, &["service shop/echo is not in the peer's import grant"])
    })
    .await?;
    // Others go on as they were, and so does tokyo itself.
    answered_by(&lab.client("tokyo", "n1")?, &CLUSTERS).await?;
    // Terms that are not known are not passed over: what was in force stays.
    say(&lab, "{imports: {}}")?;
    eventually("the agent says so", SOON, || async {
        expect_finding(&lab.status(&agent).await?, &["peer configuration", "tokyo", "unknown field"])
    })
    .await?;
    answered_by(&client, &["paris", "berlin"]).await?;
    say(&lab, "{import: {services: {include: [shop/*]}}}")?;
    answered_by(&client, &CLUSTERS).await?;
    lab.finish().await
}

#[tokio::test]
async fn addresses_of_others_reach_no_map() -> Result<()> {
    let mut lab = scenario::running("foreign-addresses").await?;
    let agent = Daemon::agent("paris", "n1");
    let stolen = lab.pod_addresses("berlin", "echo-1")?.v4;
    // Tokyo offers a backend of berlin as its own, with an identity of its own.
    let thief = format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{namespace: shop, name: thief, labels: {{kubernetes.io/service-name: echo}}}}\n\
         addressType: IPv4\nendpoints: [{{addresses: [\"{stolen}\"]}}, {{addresses: [\"198.51.100.7\"]}}]\n\
         ports: [{{name: http, port: 8080, protocol: TCP}}]\n"
    );
    lab.manifest("tokyo", "thief", &thief)?;
    eventually("the agent of paris refuses it", SOON, || async {
        let status = lab.status(&agent).await?;
        expect_finding(
            &status,
            &["cilium/state/services/v1/tokyo/shop/echo", "expected addresses in 10.3.0.0/16"],
        )
    })
    .await?;
    let ids = backend_ids(&lab.image("paris", "n1").await?)?;
    ensure!(ids.keys().all(|backend| !backend.contains("198.51.100.7")), "{ids:?}");
    // What is tokyo's own still answers.
    answered_by(&lab.client("paris", "n1")?, &CLUSTERS).await?;
    lab.finish().await
}
