//! One client lists everything, page by page; and a store of many more records, to see that the cost of a page does
//! not grow with what remains.

use anyhow::{Result, ensure};
use tokio::time::Instant;

use super::call::{self, Listed};
use super::load;
use super::record::IP_PREFIX;
use super::scale::Scale;
use super::server::Server;
use super::table::{Better, Figure, Target};
use super::usage;

/// Lists with the page sizes that clients use.
pub(super) async fn measure(server: &Server, scale: &Scale) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for page in [256, 500] {
        let (wall, cpu) = lists(server, scale, scale.records, page).await?;
        figures.extend([wall.target(Target::Figure(0.2)), cpu.target(Target::Figure(0.12))]);
    }
    Ok(figures)
}

/// Fills an empty server with `records` and lists them in pages of 1000. Not for etcd, where the last page costs as
/// much as the first did with all that remained: it takes most of a minute.
pub(super) async fn measure_large(server: &Server, scale: &Scale, records: u64) -> Result<Vec<Figure>> {
    let idle = usage::resident_mib(server.pid()?)?;
    load::ip_records(server, 0, records).await?;
    let taken = usage::resident_mib(server.pid()?)? - idle;
    let (wall, cpu) = lists(server, scale, records, 1000).await?;
    let memory = Figure::new(format!("memory of {records} ip records"), "MiB", Better::Smaller, taken);
    Ok(vec![memory.target(Target::Figure(450.0)), wall.target(Target::Figure(1.0)), cpu])
}

/// Lists a few times; wall time (the median) and the server's CPU time of one list.
async fn lists(server: &Server, scale: &Scale, expected: u64, page: i64) -> Result<(Figure, Figure)> {
    let mut connection = server.dial().await?;
    let mut walls = Vec::new();
    let cpu = server.cpu_seconds()?;
    for _ in 0..scale.lists {
        let begin = Instant::now();
        let Listed { records, .. } = call::list(&mut connection, IP_PREFIX, page).await?;
        walls.push(begin.elapsed().as_secs_f64());
        ensure!(records as u64 == expected, "{records} records listed of {expected}");
    }
    let cpu = (server.cpu_seconds()? - cpu) / f64::from(scale.lists);
    walls.sort_by(f64::total_cmp);
    let wall = walls.get(walls.len() / 2).copied().unwrap_or(f64::NAN);
    let what = format!("sync of {expected} ip, pages of {page}");
    let figure = |name, value| Figure::new(format!("{what}: {name}"), "s", Better::Smaller, value);
    Ok((figure("wall", wall), figure("server CPU", cpu)))
}
