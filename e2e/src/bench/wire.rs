//! `bench wire`: one load generator against our hub and against etcd, on one machine, in one run, over mutual TLS.
//!
//! ```text
//!   this process: watchers, writers, listing clients ──mTLS, loopback──> mesh-apiserver, then etcd
//!                 each one connection (HTTP/2, read in place)              CPU and memory from /proc/<pid>
//! ```
//! Both servers get the same certificates (`meshctl ca`), the same records, the same calls. Their stores are in memory
//! (tmpfs), except for durable puts. Only the server's own CPU time is counted, but the generator runs on the same
//! machine: wall times and latencies are those of a server that shares its processors with all of its clients.

mod answer;
mod call;
mod cold_start;
mod connection;
mod fan_out;
mod ground;
mod load;
mod puts;
mod record;
mod restart;
mod scale;
mod server;
mod sync;
mod table;
mod usage;
mod watchers;
mod writers;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use tokio::time::{Instant, timeout};

use ground::Ground;
use record::Clock;
use scale::Scale;
use server::{Kind, Server};
use table::Figure;

pub use table::{Better, Line, Target};

/// Names a further etcd binary to be measured too.
pub const FURTHER_ETCD_VARIABLE: &str = "BENCH_ETCD";

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Only this part; several times for several
    #[arg(long)]
    pub only: Vec<Part>,
    /// Smaller and shorter: orders of magnitude
    #[arg(long)]
    pub quick: bool,
    /// Only the hub, without etcd and without ratios: for work on the hub
    #[arg(long)]
    pub alone: bool,
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// One client lists everything.
    Sync,
    /// Watchers get each put.
    Fanout,
    /// Many clients begin at once.
    Coldstart,
    /// The server is killed and started again.
    Restart,
    /// Durable puts on disk.
    Puts,
}

/// Measures and gives the table's lines, after printing each server's progress. Fails if a server does not do what
/// was asked of it; a missed target is not a failure here.
pub async fn wire(options: &Options) -> Result<Vec<Line>> {
    let scale = if options.quick { Scale::quick() } else { Scale::full() };
    let ground = Ground::prepare()?;
    let mut others = Vec::new();
    if !options.alone {
        others.push(PathBuf::from(ETCD));
        others.extend(std::env::var_os(FURTHER_ETCD_VARIABLE).map(PathBuf::from));
    }
    let mut names = Vec::new();
    for program in &others {
        names.push(version(program).await?);
    }
    let ours = server(&Kind::Hub, "hub", &ground, &scale, options).await?;
    let mut theirs = Vec::new();
    for (program, name) in others.iter().zip(&names) {
        theirs.push(server(&Kind::Etcd(program.clone()), name, &ground, &scale, options).await?);
    }
    println!("{}", table::header(&names));
    Ok(table::compare(ours, &theirs))
}

/// Measures one server.
async fn server(
    kind: &Kind,
    name: &str,
    ground: &Ground,
    scale: &Scale,
    options: &Options,
) -> Result<Vec<Figure>> {
    let clock = Clock::start();
    let wanted = |part: Part| options.only.is_empty() || options.only.contains(&part);
    let mut figures = Vec::new();
    let (begin, machine, family) =
        (Instant::now(), usage::machine_cpu_seconds()?, usage::family_cpu_seconds()?);
    if [Part::Sync, Part::Fanout, Part::Coldstart, Part::Restart].into_iter().any(wanted) {
        let dir = ground.memory.join("store");
        let mut server = Server::start(kind, ground, &dir).await?;
        figures.extend(part(name, "load", load::fill(&server, scale)).await?);
        if wanted(Part::Sync) {
            figures.extend(part(name, "sync", sync::measure(&server, scale)).await?);
        }
        if wanted(Part::Coldstart) {
            figures.extend(part(name, "coldstart", cold_start::measure(kind, &server, scale)).await?);
        }
        if wanted(Part::Fanout) {
            figures.extend(part(name, "fanout", fan_out::measure(&mut server, clock, scale)).await?);
        }
        if wanted(Part::Restart) {
            figures.extend(part(name, "restart", restart::measure(&mut server, clock)).await?);
        }
        end(server, &dir).await?;
    }
    if let (Kind::Hub, true, Some(records)) = (kind, wanted(Part::Sync), scale.records_hub) {
        let dir = ground.memory.join("store");
        let server = Server::start(kind, ground, &dir).await?;
        figures.extend(part(name, "large sync", sync::measure_large(&server, scale, records)).await?);
        end(server, &dir).await?;
    }
    if wanted(Part::Puts) {
        let dir = ground.disk.join("store");
        let server = Server::start(kind, ground, &dir).await?;
        figures.extend(part(name, "puts", puts::measure(&server, clock, scale)).await?);
        end(server, &dir).await?;
    }
    // The server has ended, so the family's time holds its own.
    let others = (usage::machine_cpu_seconds()? - machine) - (usage::family_cpu_seconds()? - family);
    let processors = std::thread::available_parallelism().context("count the processors")?.get();
    let share = 100.0 * others / (begin.elapsed().as_secs_f64() * processors as f64);
    let what = "processors' time that other programs took meanwhile".to_owned();
    figures.push(Figure::new(what, "%", Better::Smaller, share.max(0.0)));
    Ok(figures)
}

/// Runs one part, within bounds, and says how long it took.
async fn part(
    server: &str,
    name: &str,
    measure: impl Future<Output = Result<Vec<Figure>>>,
) -> Result<Vec<Figure>> {
    let begin = Instant::now();
    let figures = timeout(PART, measure).await.with_context(|| format!("not done within {PART:?}"));
    let figures = figures.and_then(|figures| figures).with_context(|| format!("{server}: {name}"))?;
    eprintln!("{server}: {name} measured in {:.1} s", begin.elapsed().as_secs_f64());
    Ok(figures)
}

async fn end(server: Server, dir: &Path) -> Result<()> {
    server.stop().await?;
    std::fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display()))
}

/// `etcd 3.4.23`.
async fn version(program: &Path) -> Result<String> {
    let output = tokio::process::Command::new(program).arg("--version").output().await;
    let output = output.with_context(|| {
        format!("run {} (Debian package etcd-server; `cargo xtask setup` installs it)", program.display())
    })?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match text.lines().find_map(|line| line.strip_prefix("etcd Version: ")) {
        Some(version) => Ok(format!("etcd {version}")),
        None => bail!("{} --version says {text:?}, expected `etcd Version: …`", program.display()),
    }
}

const ETCD: &str = "/usr/bin/etcd";
const PART: Duration = Duration::from_secs(240);
