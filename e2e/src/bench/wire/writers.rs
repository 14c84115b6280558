//! Writers: each has a connection and one put under way at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::call;
use super::connection::Connection;
use super::record::{self, Clock};
use super::server::Server;

/// Connected writers, used again for each load.
#[derive(Debug)]
pub(super) struct Writers {
    clock: Clock,
    connections: Vec<Connection>,
}

/// When puts are due, and when it is enough.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Load {
    /// Puts a second of all writers together; none for as fast as they are accepted.
    pub(super) rate: Option<f64>,
    /// Most puts.
    pub(super) most: u64,
    /// No put begins later than this after the first.
    pub(super) time: Duration,
}

/// Holds what was accepted.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Written {
    /// Puts that were acknowledged.
    pub(super) puts: u64,
    /// Until the last acknowledgement.
    pub(super) took: Duration,
    /// Microseconds of each put.
    pub(super) latencies: Vec<u64>,
}

/// What all writers share of one load.
#[derive(Debug)]
struct Shared {
    load: Load,
    begin: Instant,
    next: AtomicU64,
}

impl Writers {
    /// Connects so many.
    pub(super) async fn connect(server: &Server, clock: Clock, count: usize) -> Result<Self> {
        let mut connections = Vec::with_capacity(count);
        for _ in 0..count {
            connections.push(server.dial().await?);
        }
        Ok(Self { clock, connections })
    }

    /// Overwrites `ip` records until the load is done. Fails if a put does.
    pub(super) async fn write(&mut self, load: Load) -> Result<Written> {
        let shared = Arc::new(Shared { load, begin: Instant::now(), next: AtomicU64::new(0) });
        let mut tasks = JoinSet::new();
        for connection in self.connections.drain(..) {
            tasks.spawn(write(connection, Arc::clone(&shared), self.clock));
        }
        let mut latencies = Vec::new();
        while let Some(done) = tasks.join_next().await {
            let (connection, more) = done.context("write")??;
            self.connections.push(connection);
            latencies.extend(more);
        }
        Ok(Written { puts: latencies.len() as u64, took: shared.begin.elapsed(), latencies })
    }
}

impl Written {
    /// Acknowledged puts a second.
    pub(super) fn rate(&self) -> f64 {
        self.puts as f64 / self.took.as_secs_f64()
    }
}

async fn write(
    mut connection: Connection,
    shared: Arc<Shared>,
    clock: Clock,
) -> Result<(Connection, Vec<u64>)> {
    let Load { rate, most, time } = shared.load;
    let end = shared.begin + time;
    let mut latencies = Vec::new();
    loop {
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        if let Some(rate) = rate {
            let due = shared.begin + Duration::from_secs_f64(number as f64 / rate);
            if due < end && number < most {
                sleep_until(due).await;
            }
        }
        if number >= most || Instant::now() >= end {
            return Ok((connection, latencies));
        }
        let sent = clock.now();
        let key = number % CHANGING;
        call::put(&mut connection, record::ip_key(key), record::ip_value(key, sent)).await?;
        latencies.push((clock.now() - sent) / 1000);
    }
}

/// So many records change again and again.
const CHANGING: u64 = 10_000;
