//! Who answered: single answers as `lab-pod` prints them (one JSON object a line), and their sum.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a backend says about itself, and what it saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Speaker {
    /// Its cluster.
    pub cluster: String,
    /// Its node.
    pub node: String,
    /// Its pod name.
    pub pod: String,
    /// The client's address as the backend saw it.
    pub saw: SocketAddr,
}

/// The outcome of one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Counts from 0.
    pub seq: u64,
    /// When it was asked, in microseconds since the client program started.
    pub asked_us: u64,
    /// How long until the answer or the failure, in microseconds.
    pub took_us: u64,
    /// Who answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Speaker>,
    /// Whom the client's socket says it talks to: `getpeername`, or the source of the datagram.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<SocketAddr>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Sums answers by backend and failures by text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    by_pod: BTreeMap<(String, String), usize>,
    errors: BTreeMap<String, usize>,
    peers: BTreeSet<SocketAddr>,
    sources: BTreeSet<IpAddr>,
    slowest: Duration,
}

impl Tally {
    /// Sums these.
    pub fn of<'a>(answers: impl IntoIterator<Item = &'a Answer>) -> Self {
        let mut tally = Self::default();
        for answer in answers {
            tally.add(answer);
        }
        tally
    }

    /// Adds one.
    pub fn add(&mut self, answer: &Answer) {
        match (&answer.from, &answer.error) {
            (Some(from), None) => {
                *self.by_pod.entry((from.cluster.clone(), from.pod.clone())).or_default() += 1;
                self.sources.insert(from.saw.ip().to_canonical());
                self.slowest = self.slowest.max(Duration::from_micros(answer.took_us));
            }
            (_, error) => {
                let text = error.as_deref().unwrap_or("no answer and no error");
                *self.errors.entry(text.to_owned()).or_default() += 1;
            }
        }
        self.peers.extend(answer.peer);
    }

    /// How many answers came from this cluster.
    pub fn cluster(&self, cluster: &str) -> usize {
        self.by_pod.iter().filter(|((from, _), _)| from == cluster).map(|(_, count)| count).sum()
    }

    /// How many answers came from this pod.
    pub fn pod(&self, cluster: &str, pod: &str) -> usize {
        self.by_pod.get(&(cluster.to_owned(), pod.to_owned())).copied().unwrap_or(0)
    }

    /// The clusters that answered.
    pub fn clusters(&self) -> BTreeSet<&str> {
        self.by_pod.keys().map(|(cluster, _)| cluster.as_str()).collect()
    }

    /// Answers by (cluster, pod).
    pub fn by_pod(&self) -> &BTreeMap<(String, String), usize> {
        &self.by_pod
    }

    /// Failures by text.
    pub fn errors(&self) -> &BTreeMap<String, usize> {
        &self.errors
    }

    /// How many requests were answered.
    pub fn answered(&self) -> usize {
        self.by_pod.values().sum()
    }

    /// How many requests failed.
    pub fn failed(&self) -> usize {
        self.errors.values().sum()
    }

    /// How many requests there were.
    pub fn total(&self) -> usize {
        self.answered() + self.failed()
    }

    /// Whom the client's sockets said they talked to.
    pub fn peers(&self) -> &BTreeSet<SocketAddr> {
        &self.peers
    }

    /// The client addresses that backends saw; IPv4-mapped ones as IPv4.
    pub fn sources(&self) -> &BTreeSet<IpAddr> {
        &self.sources
    }

    /// How long the slowest answered request took.
    pub fn slowest(&self) -> Duration {
        self.slowest
    }

    /// Fails unless every request was answered, by exactly these clusters (each at least once).
    pub fn expect_clusters(&self, clusters: &[&str]) -> anyhow::Result<()> {
        let expected: BTreeSet<&str> = clusters.iter().copied().collect();
        anyhow::ensure!(
            self.failed() == 0 && self.clusters() == expected,
            "expected answers from {expected:?} alone and no error, saw {self}"
        );
        Ok(())
    }

    /// Fails unless every request was answered and each cluster has its share: within `tolerance` (0.3 is 30 %) of what
    /// its number of backends predicts.
    pub fn expect_proportion(&self, backends: &[(&str, usize)], tolerance: f64) -> anyhow::Result<()> {
        let clusters: Vec<&str> = backends.iter().map(|(cluster, _)| *cluster).collect();
        self.expect_clusters(&clusters)?;
        let all: usize = backends.iter().map(|(_, count)| count).sum();
        for (cluster, count) in backends {
            let expected = self.answered() as f64 * *count as f64 / all as f64;
            let found = self.cluster(cluster) as f64;
            anyhow::ensure!(
                (found - expected).abs() <= expected * tolerance,
                "{cluster}: {found} answers, expected {expected:.0} ± {:.0} %; saw {self}",
                tolerance * 100.0
            );
        }
        Ok(())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answers", self.answered())?;
        for ((cluster, pod), count) in &self.by_pod {
            write!(f, ", {cluster}/{pod} {count}")?;
        }
        for (error, count) in &self.errors {
            write!(f, ", {count} times error {error:?}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(cluster: &str, pod: &str) -> Answer {
        let saw = SocketAddr::from(([10, 1, 1, 10], 40000));
        let from = Speaker { cluster: cluster.into(), node: "n1".into(), pod: pod.into(), saw };
        Answer { seq: 0, asked_us: 0, took_us: 5, from: Some(from), peer: None, error: None }
    }

    fn failure(text: &str) -> Answer {
        Answer { from: None, error: Some(text.into()), ..answer("", "") }
    }

    #[test]
    fn proportion_is_by_backends() {
        let mut answers = vec![answer("paris", "a"); 20];
        answers.extend(vec![answer("tokyo", "b"); 41]);
        let tally = Tally::of(&answers);
        tally.expect_proportion(&[("paris", 1), ("tokyo", 2)], 0.1).expect("1 to 2");
        assert!(tally.expect_proportion(&[("paris", 1), ("tokyo", 1)], 0.1).is_err());
    }

    #[test]
    fn one_error_is_not_all_answered() {
        let tally = Tally::of(&[answer("paris", "a"), failure("refused")]);
        let error = tally.expect_clusters(&["paris"]).expect_err("one failed").to_string();
        assert!(error.contains("refused"), "{error}");
        assert_eq!((tally.answered(), tally.failed(), tally.total()), (1, 1, 2));
    }

    #[test]
    fn a_line_reads_back() {
        for answer in [answer("paris", "a"), failure("timeout")] {
            let line = serde_json::to_string(&answer).expect("plain data");
            assert_eq!(serde_json::from_str::<Answer>(&line).expect("same shape"), answer, "{line}");
        }
    }
}
