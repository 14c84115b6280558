//! Filling a store, and what the records cost in memory.

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use super::call;
use super::connection::Connection;
use super::record;
use super::scale::Scale;
use super::server::Server;
use super::table::{Better, Figure, Target};
use super::usage;

/// Writes all records of the run into an empty server; the figure is the memory that they take.
pub(super) async fn fill(server: &Server, scale: &Scale) -> Result<Vec<Figure>> {
    let idle = usage::resident_mib(server.pid()?)?;
    ip_records(server, 0, scale.records).await?;
    let mut connection = server.dial().await?;
    let mut number = 0;
    while number < scale.services {
        let batch = number..scale.services.min(number + SERVICES_AT_ONCE);
        let records = batch.clone().map(|n| (record::service_key(n), record::service_value(n)));
        call::put_all(&mut connection, records).await.context("load services")?;
        number = batch.end;
    }
    let what = format!("memory of {} ip + {} service records", scale.records, scale.services);
    let taken = usage::resident_mib(server.pid()?)? - idle;
    Ok(vec![Figure::new(what, "MiB", Better::Smaller, taken).target(Target::Figure(150.0))])
}

/// Writes `ip` records with these numbers over a few connections.
pub(super) async fn ip_records(server: &Server, from: u64, to: u64) -> Result<()> {
    let mut tasks = JoinSet::new();
    let part = (to - from).div_ceil(CONNECTIONS).max(1);
    for first in (from..to).step_by(usize::try_from(part).context("a part of the records")?) {
        let connection = server.dial().await?;
        tasks.spawn(ip_part(connection, first, to.min(first + part)));
    }
    while let Some(done) = tasks.join_next().await {
        done.context("load records")??;
    }
    Ok(())
}

async fn ip_part(mut connection: Connection, from: u64, to: u64) -> Result<()> {
    let mut number = from;
    while number < to {
        let batch = number..to.min(number + IPS_AT_ONCE);
        let records = batch.clone().map(|n| (record::ip_key(n), record::ip_value(n, 0)));
        call::put_all(&mut connection, records).await.context("load ip records")?;
        number = batch.end;
    }
    Ok(())
}

const CONNECTIONS: u64 = 4;
/// Records in a transaction: at most 128 operations, and at most 64 KiB, the first window of a connection.
const IPS_AT_ONCE: u64 = 100;
const SERVICES_AT_ONCE: u64 = 40;
