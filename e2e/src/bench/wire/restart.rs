//! The server is killed and started again; its watchers go on from the revision that they have.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::answer::WatchAnswer;
use super::call::{self, still_there};
use super::connection::{self, Connection};
use super::record::{self, Clock};
use super::server::Server;
use super::table::{Better, Figure, Target};
use super::watchers::watching;

/// Restarts under 20 and under 100 clients.
pub(super) async fn measure(server: &mut Server, clock: Clock) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for clients in [20, 100] {
        let target = if clients == 100 { Some(Target::Figure(1.0)) } else { None };
        figures.extend(run(server, clock, clients, target).await?);
    }
    Ok(figures)
}

/// All clients have a revision; ten more changes are acknowledged; the server is killed at once. A client is back in
/// sync when it has resumed its watch, got the ten from history, and an eleventh that was made after the start.
async fn run(
    server: &mut Server,
    clock: Clock,
    clients: usize,
    target: Option<Target>,
) -> Result<Vec<Figure>> {
    let mut writer = server.dial().await?;
    let revision = call::revision(&mut writer).await?;
    let mut connected = Vec::with_capacity(clients);
    for _ in 0..clients {
        connected.push(watching(server.target(), revision + 1).await?);
    }
    for number in 0..CHANGES {
        let value = record::ip_value(number, clock.now());
        call::put(&mut writer, record::ip_key(number), value).await?;
    }
    let begin = Instant::now();
    server.kill().await?;
    server.again()?;
    let mut tasks = JoinSet::new();
    for connection in connected {
        tasks.spawn(client(connection, server.target().clone(), revision + 1));
    }
    let value = record::ip_value(CHANGES, clock.now());
    retry(|| async {
        let mut writer = Connection::open(server.target()).await?;
        call::put(&mut writer, record::ip_key(CHANGES), value.clone()).await
    })
    .await
    .context("write after the restart")?;
    let writable = begin.elapsed().as_secs_f64();
    let mut relisted = 0.0;
    while let Some(done) = tasks.join_next().await {
        if let Err(error) = done.context("a client")? {
            if relisted == 0.0 {
                eprintln!("a client could not resume: {error:#}");
            }
            relisted += 1.0;
        }
    }
    let in_sync = begin.elapsed().as_secs_f64();
    let what = format!("kill -9, restart, {clients} clients resume");
    let all = Figure::new(format!("{what}: all in sync"), "s", Better::Smaller, in_sync);
    Ok(vec![
        Figure::new(format!("{what}: first put accepted"), "s", Better::Smaller, writable),
        target.into_iter().fold(all, Figure::target),
        Figure::new(format!("{what}: could not"), "", Better::Smaller, relisted).target(Target::Figure(0.0)),
    ])
}

/// Notices the end of its connection and resumes.
async fn client(mut old: Connection, target: connection::Target, from: i64) -> Result<()> {
    // Changes may still come on the old one; they count as not seen.
    while old.message().await.is_ok() {}
    drop(old);
    timeout(DEADLINE, async {
        let mut connection = retry(|| watching(&target, from)).await?;
        let mut events = 0;
        while events <= CHANGES {
            let count = |_: &[u8]| {
                events += 1;
                Ok(())
            };
            still_there(&WatchAnswer::read(connection.message().await?, count)?)?;
        }
        ensure!(events == CHANGES + 1, "{events} events, expected {}", CHANGES + 1);
        Ok(())
    })
    .await
    .context("not in sync in time")?
}

/// Tries until it works, or the deadline has passed.
async fn retry<T, Attempt: Future<Output = Result<T>>>(mut attempt: impl FnMut() -> Attempt) -> Result<T> {
    let end = Instant::now() + DEADLINE;
    loop {
        match attempt().await {
            Err(_) if Instant::now() < end => sleep(AGAIN).await,
            done => return done,
        }
    }
}

const CHANGES: u64 = 10;
const AGAIN: Duration = Duration::from_millis(10);
const DEADLINE: Duration = Duration::from_secs(30);
