//! Asks the agents of remote nodes, and judges from the answers.

use std::collections::{BTreeMap, VecDeque};
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
    pub async fn run(mut self, targets: watch::Receiver<Targets>) -> std::convert::Infallible {
        let mut round = interval(self.timing.interval);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut buffer = [0; LEN + 1];
        loop {
            // Both arms are cancel-safe: a tick or a datagram is taken whole or not at all.
            tokio::select! {
                _ = round.tick() => {
                    let wanted = targets.borrow().clone();
                    self.follow(&wanted);
                    self.expire();
                    self.ask().await;
                    self.judge();
                }
                received = self.socket.recv_from(&mut buffer) => {
                    // An ICMP error to an earlier probe shows here; its silence is what counts.
                    let Ok((len, _)) = received else { continue };
                    if let Some(Packet::Answer { nonce, seen }) = buffer.get(..len).and_then(Packet::decode) {
                        self.answered(nonce, seen.ip());
                    }
                }
            }
        }
    }

    fn follow(&mut self, targets: &Targets) {
        self.nodes.retain(|(cluster, address), _| {
            targets.get(cluster).is_some_and(|nodes| nodes.contains(address))
        });
        for (cluster, nodes) in targets {
            for address in nodes {
                self.nodes.entry((cluster.clone(), *address)).or_default();
            }
        }
        self.waiting.retain(|_, node| self.nodes.contains_key(node));
    }

    fn expire(&mut self) {
        for probed in self.nodes.values_mut() {
            for open in probed.open.iter_mut().filter(|o| !o.missed && o.at.elapsed() >= self.timing.timeout) {
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
        let mut verdicts: BTreeMap<ClusterName, BTreeMap<IpAddr, Reachability>> = BTreeMap::new();
        for ((cluster, address), probed) in &self.nodes {
            let verdict = probed.history.reachability(self.timing.misses);
            verdicts.entry(cluster.clone()).or_default().insert(*address, verdict);
        }
        let health = NodeHealth::judge(&verdicts);
        let before = Arc::clone(&self.health.borrow());
        if *before != health {
            self.tell(&before, &health, &verdicts);
            self.health.send_replace(Arc::new(health));
            self.changed.notify_one();
        }
        self.reports.send_replace(self.nodes.iter().map(|(node, p)| report(node, p, self.timing.misses)).collect());
    }

    fn tell(
        &self,
        before: &NodeHealth,
        now: &NodeHealth,
        verdicts: &BTreeMap<ClusterName, BTreeMap<IpAddr, Reachability>>,
    ) {
        for (cluster, nodes) in verdicts {
            for (address, verdict) in nodes.iter().filter(|(a, v)| before.of(**a) != **v) {
                match verdict {
                    Reachability::Suspect => {
                        warn!(%cluster, %address, misses = self.timing.misses, "node no longer answers probes: its backends are last choice");
                    }
                    Reachability::Reachable => info!(%cluster, %address, "node answers probes"),
                    Reachability::Unprobed => {}
                }
            }
        }
        if now.own_fault_presumed() && !before.own_fault_presumed() {
            warn!("no peer answers probes any more: the fault is presumed to be on this side, and traffic stays as it is");
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
