//! Watchers: each has a connection of its own, counts what it gets, and some note how long it took.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;

use super::answer::WatchAnswer;
use super::call::{self, still_there};
use super::connection::{Connection, Target};
use super::record::{self, Clock, IP_PREFIX};
use super::server::Server;
use crate::wait::eventually;

/// A group of connected watchers of the `ip` records.
#[derive(Debug)]
pub(super) struct Watchers {
    seen: Vec<Arc<Seen>>,
    tasks: JoinSet<Result<()>>,
}

/// What one watcher has got.
#[derive(Debug, Default)]
struct Seen {
    events: AtomicU64,
    revision: AtomicI64,
    /// Microseconds from put to event; none for a watcher that only counts.
    latencies: Option<Mutex<Vec<u64>>>,
}

impl Watchers {
    /// Connects so many, which watch from the current revision on.
    pub(super) async fn connect(server: &Server, clock: Clock, count: usize) -> Result<Self> {
        let revision = call::revision(&mut server.dial().await?).await?;
        let every = count.div_ceil(NOTING).max(1);
        let mut watchers = Self { seen: Vec::with_capacity(count), tasks: JoinSet::new() };
        let mut opening = JoinSet::new();
        for number in 0..count {
            let latencies = (number % every == 0).then(Mutex::default);
            let seen = Arc::new(Seen { latencies, ..Seen::default() });
            watchers.seen.push(Arc::clone(&seen));
            opening.spawn(open(server.target().clone(), revision + 1, seen));
            if opening.len() >= OPENING {
                watchers.follow(opening.join_next().await, clock)?;
            }
        }
        while let Some(opened) = opening.join_next().await {
            watchers.follow(Some(opened), clock)?;
        }
        Ok(watchers)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.seen.len()
    }

    /// Forgets what was seen.
    pub(super) fn reset(&self) {
        for seen in &self.seen {
            seen.events.store(0, Ordering::Relaxed);
            if let Some(latencies) = &seen.latencies {
                latencies.lock().unwrap_or_else(PoisonError::into_inner).clear();
            }
        }
    }

    /// Waits until each has got exactly so many events since the reset.
    pub(super) async fn have_got(&mut self, events: u64) -> Result<()> {
        let what = format!("{} watchers get {events} events each", self.count());
        let seen = &self.seen;
        let all = eventually(&what, DRAIN, || async {
            let counts = seen.iter().map(|seen| seen.events.load(Ordering::Relaxed));
            let (least, most) =
                counts.fold((u64::MAX, 0), |(least, most), count| (least.min(count), most.max(count)));
            ensure!(least >= events, "the last has {least}, the first {most}");
            Ok(most)
        });
        let most = tokio::select! {
            all = all => all?,
            Some(ended) = self.tasks.join_next() => {
                ended.context("watch")??;
                anyhow::bail!("a watcher ended")
            }
        };
        ensure!(most == events, "a watcher got {most} events, expected {events}");
        Ok(())
    }

    /// Microseconds from put to event, of the watchers that note them.
    pub(super) fn latencies(&self) -> Vec<u64> {
        let noted = self.seen.iter().filter_map(|seen| seen.latencies.as_ref());
        noted.flat_map(|all| all.lock().unwrap_or_else(PoisonError::into_inner).clone()).collect()
    }

    fn follow(&mut self, opened: Option<Opened>, clock: Clock) -> Result<()> {
        if let Some(opened) = opened {
            let (connection, seen) = opened.context("connect a watcher")??;
            self.tasks.spawn(follow(connection, seen, clock));
        }
        Ok(())
    }
}

type Opened = Result<Result<(Connection, Arc<Seen>)>, tokio::task::JoinError>;

/// Connects and watches the `ip` records from a revision on.
pub(super) async fn watching(target: &Target, from: i64) -> Result<Connection> {
    let mut connection = Connection::open(target).await?;
    call::watch(&mut connection, IP_PREFIX, from).await?;
    Ok(connection)
}

async fn open(target: Target, from: i64, seen: Arc<Seen>) -> Result<(Connection, Arc<Seen>)> {
    Ok((watching(&target, from).await.context("connect a watcher")?, seen))
}

/// Reads events until the connection or the watch ends, which is a failure.
async fn follow(mut connection: Connection, seen: Arc<Seen>, clock: Clock) -> Result<()> {
    loop {
        let message = connection.message().await?;
        let mut events = 0;
        let answer = match &seen.latencies {
            None => WatchAnswer::read(message, |_| {
                events += 1;
                Ok(())
            })?,
            Some(latencies) => {
                let now = clock.now();
                let mut latencies = latencies.lock().unwrap_or_else(PoisonError::into_inner);
                WatchAnswer::read(message, |event| {
                    events += 1;
                    latencies.push(now.saturating_sub(record::sent(event)?) / 1000);
                    Ok(())
                })?
            }
        };
        still_there(&answer)?;
        let before = seen.revision.fetch_max(answer.revision, Ordering::Relaxed);
        ensure!(before <= answer.revision, "revision {} after {before}", answer.revision);
        seen.events.fetch_add(events, Ordering::Relaxed);
    }
}

/// So many watchers note times, spread over the order in which they connected.
const NOTING: usize = 50;
/// So many connect at a time.
const OPENING: usize = 32;
const DRAIN: Duration = Duration::from_secs(60);
