//! Many clients with nothing begin at once: connect, list everything, watch from there.

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::call;
use super::connection::{self, Connection};
use super::record::IP_PREFIX;
use super::scale::Scale;
use super::server::{Kind, Server};
use super::table::{Better, Figure, Target};
use super::usage;

/// Starts clients at once, and more of them against the hub.
pub(super) async fn measure(kind: &Kind, server: &Server, scale: &Scale) -> Result<Vec<Figure>> {
    let mut figures = run(server, scale.cold, scale.records, true).await?;
    if let (Kind::Hub, Some(clients)) = (kind, scale.cold_hub) {
        figures.extend(run(server, clients, scale.records, false).await?);
    }
    Ok(figures)
}

async fn run(server: &Server, clients: usize, records: u64, judged: bool) -> Result<Vec<Figure>> {
    let pid = server.pid()?;
    usage::forget_peak(pid)?;
    let (memory, cpu) = (usage::resident_mib(pid)?, server.cpu_seconds()?);
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        tasks.spawn(client(server.target().clone(), records));
    }
    let mut failed = 0.0;
    while let Some(done) = tasks.join_next().await {
        if let Err(error) = done.context("a client")? {
            if failed == 0.0 {
                eprintln!("a client failed: {error:#}");
            }
            failed += 1.0;
        }
    }
    let wall = begin.elapsed().as_secs_f64();
    let (cpu, memory) = (server.cpu_seconds()? - cpu, usage::peak_mib(pid)? - memory);
    let what = format!("{clients} clients start at once");
    let figure = |name: &str, unit, value, target: Option<Target>| {
        let figure = Figure::new(format!("{what}: {name}"), unit, Better::Smaller, value);
        target.filter(|_| judged).into_iter().fold(figure, Figure::target)
    };
    Ok(vec![
        figure("server CPU", "s", cpu, Some(Target::Times(20.0))),
        figure("wall", "s", wall, Some(Target::Figure(8.0))),
        figure("more memory, peak", "MiB", memory, Some(Target::Figure(64.0))),
        figure("failed", "", failed, None).target(Target::Figure(0.0)),
    ])
}

async fn client(target: connection::Target, records: u64) -> Result<()> {
    let mut connection = Connection::open(&target).await?;
    let listed = call::list(&mut connection, IP_PREFIX, PAGE).await?;
    ensure!(listed.records as u64 == records, "{} records listed of {records}", listed.records);
    call::watch(&mut connection, IP_PREFIX, listed.revision + 1).await
}

const PAGE: i64 = 1000;
