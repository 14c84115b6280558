//! The lab itself, without daemons: pods reach each other over the wan, cuts cut, and nothing stays behind.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::path::Traffic;
use e2e::remains::{self, Remains};
use e2e::site::{LabId, Site};
use e2e::{ClusterSpec, Lab, Link, eventually};

const SOON: Duration = Duration::from_secs(20);

async fn two_clusters(name: &str) -> Result<Lab> {
    let mut lab = Lab::builder(name)
        .cluster(ClusterSpec::new("paris", 1).nodes(2))
        .cluster(ClusterSpec::new("tokyo", 2))
        .without_daemons()
        .start()
        .await?;
    lab.pod("paris", "n2", "shop", "echo-1").serves_http(8080).serves_udp(9000).start().await?;
    lab.pod("tokyo", "n1", "shop", "echo-2").serves_http(8080).serves_udp(9000).start().await?;
    Ok(lab)
}

#[tokio::test]
async fn pods_of_all_clusters_reach_each_other() -> Result<()> {
    let lab = two_clusters("reach").await?;
    for (cluster, pod) in [("paris", "echo-1"), ("tokyo", "echo-2")] {
        let to = lab.pod_addresses(cluster, pod)?;
        for (from, node) in [("paris", "n1"), ("paris", "n2"), ("tokyo", "n1")] {
            let client = lab.client(from, node)?;
            for tally in [
                client.http(&format!("http://{}:8080/", to.v4)).count(3).run().await?,
                client.http(&format!("http://[{}]:8080/", to.v6)).count(3).run().await?,
                client.http(&format!("http://[::ffff:{}]:8080/", to.v4)).count(3).run().await?,
                client.http(&format!("http://{}:8080/", to.v4)).count(3).keep().run().await?,
                client.udp(&format!("{}:9000", to.v4)).count(3).run().await?,
                client.udp(&format!("[{}]:9000", to.v6)).count(3).run().await?,
                client.connected_udp(&format!("[{}]:9000", to.v6)).count(3).run().await?,
            ] {
                ensure!(tally.pod(cluster, pod) == 3 && tally.failed() == 0, "{from}/{node}: {tally}");
                let own = lab.pod_addresses(from, &format!("client-{node}"))?;
                ensure!(
                    tally.sources().iter().all(|source| *source == own.v4 || *source == own.v6),
                    "the source must survive the way: backend saw {:?}, the pod is {own:?}",
                    tally.sources()
                );
            }
        }
    }
    lab.finish().await
}

#[tokio::test]
async fn a_node_reaches_its_pods_and_the_peers() -> Result<()> {
    let lab = two_clusters("node").await?;
    let to = lab.pod_addresses("paris", "echo-1")?;
    for (cluster, node) in [("paris", "n2"), ("tokyo", "n1")] {
        let client = lab.host_client(cluster, node)?;
        client.http(&format!("http://{}:8080/", to.v4)).run().await?.expect_clusters(&["paris"])?;
        client.http(&format!("http://[{}]:8080/", to.v6)).run().await?.expect_clusters(&["paris"])?;
    }
    lab.finish().await
}

#[tokio::test]
async fn cuts_cut_what_they_say_and_heal() -> Result<()> {
    let mut lab = two_clusters("cut").await?;
    // A pod that listens on the hub's port stands for the control path here.
    lab.pod("tokyo", "n1", "shop", "control").serves_http(2379).start().await?;
    let (data, control) = (lab.pod_addresses("tokyo", "echo-2")?, lab.pod_addresses("tokyo", "control")?);
    let client = lab.client("paris", "n1")?;
    let wait = Duration::from_millis(300);
    let asks = [
        ("data over IPv4", client.http(&format!("http://{}:8080/", data.v4)).timeout(wait), true),
        ("data over IPv6", client.http(&format!("http://[{}]:8080/", data.v6)).timeout(wait), true),
        ("data over UDP", client.udp(&format!("{}:9000", data.v4)).timeout(wait), true),
        ("control over IPv4", client.http(&format!("http://{}:2379/", control.v4)).timeout(wait), false),
        ("control over IPv6", client.http(&format!("http://[{}]:2379/", control.v6)).timeout(wait), false),
    ];
    let links = [
        (Link::data("tokyo", "paris"), [true, false]),
        (Link::control("paris", "tokyo"), [false, true]),
        (Link::all("paris", "tokyo"), [true, true]),
        (Link::around("tokyo", Traffic::All), [true, true]),
    ];
    for (link, [cuts_data, cuts_control]) in links {
        lab.cut(link.clone())?;
        for (what, ask, is_data) in &asks {
            let tally = ask.clone().run().await?;
            let cut = if *is_data { cuts_data } else { cuts_control };
            ensure!((tally.failed() == 1) == cut, "{link}: {what}: expected cut {cut}, saw {tally}");
        }
        // Inside the cluster nothing changes.
        let inside = format!("http://{}:8080/", lab.pod_addresses("paris", "echo-1")?.v4);
        client.http(&inside).run().await?.expect_clusters(&["paris"])?;
        lab.heal(&link)?;
        for (what, ask, _) in &asks {
            let tally = ask.clone().run().await?;
            ensure!(tally.failed() == 0, "{link} healed: {what}: saw {tally}");
        }
    }
    lab.finish().await
}

#[tokio::test]
async fn a_load_sees_a_cut_and_its_end() -> Result<()> {
    let mut lab = two_clusters("load").await?;
    let url = format!("http://{}:8080/", lab.pod_addresses("tokyo", "echo-2")?.v4);
    let load = lab.client("paris", "n1")?.http(&url).timeout(Duration::from_millis(300)).load(100)?;
    load.next(20, SOON).await?.expect_clusters(&["tokyo"])?;
    lab.cut(Link::data("paris", "tokyo"))?;
    load.until("all fail", 20, SOON, |tally| {
        ensure!(tally.answered() == 0, "{tally}");
        Ok(())
    })
    .await?;
    lab.heal(&Link::data("paris", "tokyo"))?;
    load.until("none fails", 20, SOON, |tally| tally.expect_clusters(&["tokyo"])).await?;
    let whole = load.stop().await?;
    ensure!(whole.answered() > 0 && whole.failed() > 0, "{whole}");
    lab.finish().await
}

#[tokio::test]
async fn a_stopped_pod_is_gone_with_its_objects() -> Result<()> {
    let mut lab = two_clusters("stop").await?;
    let manifests = lab.site().cluster_dir("tokyo").join("manifests");
    lab.service("tokyo", e2e::ServiceManifest::new("shop", "echo").vip4("10.96.0.10").port(80))?;
    lab.pod("tokyo", "n1", "shop", "echo-3").label("app", "echo").serves_http(8080).start().await?;
    let slice = manifests.join("shop.endpointslice.echo-ipv4.yaml");
    let addresses = lab.pod_addresses("tokyo", "echo-3")?;
    let text = std::fs::read_to_string(&slice).context("slice")?;
    ensure!(text.contains(&addresses.v4.to_string()), "{text}");
    lab.stop_pod("tokyo", "echo-3").await?;
    let text = std::fs::read_to_string(&slice).context("slice")?;
    ensure!(!text.contains(&addresses.v4.to_string()), "{text}");
    ensure!(!manifests.join("shop.pod.echo-3.yaml").exists(), "the Pod object is still there");
    let tally = lab
        .client("paris", "n1")?
        .http(&format!("http://{}:8080/", addresses.v4))
        .timeout(Duration::from_millis(300))
        .run()
        .await?;
    ensure!(tally.failed() == 1, "{tally}");
    lab.finish().await
}

/// Runs in a process of its own (see below): makes a lab, says its id, and waits to be killed.
#[tokio::test]
#[ignore = "the part of the killed process in the tests below"]
async fn owner_that_is_killed() -> Result<()> {
    let lab = two_clusters("killed").await?;
    println!("\nlab {} guardian {}", lab.site().id(), lab.guardian_pid());
    std::future::pending().await
}

struct KilledOwner {
    child: std::process::Child,
    site: Site,
    guardian: u32,
}

fn owner() -> Result<KilledOwner> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--ignored", "--exact", "lab::owner_that_is_killed", "--nocapture", "--test-threads=1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("start the owner")?;
    let stdout = child.stdout.take().context("output of the owner")?;
    let mut seen = String::new();
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        if let ["lab", id, "guardian", pid] = words.as_slice() {
            let site = Site::of(id.parse::<LabId>()?)?;
            return Ok(KilledOwner { child, site, guardian: pid.parse()? });
        }
        seen.push_str(&line);
        seen.push('\n');
    }
    anyhow::bail!("the owner ended without a lab; it said:\n{seen}");
}

async fn gone(site: &Site) -> Result<()> {
    eventually("nothing is left of the lab", SOON, || async {
        let left = Remains::of(site)?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_killed_owner_leaves_nothing_behind() -> Result<()> {
    let KilledOwner { mut child, site, .. } = owner()?;
    let before = Remains::of(&site)?;
    ensure!(before.namespaces.len() == 9 && before.cgroup.is_some() && before.pins.is_some(), "{before}");
    child.kill()?;
    child.wait()?;
    gone(&site).await?;
    std::fs::remove_dir_all(site.dir()).context("directory of the killed lab")
}

#[tokio::test]
async fn leftovers_are_found_by_a_later_lab() -> Result<()> {
    let KilledOwner { mut child, site, guardian } = owner()?;
    ensure!(!remains::leftovers()?.contains(site.id()), "a lab whose owner runs is no leftover");
    // Without its guardian a killed lab stays, as after a crash of everything.
    let guardian = rustix::process::Pid::from_raw(guardian.cast_signed()).context("pid")?;
    rustix::process::kill_process(guardian, rustix::process::Signal::KILL)?;
    child.kill()?;
    child.wait()?;
    // Another test's lab may sweep at the same moment; then it is gone already.
    let found = remains::leftovers()?.contains(site.id());
    ensure!(found || Remains::of(&site)?.is_empty(), "not found: {}", Remains::of(&site)?);
    let lab = Lab::builder("sweeper").cluster(ClusterSpec::new("oslo", 3)).without_daemons().start().await?;
    gone(&site).await?;
    std::fs::remove_dir_all(site.dir()).context("directory of the killed lab")?;
    lab.finish().await
}
