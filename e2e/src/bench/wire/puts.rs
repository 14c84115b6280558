//! Durable puts: acknowledged only when they are on the disk, by one writer and by many at once.

use anyhow::Result;

use super::record::Clock;
use super::scale::Scale;
use super::server::Server;
use super::table::{Better, Figure, Target};
use super::usage;
use super::writers::{Load, Writers};
use crate::bench::percentile;

/// Writes to a server whose store is on disk.
pub(super) async fn measure(server: &Server, clock: Clock, scale: &Scale) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (count, times) in [(1, 1.0), (64, 3.0)] {
        let mut writers = Writers::connect(server, clock, count).await?;
        let before = usage::cpu_seconds(server.pid()?)?;
        let written = writers.write(Load { rate: None, most: u64::MAX, time: scale.writing }).await?;
        let p50 = percentile(&written.latencies, 50) as f64 / 1000.0;
        let cpu = usage::cpu_seconds(server.pid()?)? - before;
        let what = format!("durable puts on disk, {count} writing");
        figures.extend([
            Figure::new(format!("{what}: rate"), "/s", Better::Larger, written.rate())
                .target(Target::Times(times)),
            Figure::new(format!("{what}: p50"), "ms", Better::Smaller, p50),
            Figure::new(
                format!("{what}: CPU of the server each"),
                "us",
                Better::Smaller,
                cpu * 1e6 / written.puts.max(1) as f64,
            ),
        ]);
    }
    Ok(figures)
}
