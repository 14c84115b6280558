//! The demo: three clusters in two regions, one service, who answers it, and what happens when a path is cut, a control
//! path is cut, an agent dies. It prints what it does, and at the end what held.

mod table;

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::Instant;

use crate::addressing::{SERVICE_CIDR_4, SERVICE_CIDR_6, node_block, pod_block};
use crate::client::Load;
use crate::lab::Lab;
use crate::manifest;
use crate::path::Link;
use crate::process::Daemon;
use crate::scenario::{self, CLUSTERS, URL4, URL6};
use crate::tally::Tally;
use table::Table;

/// Requests a second.
const RATE: u32 = 100;
/// When one request is given up.
const GIVE_UP: Duration = Duration::from_millis(500);
/// How long a shift of traffic may take.
const SHIFT: Duration = Duration::from_secs(20);
/// How long a state that should stay is watched.
const WATCH: Duration = Duration::from_secs(3);

/// What the demo claimed, and whether it held.
#[derive(Debug, Default)]
pub struct Summary {
    lines: Vec<String>,
}

/// Runs the demo. Fails with the first claim that did not hold; the lab then says where to look. With `keep` the lab
/// stays.
pub async fn run(keep: bool) -> Result<Summary> {
    let mut summary = Summary::default();
    say("Three clusters in two regions: a hub and an agent each, real mTLS, real BPF programs");
    let begun = Instant::now();
    let mut lab = scenario::three_clusters("demo").keep(keep).start().await?;
    println!("  {:<8} {:<7} {:<14} {:<28} services", "cluster", "region", "pods", "");
    for (id, (name, region)) in (1..).zip([("paris", "eu"), ("berlin", "eu"), ("tokyo", "asia")]) {
        let (pods, nodes) = (pod_block(id), node_block(id));
        println!("  {name:<8} {region:<7} {:<14} {:<28} {SERVICE_CIDR_4} {SERVICE_CIDR_6}", pods.v4, pods.v6);
        println!("  {:<8} {:<7} nodes {} {}", "", "", nodes.v4, nodes.v6);
    }
    summary.add(format!(
        "three clusters enrolled, connected and ready in {:.1} s",
        begun.elapsed().as_secs_f64()
    ));

    say("The same Service in all three, with one annotation; tokyo has two backends, the others one each");
    println!("{}", indented(&manifest::yaml(&scenario::echo().object())?));
    let applied = Instant::now();
    scenario::populate(&mut lab).await?;
    let client = lab.client("paris", "n1")?;
    let tally = scenario::answered_by(&client, &CLUSTERS).await?;
    summary.add(format!(
        "a pod in paris is answered by all three, over IPv4 and IPv6, {:.1} s after the manifests",
        applied.elapsed().as_secs_f64()
    ));
    println!("  60 requests to {URL6}: {tally}");

    say(&format!("{RATE} requests a second from a pod in paris to {URL4}; a row each half second"));
    let load = client.http(URL4).timeout(GIVE_UP).load(RATE)?;
    let mut table = Table::new(&CLUSTERS);
    table.watch(&load, WATCH).await;
    load.tally().expect_clusters(&CLUSTERS)?;

    data_path(&mut lab, &load, &mut table, &mut summary).await?;
    control_path(&mut lab, &load, &mut table, &mut summary).await?;
    agent(&mut lab, &load, &mut table, &mut summary).await?;

    let whole = load.stop().await?;
    println!("\n  all requests: {whole}");
    say("Status pages (JSON), while a lab runs:");
    for cluster in CLUSTERS {
        let netns = lab.site().node_netns(cluster, "n1");
        println!("  nsenter --net=/run/netns/{netns} curl -s http://127.0.0.1:9970/status   # hub: 9980");
    }
    lab.finish().await?;
    Ok(summary)
}

/// Cuts the data path between paris and tokyo, and heals it.
async fn data_path(lab: &mut Lab, load: &Load, table: &mut Table<'_>, summary: &mut Summary) -> Result<()> {
    say("Cut: data path paris - tokyo (pods and probes; the hubs still talk)");
    let link = Link::data("paris", "tokyo");
    let cut = Instant::now();
    lab.cut(link.clone())?;
    let window = (RATE / 2) as usize;
    table.watch_until(load, window, SHIFT, |tally| tally.expect_clusters(&["paris", "berlin"])).await?;
    let failed =
        load.since(0).iter().filter(|timed| timed.asked_at() >= cut && timed.answer.error.is_some()).count();
    summary.add(format!(
        "data path cut: traffic left tokyo after {:.2} s, {failed} requests failed",
        load.failed_until(cut).as_secs_f64()
    ));
    say("Heal");
    let (healed, mark) = (Instant::now(), load.mark());
    lab.heal(&link)?;
    table.watch_until(load, window, SHIFT, |tally| tally.expect_clusters(&CLUSTERS)).await?;
    let back = load
        .since(mark)
        .into_iter()
        .find(|timed| timed.answer.from.as_ref().is_some_and(|f| f.cluster == "tokyo"));
    let back = back.map_or_else(Duration::default, |timed| timed.at.saturating_duration_since(healed));
    summary.add(format!("healed: tokyo answered again after {:.2} s", back.as_secs_f64()));
    Ok(())
}

/// Cuts the control path between paris and tokyo, and heals it.
async fn control_path(
    lab: &mut Lab,
    load: &Load,
    table: &mut Table<'_>,
    summary: &mut Summary,
) -> Result<()> {
    say("Cut: control path paris - tokyo alone (TCP 2379)");
    let link = Link::control("paris", "tokyo");
    let mark = load.mark();
    lab.cut(link.clone())?;
    table.watch(load, WATCH).await;
    lab.heal(&link)?;
    nothing_changed(&load.tally_since(mark))?;
    summary.add("control path cut: nothing changed, no request failed".to_owned());
    Ok(())
}

/// Kills paris' agent and starts it again.
async fn agent(lab: &mut Lab, load: &Load, table: &mut Table<'_>, summary: &mut Summary) -> Result<()> {
    say("kill -9 of the agent in paris; then it starts again");
    let (agent, mark) = (Daemon::agent("paris", "n1"), load.mark());
    lab.kill(&agent).await?;
    table.watch(load, WATCH).await;
    lab.restart(&agent).await?;
    table.watch(load, WATCH).await;
    nothing_changed(&load.tally_since(mark))?;
    summary.add("agent killed and restarted: no request failed".to_owned());
    Ok(())
}

fn nothing_changed(tally: &Tally) -> Result<()> {
    ensure!(tally.total() > 0, "no answers at all");
    tally.expect_clusters(&CLUSTERS)
}

fn say(text: &str) {
    println!("\n== {text}");
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  | {line}")).collect::<Vec<_>>().join("\n")
}

impl Summary {
    fn add(&mut self, line: String) {
        println!("  ok: {line}");
        self.lines.push(line);
    }

    /// What held, one line each.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}
