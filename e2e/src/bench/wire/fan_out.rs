//! Each put becomes an event for each of many watchers.

use std::time::Duration;

use anyhow::Result;

use super::record::Clock;
use super::scale::Scale;
use super::server::Server;
use super::table::{Better, Figure, Target};
use super::usage;
use super::watchers::Watchers;
use super::writers::{Load, Writers};
use crate::bench::percentile;

/// Holds what one fan-out should reach; none where nothing is asked for.
#[derive(Clone, Copy, Debug, Default)]
struct Targets {
    /// Accepted puts a second.
    rate: Option<Target>,
    /// CPU seconds of the server per million events.
    cpu: Option<Target>,
    /// 99 of 100 events are there after, ms.
    p99: Option<Target>,
    /// Half of the puts are acknowledged after, ms.
    put: Option<Target>,
}

/// Measures with a few numbers of watchers and several rates. The server is started anew first, so that memory which
/// earlier loads left behind is not used again for watchers.
pub(super) async fn measure(server: &mut Server, clock: Clock, scale: &Scale) -> Result<Vec<Figure>> {
    use Target::{Figure as At, Times};
    server.restart().await?;
    let mut writers = Writers::connect(server, clock, WRITERS).await?;
    let mut figures = Vec::new();
    let busy = Some(1000.0);

    let before = usage::resident_mib(server.pid()?)?;
    let mut many = Watchers::connect(server, clock, scale.many).await?;
    let each = (usage::resident_mib(server.pid()?)? - before) * 1024.0 / scale.many as f64;
    figures.push(
        Figure::new(format!("{} watching: memory of each", scale.many), "KiB", Better::Smaller, each)
            .target(At(45.0)),
    );
    let targets =
        Targets { rate: Some(At(FULL_RATE)), cpu: Some(Times(6.0)), p99: Some(At(40.0)), put: Some(At(5.0)) };
    figures.extend(run(server, &mut writers, &mut many, busy, targets, scale).await?);
    let targets = Targets { cpu: Some(Times(2.0)), put: Some(At(5.0)), ..Targets::default() };
    figures.extend(run(server, &mut writers, &mut many, Some(50.0), targets, scale).await?);
    let targets = Targets { cpu: Some(Times(15.0)), ..Targets::default() };
    figures.extend(run(server, &mut writers, &mut many, None, targets, scale).await?);
    drop(many);

    let mut hundred = Watchers::connect(server, clock, 100).await?;
    let targets =
        Targets { rate: Some(At(FULL_RATE)), cpu: Some(At(5.0)), p99: Some(At(8.0)), put: Some(At(5.0)) };
    figures.extend(run(server, &mut writers, &mut hundred, busy, targets, scale).await?);
    figures.extend(run(server, &mut writers, &mut hundred, None, Targets::default(), scale).await?);
    drop(hundred);

    let mut one = Watchers::connect(server, clock, 1).await?;
    figures.extend(run(server, &mut writers, &mut one, busy, Targets::default(), scale).await?);
    drop(one);

    if let Some(most) = scale.most {
        let mut most = Watchers::connect(server, clock, most).await?;
        let targets = Targets { put: Some(At(5.0)), ..Targets::default() };
        figures.extend(run(server, &mut writers, &mut most, busy, targets, scale).await?);
    }
    Ok(figures)
}

/// Writes at a rate, waits until every watcher has got everything, and accounts for all of it.
async fn run(
    server: &Server,
    writers: &mut Writers,
    watchers: &mut Watchers,
    rate: Option<f64>,
    targets: Targets,
    scale: &Scale,
) -> Result<Vec<Figure>> {
    // What connecting left to do is not part of it; and a first few puts warm both sides.
    watchers.reset();
    let warm = writers.write(Load { rate: Some(50.0), most: 10, time: Duration::from_secs(1) }).await?;
    watchers.have_got(warm.puts).await?;
    watchers.reset();

    let most = rate.map_or(scale.flood, |rate| (rate * scale.writing.as_secs_f64()).round() as u64);
    let (cpu, own) = (server.cpu_seconds()?, usage::cpu_seconds(std::process::id())?);
    let written = writers.write(Load { rate, most, time: scale.writing }).await?;
    watchers.have_got(written.puts).await?;
    let (cpu, own) = (server.cpu_seconds()? - cpu, usage::cpu_seconds(std::process::id())? - own);

    let events = written.puts as f64 * watchers.count() as f64;
    let rate = rate.map_or_else(|| "as fast as it goes".to_owned(), |rate| format!("{rate} puts/s"));
    let what = format!("{} watching, {rate}", watchers.count());
    let latencies = watchers.latencies();
    let ms = |samples: &[u64], part| percentile(samples, part) as f64 / 1000.0;
    let figure = |name: &str, unit, better, value, target: Option<Target>| {
        let figure = Figure::new(format!("{what}: {name}"), unit, better, value);
        target.into_iter().fold(figure, Figure::target)
    };
    Ok(vec![
        figure("accepted", "/s", Better::Larger, written.rate(), targets.rate),
        figure("CPU per million events", "s", Better::Smaller, cpu * 1e6 / events, targets.cpu),
        figure("the generator's own CPU", "s", Better::Smaller, own * 1e6 / events, None),
        figure("put to event, p50", "ms", Better::Smaller, ms(&latencies, 50), None),
        figure("put to event, p99", "ms", Better::Smaller, ms(&latencies, 99), targets.p99),
        figure("put acknowledged, p50", "ms", Better::Smaller, ms(&written.latencies, 50), targets.put),
    ])
}

const WRITERS: usize = 64;
/// "Full rate" of 1000, with the last acknowledgement in it.
const FULL_RATE: f64 = 990.0;
