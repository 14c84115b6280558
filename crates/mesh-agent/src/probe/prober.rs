//! Asks the agents of remote nodes, and judges from the answers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};
use topology::ClusterName;
use topology::health::{NodeHealth, ProbeHistory, Reachability};
use tracing::{debug, info, warn};

use super::packet::{LEN, Packet};

/// How often nodes are asked, and when silence means something.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Between two probes of one node.
    pub interval: Duration,
    /// How long an answer may take; more than the slowest link's round trip.
    pub timeout: Duration,
    /// Unanswered probes in a row that make a node suspect.
    pub misses: u32,
}

/// Nodes to ask, by cluster.
pub type Targets = BTreeMap<ClusterName, Vec<IpAddr>>;

/// What is known about one probed node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeReport {
    /// The node's cluster.
    pub cluster: ClusterName,
    /// The node's address.
    pub address: IpAddr,
    /// `unprobed` (never answered), `reachable` or `suspect`.
    pub state: &'static str,
    /// Round trip of the last answer, in microseconds.
    pub rtt_micros: Option<u64>,
    /// The address that the node saw us as.
    pub seen_as: Option<IpAddr>,
    /// Probes sent.
    pub sent: u64,
    /// Probes answered.
    pub answered: u64,
}

/// Asks nodes for as long as it runs.
#[derive(Debug)]
pub struct Prober {
    socket: UdpSocket,
    port: u16,
    timing: Timing,
    random: RandomState,
    sent: u64,
    nodes: BTreeMap<(ClusterName, IpAddr), Probed>,
    waiting: BTreeMap<u64, (ClusterName, IpAddr)>,
    health: watch::Sender<Arc<NodeHealth>>,
    reports: watch::Sender<Vec<ProbeReport>>,
    changed: Arc<Notify>,
}

/// What is remembered of one node.
#[derive(Debug, Default)]
struct Probed {
    history: ProbeHistory,
    /// Probes that have not been answered, oldest first; late answers count too.
    open: VecDeque<Open>,
    rtt: Option<Duration>,
    seen_as: Option<IpAddr>,
    sent: u64,
    answered: u64,
}

#[derive(Debug)]
struct Open {
    nonce: u64,
    at: Instant,
    missed: bool,
}

/// Probes of one node that may be open at once; an answer that comes later than so many is none.
const OPEN: usize = 32;

impl Prober {
    /// Prepares to ask the responders on `port` of whatever nodes there will be. `changed` is told whenever the
    /// verdict on some node changes.
    ///
    /// Fails if no UDP socket can be had.
    pub async fn bind(port: u16, timing: Timing, changed: Arc<Notify>) -> io::Result<Self> {
        let socket = match UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).await {
            Ok(socket) => socket,
            // A kernel without IPv6.
            Err(_) => UdpSocket::bind(("0.0.0.0", 0)).await?,
        };
        Ok(Self {
            socket,
            port,
            timing,
            random: RandomState::new(),
            sent: 0,
            nodes: BTreeMap::new(),
            waiting: BTreeMap::new(),
            health: watch::Sender::new(Arc::new(NodeHealth::default())),
            reports: watch::Sender::new(Vec::new()),
            changed,
        })
    }

    /// The verdicts.
    pub fn health(&self) -> watch::Receiver<Arc<NodeHealth>> {
        self.health.subscribe()
    }

    /// The figures, renewed with each round.
    pub fn reports(&self) -> watch::Receiver<Vec<ProbeReport>> {
        self.reports.subscribe()
    }

    /// Asks the nodes in `targets`, which may change at any time, for ever.
    pub async fn run(mut self, mut targets: watch::Receiver<Targets>) -> std::convert::Infallible {
        targets.mark_changed();
        let mut round = interval(self.timing.interval);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut buffer = [0; LEN + 1];
        loop {
            // Both arms are cancel-safe: a tick or a datagram is taken whole or not at all.
            tokio::select! {
                _ = round.tick() => {
                    // An error means that nobody changes them any more.
                    if targets.has_changed().unwrap_or(false) {
                        let wanted = targets.borrow_and_update().clone();
                        self.follow(&wanted);
                    }
                    self.round().await;
                }
                received = self.socket.recv_from(&mut buffer) => {
                    // An ICMP error to an earlier probe shows here; its silence is what counts.
                    let Ok((len, _)) = received else { continue };
                    self.take(buffer.get(..len));
                }
            }
        }
    }

    async fn round(&mut self) {
        // After a pause of this process, answers may wait here: they count before silence does.
        self.drain();
        self.expire();
        self.ask().await;
        self.judge();
    }

    /// Takes what has arrived; no more than could have been asked for, so that a flood does not hold up a round.
    fn drain(&mut self) {
        let mut buffer = [0; LEN + 1];
        for _ in 0..self.nodes.len() * OPEN {
            match self.socket.try_recv_from(&mut buffer) {
                Ok((len, _)) => self.take(buffer.get(..len)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // An ICMP error to an earlier probe.
                Err(_) => {}
            }
        }
    }

    fn take(&mut self, datagram: Option<&[u8]>) {
        if let Some(Packet::Answer { nonce, seen }) = datagram.and_then(Packet::decode) {
            self.answered(nonce, seen.ip());
        }
    }

    fn follow(&mut self, targets: &Targets) {
        let wanted = targets.iter().flat_map(|(cluster, nodes)| nodes.iter().map(|n| (cluster.clone(), *n)));
        let wanted: BTreeSet<(ClusterName, IpAddr)> = wanted.collect();
        self.nodes.retain(|node, _| wanted.contains(node));
        for node in wanted {
            self.nodes.entry(node).or_default();
        }
        self.waiting.retain(|_, node| self.nodes.contains_key(node));
    }

    fn expire(&mut self) {
        for probed in self.nodes.values_mut() {
            for open in probed.open.iter_mut().filter(|o| !o.missed && o.at.elapsed() >= self.timing.timeout)
            {
                open.missed = true;
                probed.history.missed();
            }
            while probed.open.len() >= OPEN {
                if let Some(open) = probed.open.pop_front() {
                    self.waiting.remove(&open.nonce);
                }
            }
        }
    }

    async fn ask(&mut self) {
        let mapped = self.socket.local_addr().is_ok_and(|a| a.is_ipv6());
        for (node, probed) in &mut self.nodes {
            self.sent += 1;
            let nonce = self.random.hash_one(self.sent);
            let target = SocketAddr::new(target(node.1, mapped), self.port);
            probed.open.push_back(Open { nonce, at: Instant::now(), missed: false });
            probed.sent += 1;
            self.waiting.insert(nonce, node.clone());
            // No route is a miss like any other.
            if let Err(error) = self.socket.send_to(&Packet::Probe { nonce }.encode(), target).await {
                debug!(%error, %target, "send a probe");
            }
        }
    }

    fn answered(&mut self, nonce: u64, seen: IpAddr) {
        let Some(node) = self.waiting.remove(&nonce) else { return };
        let Some(probed) = self.nodes.get_mut(&node) else { return };
        if let Some(index) = probed.open.iter().position(|open| open.nonce == nonce) {
            probed.rtt = probed.open.remove(index).map(|open| open.at.elapsed());
        }
        let before = probed.history.reachability(self.timing.misses);
        probed.history.answered();
        probed.answered += 1;
        probed.seen_as = Some(seen);
        // Good news is told at once; the figures wait for the next round.
        if before != Reachability::Reachable {
            self.judge();
        }
    }

    fn judge(&mut self) {
        let mut histories: BTreeMap<ClusterName, BTreeMap<IpAddr, ProbeHistory>> = BTreeMap::new();
        for ((cluster, address), probed) in &self.nodes {
            histories.entry(cluster.clone()).or_default().insert(*address, probed.history);
        }
        let health = NodeHealth::judge(&histories, self.timing.misses);
        let before = Arc::clone(&self.health.borrow());
        if *before != health {
            self.tell(&before, &health);
            self.health.send_replace(Arc::new(health));
            self.changed.notify_one();
        }
        self.reports
            .send_replace(self.nodes.iter().map(|(node, p)| report(node, p, self.timing.misses)).collect());
    }

    fn tell(&self, before: &NodeHealth, now: &NodeHealth) {
        for (cluster, address) in self.nodes.keys().filter(|(_, a)| before.of(*a) != now.of(*a)) {
            match now.of(*address) {
                Reachability::Suspect => {
                    let misses = self.timing.misses;
                    let last_choice = now.is_avoided(*address);
                    warn!(%cluster, %address, misses, last_choice, "node no longer answers probes");
                }
                Reachability::Reachable => info!(%cluster, %address, "node answers probes"),
                Reachability::Unprobed => {}
            }
        }
        match (before.own_fault_presumed(), now.own_fault_presumed()) {
            (false, true) => warn!(
                "all peers fell silent together: the fault is presumed to be on this side, no backend is last choice for it"
            ),
            (true, false) => {
                info!(
                    "the fault is no longer presumed to be on this side: silent nodes' backends are last choice"
                );
            }
            (true, true) | (false, false) => {}
        }
    }
}

/// An IPv4 target of a socket for both families is written in its mapped form.
fn target(address: IpAddr, mapped: bool) -> IpAddr {
    match address {
        IpAddr::V4(v4) if mapped => IpAddr::V6(v4.to_ipv6_mapped()),
        address => address,
    }
}

fn report((cluster, address): &(ClusterName, IpAddr), probed: &Probed, misses: u32) -> ProbeReport {
    ProbeReport {
        cluster: cluster.clone(),
        address: *address,
        state: match probed.history.reachability(misses) {
            Reachability::Unprobed => "unprobed",
            Reachability::Reachable => "reachable",
            Reachability::Suspect => "suspect",
        },
        rtt_micros: probed.rtt.and_then(|rtt| u64::try_from(rtt.as_micros()).ok()),
        seen_as: probed.seen_as,
        sent: probed.sent,
        answered: probed.answered,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::responder::respond;

    const TIMEOUT: Duration = Duration::from_millis(20);

    /// A machine that stands still for a second must not send its traffic elsewhere.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn answers_that_waited_for_this_process_count() {
        let responder = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let address = responder.local_addr().expect("an address");
        tokio::spawn(respond(responder));
        let timing = Timing { interval: TIMEOUT, timeout: TIMEOUT, misses: 3 };
        let mut prober = Prober::bind(address.port(), timing, Arc::default()).await.expect("a socket");
        prober.follow(&Targets::from([("tokyo".parse().expect("a name"), vec![address.ip()])]));
        prober.ask().await;
        prober.socket.readable().await.expect("an answer");
        prober.round().await;
        assert_eq!(prober.health().borrow().of(address.ip()), Reachability::Reachable);
        for _ in 0..timing.misses {
            prober.ask().await;
        }
        // The pause, longer than any answer may take.
        std::thread::sleep(10 * TIMEOUT);
        prober.socket.readable().await.expect("an answer");
        prober.round().await;
        assert_eq!(prober.health().borrow().of(address.ip()), Reachability::Reachable);
    }
}
