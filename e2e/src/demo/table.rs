//! The live table: who answered in each half second.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, interval};

use crate::client::Load;
use crate::tally::Tally;

const ROW: Duration = Duration::from_millis(500);

/// Prints a row each half second: answers of each cluster, and failures.
#[derive(Debug)]
pub(super) struct Table<'a> {
    clusters: &'a [&'a str],
    begun: Instant,
    mark: usize,
}

impl<'a> Table<'a> {
    pub(super) fn new(clusters: &'a [&'a str]) -> Self {
        let mut head = format!("  {:>7}", "seconds");
        for cluster in clusters {
            head.push_str(&format!(" {cluster:>8}"));
        }
        println!("{head} {:>8}", "failed");
        Self { clusters, begun: Instant::now(), mark: 0 }
    }

    /// Prints rows for this long.
    pub(super) async fn watch(&mut self, load: &Load, time: Duration) {
        let end = Instant::now() + time;
        let mut ticks = interval(ROW);
        while Instant::now() < end {
            ticks.tick().await;
            self.row(load);
        }
    }

    /// Prints rows until the last `window` answers since now meet the condition. Fails after the deadline, with what
    /// they were instead.
    pub(super) async fn watch_until(
        &mut self,
        load: &Load,
        window: usize,
        deadline: Duration,
        condition: impl Fn(&Tally) -> Result<()>,
    ) -> Result<()> {
        let (begun, mark) = (Instant::now(), load.mark());
        let mut ticks = interval(ROW);
        loop {
            ticks.tick().await;
            self.row(load);
            let answers = load.since(mark);
            let seen = match answers.len().checked_sub(window) {
                Some(first) => condition(&Tally::of(answers.iter().skip(first).map(|timed| &timed.answer))),
                None => Err(anyhow::anyhow!("{} answers so far", answers.len())),
            };
            match seen {
                Ok(()) => return Ok(()),
                Err(seen) if begun.elapsed() > deadline => bail!("not within {deadline:?}: {seen:#}"),
                Err(_) => {}
            }
        }
    }

    fn row(&mut self, load: &Load) {
        let tally = load.tally_since(self.mark);
        self.mark += tally.total();
        let mut row = format!("  {:>7.1}", self.begun.elapsed().as_secs_f64());
        for cluster in self.clusters {
            row.push_str(&format!(" {:>8}", tally.cluster(cluster)));
        }
        println!("{row} {:>8}", tally.failed());
    }
}
