//! `bench first-light`: from a manifest in one cluster to a map entry in another, and what `connect()` costs.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Row, percentile};
use crate::lab::{ClusterSpec, Lab};
use crate::manifest::ServiceManifest;
use crate::pod_program::connect_cost::SocketKind;
use crate::pod_program::flip::Verdict;
use crate::wait::eventually;

const SOON: Duration = Duration::from_secs(30);
const SERVICE: &str = "10.96.0.10";
const UDP: &str = "10.96.0.10:90";
/// Sockets connected for each figure.
const CONNECTS: u64 = 5000;

/// Measures in a lab of two clusters, with `changes` changes of one endpoint, and gives the rows.
pub async fn first_light(changes: u64) -> Result<Vec<Row>> {
    let mut lab = Lab::builder("bench-first-light")
        .cluster(ClusterSpec::new("paris", 1))
        .cluster(ClusterSpec::new("tokyo", 2))
        .start()
        .await?;
    let service = || ServiceManifest::new("shop", "echo").vip4(SERVICE).udp_port(90).port(80).global();
    lab.service("paris", service())?;
    lab.service("tokyo", service())?;
    lab.pod("tokyo", "n1", "shop", "echo-1").label("app", "echo").serves_udp(9000).start().await?;
    let mut rows = propagation(&mut lab, changes).await?;
    rows.extend(connect(&mut lab).await?);
    lab.finish().await?;
    Ok(rows)
}

/// Makes tokyo's only endpoint unready and ready again, and times how soon a pod in paris is refused and connected.
async fn propagation(lab: &mut Lab, changes: u64) -> Result<Vec<Row>> {
    let client = lab.client("paris", "n1")?;
    eventually("tokyo's backend answers in paris", SOON, || async {
        client.udp(UDP).timeout(Duration::from_millis(300)).run().await?.expect_clusters(&["tokyo"])
    })
    .await?;
    let slice = lab.site().cluster_dir("tokyo").join("manifests").join("shop.endpointslice.echo-ipv4.yaml");
    let ready = fs::read(&slice).context("read the slice")?;
    lab.set_pod_ready("tokyo", "echo-1", false)?;
    let unready = fs::read(&slice).context("read the slice")?;
    eventually("the service is refused in paris", SOON, || async {
        let tally = client.udp(UDP).timeout(Duration::from_millis(300)).run().await?;
        ensure!(tally.failed() == 1, "{tally}");
        Ok(())
    })
    .await?;
    let staged = lab.site().cluster_dir("tokyo").join("staging").join("flip");
    let (mut appear, mut leave) = (Vec::new(), Vec::new());
    for change in 0..changes {
        let (text, verdict, samples) = if change % 2 == 0 {
            (&ready, Verdict::Connected, &mut appear)
        } else {
            (&unready, Verdict::Refused, &mut leave)
        };
        fs::write(&staged, text).context("stage the slice")?;
        samples.push(client.flip(&staged, &slice, UDP, verdict).await?.took_us);
    }
    lab.set_pod_ready("tokyo", "echo-1", true)?;
    let mut rows = Vec::new();
    for (what, samples) in [("new", appear), ("gone", leave)] {
        for (part, target) in [(50, 5.0), (99, 15.0)] {
            rows.push(Row {
                what: format!("EndpointSlice file changed -> map entry {what} in a peer, p{part}"),
                figure: percentile(&samples, part) as f64 / 1000.0,
                target: Some(target),
                unit: "ms",
            });
        }
    }
    Ok(rows)
}

/// Compares `connect()` outside every cgroup of ours, inside but to a plain address, and inside to the service. All to
/// one pod of the same node, so that the way is the same.
async fn connect(lab: &mut Lab) -> Result<Vec<Row>> {
    let backend = lab.pod("paris", "n1", "shop", "near-1").label("app", "near").serves_http(8080);
    let backend = backend.serves_udp(9000).start().await?;
    let near = ServiceManifest::new("shop", "near").vip4("10.96.0.11").port(80).udp_port(90).global();
    lab.service("paris", near)?;
    let client = lab.client("paris", "n1")?;
    eventually("the near service answers", SOON, || async {
        client.http("http://10.96.0.11/").run().await?.expect_clusters(&["paris"])
    })
    .await?;
    // The same pod's namespace, but another cgroup: all that differs is sock_lb.
    let outside = lab.client_outside_cgroup("paris", "n1")?;
    let mut rows = Vec::new();
    for (kind, name, port, service, most) in [
        (SocketKind::Udp, "UDP", 9000, "10.96.0.11:90", 3000.0),
        (SocketKind::Tcp, "TCP", 8080, "10.96.0.11:80", 3000.0),
    ] {
        let direct = format!("{}:{port}", backend.v4);
        let without = outside.connect_cost(kind, &direct, CONNECTS).await?.median_ns as f64;
        let passed = client.connect_cost(kind, &direct, CONNECTS).await?.median_ns as f64;
        let balanced = client.connect_cost(kind, service, CONNECTS).await?.median_ns as f64;
        for (what, figure, target) in [
            ("without sock_lb, to a pod", without, None),
            ("with sock_lb, to the same pod (passed)", passed, Some(without + most)),
            ("with sock_lb, to the service (balanced)", balanced, Some(without + most)),
        ] {
            rows.push(Row { what: format!("connect() {name} {what}, p50"), figure, target, unit: "ns" });
        }
    }
    Ok(rows)
}
