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
    /// Judges from the verdict on each probed node, by cluster and address.
    ///
    /// A cluster is suspect when every node of it that ever answered is. If that holds for every cluster that
    /// ever answered, and there are at least two, the fault is presumed to be on this side: all of them failing
    /// together is less likely than this node's own network or probes failing. With a single peer the two
    /// cannot be told apart, and the peer is taken to be down.
    pub fn judge(probed: &BTreeMap<ClusterName, BTreeMap<IpAddr, Reachability>>) -> Self {
        let evidence = |nodes: &BTreeMap<IpAddr, Reachability>| {
            let mut known = nodes.values().filter(|r| **r != Reachability::Unprobed).peekable();
            known.peek()?;
            Some(known.all(|r| *r == Reachability::Suspect))
        };
        let verdicts: Vec<bool> = probed.values().filter_map(evidence).collect();
        Self {
            nodes: probed.values().flatten().map(|(address, r)| (*address, *r)).collect(),
            own_fault: verdicts.len() >= 2 && verdicts.iter().all(|suspect| *suspect),
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

    fn judge(peers: &[&[Reachability]]) -> NodeHealth {
        let nodes = |p: usize, n: &[Reachability]| {
            n.iter().enumerate().map(|(i, r)| (IpAddr::from([10, p as u8, 0, i as u8]), *r)).collect()
        };
        let name = |p: usize| format!("peer{p}").parse().expect("a name");
        NodeHealth::judge(&peers.iter().enumerate().map(|(p, n)| (name(p), nodes(p, n))).collect())
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
