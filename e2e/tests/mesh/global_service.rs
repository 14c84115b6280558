//! A global service is answered by the backends of every cluster, over TCP and UDP, IPv4 and IPv6.

use anyhow::{Context, Result, ensure};
use e2e::scenario::{self, BACKENDS, UDP_MAPPED, UDP4, UDP6, URL_MAPPED, URL4, URL6};
use e2e::{Daemon, ServiceManifest, Tally};

/// With 400 answers and a quarter for the smallest cluster, 40 % away from it is more than four standard deviations.
const COUNT: u64 = 400;
const TOLERANCE: f64 = 0.4;

/// Every answer came in proportion, and the client's socket never saw anything but the service's address.
fn check(what: &str, service: &str, tally: &Tally) -> Result<()> {
    tally.expect_proportion(&BACKENDS, TOLERANCE)?;
    let peers: Vec<String> = tally.peers().iter().map(ToString::to_string).collect();
    ensure!(peers == [service], "{what}: the client saw peers {peers:?}, expected {service} alone");
    Ok(())
}

#[tokio::test]
async fn backends_of_all_clusters_answer_in_proportion() -> Result<()> {
    let lab = scenario::running("global-service").await?;
    for cluster in scenario::CLUSTERS {
        let client = lab.client(cluster, "n1")?;
        for (url, service) in
            [(URL4, "10.96.0.10:80"), (URL6, "[fd00:96::10]:80"), (URL_MAPPED, "[::ffff:10.96.0.10]:80")]
        {
            check(url, service, &client.http(url).count(COUNT).run().await?)?;
        }
        for address in [UDP4, UDP6, UDP_MAPPED] {
            check(address, address, &client.udp(address).count(COUNT).run().await?)?;
            check(address, address, &client.connected_udp(address).count(COUNT).run().await?)?;
        }
    }
    lab.finish().await
}

#[tokio::test]
async fn the_source_address_survives() -> Result<()> {
    let lab = scenario::running("source").await?;
    let (client, own) = (lab.client("paris", "n1")?, lab.pod_addresses("paris", "client-n1")?);
    for (tally, expected) in [
        (client.http(URL4).count(40).run().await?, std::net::IpAddr::from(own.v4)),
        (client.udp(UDP4).count(40).run().await?, own.v4.into()),
        (client.http(URL6).count(40).run().await?, own.v6.into()),
        (client.udp(UDP6).count(40).run().await?, own.v6.into()),
    ] {
        let seen: Vec<_> = tally.sources().iter().copied().collect();
        ensure!(seen == [expected], "backends saw {seen:?}, the client is {expected}: {tally}");
    }
    lab.finish().await
}

#[tokio::test]
async fn what_is_not_in_the_pods_cgroup_is_left_alone() -> Result<()> {
    let lab = scenario::running("host").await?;
    let host = lab.host_client("paris", "n1")?;
    let tally = host.http(URL4).timeout(std::time::Duration::from_millis(300)).run().await?;
    ensure!(tally.answered() == 0, "a process outside the agent's cgroup was balanced: {tally}");
    lab.finish().await
}

#[tokio::test]
async fn a_service_that_is_not_global_is_answered_by_nobody_through_us() -> Result<()> {
    let mut lab = scenario::running("not-global").await?;
    // The agent balances global services alone; the rest is kube-proxy's, which the lab does not have.
    lab.service(
        "paris",
        ServiceManifest::new("shop", "alone").vip4("10.96.0.11").port(80).selector(&[("app", "echo")]),
    )?;
    // A global one beside it, changed later, shows that the first has been read.
    lab.service(
        "paris",
        ServiceManifest::new("shop", "after")
            .vip4("10.96.0.12")
            .port(80)
            .selector(&[("app", "echo")])
            .global(),
    )?;
    let client = lab.client("paris", "n1")?;
    e2e::eventually("the later service answers", scenario::SOON, || async {
        client.http("http://10.96.0.12/").run().await?.expect_clusters(&["paris"])
    })
    .await?;
    let tally =
        client.http("http://10.96.0.11/").timeout(std::time::Duration::from_millis(300)).run().await?;
    ensure!(tally.answered() == 0, "{tally}");
    lab.finish().await
}

#[tokio::test]
async fn what_is_counted_is_what_happened() -> Result<()> {
    let lab = scenario::running("metrics").await?;
    let agent = Daemon::agent("paris", "n1");
    let before = translated(&lab.get(&agent, "/metrics").await?)?;
    lab.client("paris", "n1")?.http(URL4).count(50).run().await?;
    let text = lab.get(&agent, "/metrics").await?;
    let after = translated(&text)?;
    ensure!(
        after == before + 50,
        "50 connections were made, {before} before and {after} after were counted:\n{text}"
    );
    for series in [
        r#"mesh_agent_hubs{cluster="paris",state="fresh"} 1"#,
        r#"mesh_agent_hubs{cluster="tokyo",state="fresh"} 1"#,
        r#"mesh_agent_remote_nodes{cluster="tokyo",state="reachable"} 2"#,
        "mesh_agent_frontends_without_backends 0",
        "mesh_agent_map_write_failures_total 0",
    ] {
        ensure!(text.lines().any(|line| line == series), "no line {series:?} in\n{text}");
    }
    lab.finish().await
}

/// TCP connections that the programs sent on to a backend.
fn translated(metrics: &str) -> Result<u64> {
    let series = r#"mesh_agent_datapath_total{event="translated_tcp"} "#;
    let value = metrics.lines().find_map(|line| line.strip_prefix(series));
    Ok(value.with_context(|| format!("no series {series} in\n{metrics}"))?.parse()?)
}
