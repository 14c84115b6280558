//! What a node's own probes say about nodes of other clusters. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::cluster::ClusterName;

/// What this node's own probes say about another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reachability {
    /// No probe has ever been answered: a fault of configuration, shown, but no evidence.
    Unprobed,
    /// Probes are answered.
    Reachable,
    /// Probes used to be answered, and now several in a row were not.
    Suspect,
}

/// The history of probes to one node, as far as it decides about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeHistory {
    answered_once: bool,
    missed_in_a_row: u32,
}

/// The verdict on every probed node, and on this node itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeHealth {
    nodes: BTreeMap<IpAddr, Reachability>,
    own_fault: bool,
}

/// How many probes apart clusters may fall silent and still count as one event: answers on their way when it
/// happens differ by a few round trips.
pub const TOGETHER: u32 = 5;

impl ProbeHistory {
    /// Takes note of an answer.
    pub fn answered(&mut self) {
        *self = Self { answered_once: true, missed_in_a_row: 0 };
    }

    /// Takes note of a probe that was not answered in time.
    pub fn missed(&mut self) {
        self.missed_in_a_row = self.missed_in_a_row.saturating_add(1);
    }

    /// The verdict, where `misses` in a row make a node suspect.
    pub fn reachability(self, misses: u32) -> Reachability {
        match self {
            Self { answered_once: false, .. } => Reachability::Unprobed,
            Self { missed_in_a_row, .. } if missed_in_a_row >= misses => Reachability::Suspect,
            Self { .. } => Reachability::Reachable,
        }
    }
}

impl NodeHealth {
    /// Judges from the history of each probed node, by cluster and address, where `misses` unanswered probes in a
    /// row make a node suspect. All nodes are probed equally often.
    ///
    /// A cluster is suspect when every node of it that ever answered is. If that holds for every cluster that
    /// ever answered, there are at least two, and they fell silent within [`TOGETHER`] probes of each other, the
    /// fault is presumed to be on this side: all of them failing together is less likely than this node's own
    /// network or probes failing. One that fails while another has long been silent is down itself. With a single
    /// peer the two cannot be told apart, and the peer is taken to be down.
    pub fn judge(probed: &BTreeMap<ClusterName, BTreeMap<IpAddr, ProbeHistory>>, misses: u32) -> Self {
        // How long the last node of a cluster has been silent; nothing if none ever answered.
        let silent = |nodes: &BTreeMap<IpAddr, ProbeHistory>| {
            let known = nodes.values().filter(|h| h.answered_once);
            known.map(|history| history.missed_in_a_row).min()
        };
        let silences: Vec<u32> = probed.values().filter_map(silent).collect();
        let (shortest, longest) = (silences.iter().min().copied(), silences.iter().max().copied());
        let together = shortest.zip(longest).is_some_and(|(shortest, longest)| {
            shortest >= misses && longest.saturating_sub(shortest) <= TOGETHER
        });
        let verdict = |history: &ProbeHistory| history.reachability(misses);
        Self {
            nodes: probed.values().flatten().map(|(address, h)| (*address, verdict(h))).collect(),
            own_fault: silences.len() >= 2 && together,
        }
    }

    /// The verdict on the node with this address.
    pub fn of(&self, node: IpAddr) -> Reachability {
        self.nodes.get(&node).copied().unwrap_or(Reachability::Unprobed)
    }

    /// True if backends behind the node with this address are to be last choice.
    pub fn is_avoided(&self, node: IpAddr) -> bool {
        !self.own_fault && self.of(node) == Reachability::Suspect
    }

    /// True if every peer turned suspect together, so that suspicion is held against none of them.
    pub fn own_fault_presumed(&self) -> bool {
        self.own_fault
    }

    /// The verdict on each probed node.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, Reachability)> {
        self.nodes.iter().map(|(address, r)| (*address, *r))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Reachability::{Reachable, Suspect, Unprobed};

    fn silent(probes: u32) -> ProbeHistory {
        ProbeHistory { answered_once: true, missed_in_a_row: probes }
    }

    fn judge_histories(peers: &[&[ProbeHistory]]) -> NodeHealth {
        let nodes = |p: usize, n: &[ProbeHistory]| {
            n.iter().enumerate().map(|(i, h)| (IpAddr::from([10, p as u8, 0, i as u8]), *h)).collect()
        };
        let name = |p: usize| format!("peer{p}").parse().expect("a name");
        NodeHealth::judge(&peers.iter().enumerate().map(|(p, n)| (name(p), nodes(p, n))).collect(), 3)
    }

    fn judge(peers: &[&[Reachability]]) -> NodeHealth {
        let history = |r: &Reachability| match r {
            Unprobed => ProbeHistory::default(),
            Reachable => silent(0),
            Suspect => silent(3),
        };
        let peers: Vec<Vec<ProbeHistory>> = peers.iter().map(|n| n.iter().map(history).collect()).collect();
        judge_histories(&peers.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    #[test]
    fn a_peer_that_fails_after_another_is_down_and_both_are_avoided() {
        let (first, second) = (IpAddr::from([10, 0, 0, 0]), IpAddr::from([10, 1, 0, 0]));
        let together = judge_histories(&[&[silent(3)], &[silent(5)]]);
        assert!(together.own_fault_presumed() && !together.is_avoided(first));
        let apart = judge_histories(&[&[silent(18_000)], &[silent(3)]]);
        assert!(!apart.own_fault_presumed());
        assert!(apart.is_avoided(first) && apart.is_avoided(second));
        let last_node_counts = judge_histories(&[&[silent(18_000), silent(4)], &[silent(3)]]);
        assert!(last_node_counts.own_fault_presumed());
    }

    #[test]
    fn misses_count_only_after_an_answer_and_only_in_a_row() {
        let mut history = ProbeHistory::default();
        (0..10).for_each(|_| history.missed());
        assert_eq!(history.reachability(3), Unprobed);
        history.answered();
        history.missed();
        history.missed();
        assert_eq!(history.reachability(3), Reachable);
        history.missed();
        assert_eq!(history.reachability(3), Suspect);
        history.answered();
        assert_eq!(history.reachability(3), Reachable);
    }

    #[test]
    fn one_suspect_peer_of_two_is_avoided_and_two_of_two_are_not() {
        let address = IpAddr::from([10, 0, 0, 0]);
        assert!(judge(&[&[Suspect], &[Reachable]]).is_avoided(address));
        assert!(!judge(&[&[Suspect], &[Suspect]]).is_avoided(address));
        assert!(judge(&[&[Suspect]]).is_avoided(address), "with one peer, the peer is down");
        assert!(judge(&[&[Suspect], &[Suspect, Reachable]]).is_avoided(address));
        assert!(judge(&[&[Suspect], &[Unprobed]]).is_avoided(address), "unprobed is no evidence");
        assert!(!judge(&[&[Unprobed]]).is_avoided(address));
    }
}
