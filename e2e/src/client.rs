//! Requests from a client pod: a counted series, or a constant load that runs while the test does something.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tokio::time::{Instant, timeout};

use crate::pod_program::connect_cost::{ConnectCost, SocketKind};
use crate::pod_program::flip::{Flip, Verdict};
use crate::process::Place;
use crate::tally::{Answer, Tally};
use crate::wait::eventually;

const MEASURE_DEADLINE: Duration = Duration::from_secs(60);

/// A pod that asks: a namespace, a cgroup below the one its node's agent attaches to, and the client program.
#[derive(Clone, Debug)]
pub struct Client {
    place: Place,
    program: PathBuf,
}

/// A series of requests that is being described.
#[derive(Clone, Debug)]
#[must_use = "nothing is asked before run() or load()"]
pub struct Ask {
    client: Client,
    target: [String; 2],
    count: u64,
    interval: Duration,
    timeout: Duration,
    keep: bool,
}

/// An answer and when its line was read.
#[derive(Clone, Debug)]
pub struct Timed {
    /// When the lab read it: up to the request's timeout after it was asked.
    pub at: Instant,
    /// The answer.
    pub answer: Answer,
}

/// A load that runs. Dropping it ends it.
#[derive(Debug)]
pub struct Load {
    child: Child,
    seen: Arc<Mutex<Vec<Timed>>>,
}

impl Client {
    /// A client at this place.
    pub fn new(place: Place, program: PathBuf) -> Self {
        Self { place, program }
    }

    /// HTTP requests, each on a new connection unless [`Ask::keep`].
    pub fn http(&self, url: &str) -> Ask {
        self.ask("--url", url)
    }

    /// Datagrams from unconnected sockets (the `sendmsg` and `recvmsg` hooks).
    pub fn udp(&self, address: &str) -> Ask {
        self.ask("--udp", address)
    }

    /// Datagrams on connected sockets (the `connect` and `getpeername` hooks).
    pub fn connected_udp(&self, address: &str) -> Ask {
        self.ask("--connected-udp", address)
    }

    /// Times `connect()` to this address.
    pub async fn connect_cost(&self, kind: SocketKind, address: &str, count: u64) -> Result<ConnectCost> {
        let kind = match kind {
            SocketKind::Tcp => "tcp",
            SocketKind::Udp => "udp",
        };
        self.measured(&["connect-cost", kind, address, "--count", &count.to_string()]).await
    }

    /// Renames a file and times until a UDP `connect()` to the service has this result.
    pub async fn flip(&self, staged: &Path, target: &Path, service: &str, expected: Verdict) -> Result<Flip> {
        let expected = match expected {
            Verdict::Connected => "connected",
            Verdict::Refused => "refused",
        };
        let (staged, target) = (staged.display().to_string(), target.display().to_string());
        self.measured(&["flip", &staged, &target, service, expected]).await
    }

    async fn measured<T: DeserializeOwned>(&self, args: &[&str]) -> Result<T> {
        let mut command = self.place.command(&self.program);
        command.args(args).kill_on_drop(true);
        let output = timeout(MEASURE_DEADLINE, command.output()).await.context("the client did not end")?;
        let output = output.context("run the client")?;
        ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).context("read the measurement")
    }

    /// Where it runs.
    pub fn place(&self) -> &Place {
        &self.place
    }

    fn ask(&self, flag: &str, target: &str) -> Ask {
        Ask {
            client: self.clone(),
            target: [flag.to_owned(), target.to_owned()],
            count: 1,
            interval: Duration::ZERO,
            timeout: Duration::from_secs(2),
            keep: false,
        }
    }
}

impl Ask {
    /// How many requests (1).
    pub fn count(mut self, count: u64) -> Self {
        self.count = count;
        self
    }

    /// The time between the beginnings of two requests (none).
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// When one request is given up (2 s).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Uses one socket for all requests.
    pub fn keep(mut self) -> Self {
        self.keep = true;
        self
    }

    /// Asks, one request after the other, and sums the answers.
    pub async fn run(self) -> Result<Tally> {
        Ok(Tally::of(&self.answers().await?))
    }

    /// Asks, one request after the other.
    pub async fn answers(self) -> Result<Vec<Answer>> {
        let mut command = self.client.place.command(&self.client.program);
        command.arg("request").args(&self.target).args(["--count", &self.count.to_string()]);
        command.args(["--interval", &self.interval.as_millis().to_string()]);
        command.args(["--timeout", &self.timeout.as_millis().to_string()]);
        if self.keep {
            command.arg("--keep");
        }
        command.kill_on_drop(true);
        let longest = (self.interval + self.timeout) * u32::try_from(self.count).unwrap_or(u32::MAX);
        let longest = longest + Duration::from_secs(10);
        let output = timeout(longest, command.output()).await.context("the client did not end")?;
        let output = output.context("run the client")?;
        ensure!(output.status.success(), "client: {}", String::from_utf8_lossy(&output.stderr));
        let lines = String::from_utf8(output.stdout).context("answers are not text")?;
        lines
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("answer {line}")))
            .collect()
    }

    /// Begins a load of this many requests a second, which runs until it is dropped.
    pub fn load(self, rate: u32) -> Result<Load> {
        let mut command = self.client.place.command(&self.client.program);
        command.arg("load").args(&self.target).args(["--rate", &rate.to_string()]);
        command.args(["--timeout", &self.timeout.as_millis().to_string()]);
        command.stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("start the load")?;
        let lines = BufReader::new(child.stdout.take().context("output of the load")?).lines();
        let seen = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn(read(lines, seen.clone()));
        Ok(Load { child, seen })
    }
}

impl Timed {
    /// When it was asked.
    pub fn asked_at(&self) -> Instant {
        let took = Duration::from_micros(self.answer.took_us);
        self.at.checked_sub(took).unwrap_or(self.at)
    }
}

impl Load {
    /// How long after `fault` a request was still asked that failed: what a fault cost in time. Zero if none failed.
    pub fn failed_until(&self, fault: Instant) -> Duration {
        let answers = self.since(0);
        let failed = answers.iter().filter(|timed| timed.answer.error.is_some()).map(Timed::asked_at);
        failed.map(|asked| asked.saturating_duration_since(fault)).max().unwrap_or_default()
    }

    /// How many answers there are so far: a mark for [`Load::tally_since`].
    pub fn mark(&self) -> usize {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The answers after a mark.
    pub fn since(&self, mark: usize) -> Vec<Timed> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(mark..).unwrap_or_default().to_vec()
    }

    /// The sum of the answers after a mark.
    pub fn tally_since(&self, mark: usize) -> Tally {
        Tally::of(self.since(mark).iter().map(|timed| &timed.answer))
    }

    /// The sum of all answers so far.
    pub fn tally(&self) -> Tally {
        self.tally_since(0)
    }

    /// Waits for this many further answers and sums them.
    pub async fn next(&self, count: usize, deadline: Duration) -> Result<Tally> {
        let mark = self.mark();
        self.from(mark, count, deadline).await
    }

    /// Waits until there are this many answers after a mark, and sums all after it.
    pub async fn from(&self, mark: usize, count: usize, deadline: Duration) -> Result<Tally> {
        eventually(&format!("{count} answers of a load"), deadline, || async {
            let tally = self.tally_since(mark);
            ensure!(tally.total() >= count, "{tally}");
            Ok(tally)
        })
        .await
    }

    /// Waits until the last `window` answers meet a condition: an `Err` says what was seen instead. Answers read before
    /// this call do not count.
    pub async fn until(
        &self,
        why: &str,
        window: usize,
        deadline: Duration,
        condition: impl Fn(&Tally) -> Result<()>,
    ) -> Result<Tally> {
        let mark = self.mark();
        let condition = &condition;
        eventually(why, deadline, || async move {
            let answers = self.since(mark);
            let Some(first) = answers.len().checked_sub(window) else {
                bail!("{} answers, a window of {window} is wanted", answers.len());
            };
            let tally = Tally::of(answers.iter().skip(first).map(|timed| &timed.answer));
            condition(&tally)?;
            Ok(tally)
        })
        .await
    }

    /// Ends the load and sums everything it saw.
    pub async fn stop(mut self) -> Result<Tally> {
        self.child.kill().await.context("end the load")?;
        Ok(self.tally())
    }
}

async fn read(
    mut lines: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
    seen: Arc<Mutex<Vec<Timed>>>,
) {
    while let Ok(Some(line)) = lines.next_line().await {
        // The last line of a killed load may be half written.
        let Ok(answer) = serde_json::from_str(&line) else { continue };
        let timed = Timed { at: Instant::now(), answer };
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(timed);
    }
}
