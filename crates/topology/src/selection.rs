//! Which backends a new connection to a service may go to, and why. Pure.
//!
//! The steps, in order:
//!
//! 1. [`candidates`]: backends that fit the frontend at all (protocol, address family, port name, and
//!    `internalTrafficPolicy`), as Cilium's `pkg/loadbalancer/writer/writer.go` (`matchesFrontend`).
//! 2. [`Affinity`]: the table of Cilium's `pkg/clustermesh/selectbackends.go`, exactly.
//! 3. Last choice: of what the table admits, terminating backends get new connections only if there is nothing
//!    better, and backends behind a suspect node only if there are not even those: a terminating one still serves.
//!    Where the table admits none at all, which is with affinity `local` if every backend is remote and suspect,
//!    those are the last choice too: a connection that may fail is better than one that is refused.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use crate::cluster::ClusterName;
use crate::name::NodeName;
use crate::record::Protocol;
use crate::record::local::{Affinity, LocalService, ServicePort};
use crate::snapshot::Snapshot;

/// A backend that fits a frontend, with what decides about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The pod's address.
    pub address: IpAddr,
    /// The port, host order.
    pub port: u16,
    /// The cluster that offers it; `None` for the own one.
    pub cluster: Option<ClusterName>,
    /// It is about to go.
    pub terminating: bool,
    /// It is behind a node that no longer answers this node's probes.
    pub suspect: bool,
}

/// Why a candidate gets new connections, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// In: it belongs to the preferred set and nothing is wrong with it.
    Preferred,
    /// In: the preferred set holds nothing better.
    LastChoice,
    /// Out: the affinity prefers backends of the own cluster, and there are some.
    LocalPreferred,
    /// Out: the affinity prefers backends of other clusters, and there are some.
    RemotePreferred,
    /// Out: it is about to go.
    Terminating,
    /// Out: it is behind a node that no longer answers.
    Suspect,
}

/// A frontend: one address and port that clients use.
#[derive(Clone, Copy, Debug)]
pub struct Frontend<'a> {
    /// The service's address.
    pub address: IpAddr,
    /// The service's port.
    pub port: &'a ServicePort,
}

impl Reason {
    /// True if a candidate with this reason gets new connections.
    pub fn is_in(self) -> bool {
        matches!(self, Self::Preferred | Self::LastChoice)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Preferred => "preferred",
            Self::LastChoice => "last choice: nothing better is left",
            Self::LocalPreferred => "the own cluster is preferred",
            Self::RemotePreferred => "other clusters are preferred",
            Self::Terminating => "terminating",
            Self::Suspect => "its node does not answer probes",
        })
    }
}

/// The backends that fit `frontend` of `service`, those of the own cluster first. O(n log n) in the backends of the
/// service.
pub fn candidates(snapshot: &Snapshot, service: &LocalService, frontend: Frontend<'_>) -> Vec<Candidate> {
    let fits = |address: IpAddr, protocol: Protocol, names: &[String]| {
        protocol == frontend.port.protocol
            && address.is_ipv4() == frontend.address.is_ipv4()
            && port_matches(&frontend.port.name, names)
    };
    let here = |node: Option<&NodeName>| !service.node_local || node == Some(&snapshot.node);
    let own = service
        .backends
        .iter()
        .filter(|b| fits(b.address, b.protocol, &b.port_names) && here(b.node.as_ref()))
        .map(|b| Candidate {
            address: b.address,
            port: b.port,
            cluster: None,
            terminating: b.terminating,
            suspect: false,
        });
    let mut found: Vec<Candidate> = own.collect();
    // Stock keeps remote backends for `internalTrafficPolicy: Local`; Kubernetes says node-local, and so do we.
    if !service.global || service.node_local {
        return found;
    }
    let mut taken: BTreeSet<(IpAddr, u16)> = found.iter().map(|c| (c.address, c.port)).collect();
    for peer in snapshot.peers.values() {
        let Some(remote) = peer.services.get(&service.name) else { continue };
        for b in remote.backends.iter().filter(|b| fits(b.address, b.protocol, &b.port_names)) {
            // A local backend with the same address wins; of two peers, the first by name.
            if !taken.insert((b.address, b.port)) {
                continue;
            }
            // A pod in its node's network has no record: its address is the node's own.
            let host = peer.host_of(b.address).unwrap_or(b.address);
            found.push(Candidate {
                address: b.address,
                port: b.port,
                cluster: Some(peer.name.clone()),
                terminating: false,
                suspect: snapshot.health.is_avoided(host),
            });
        }
    }
    found
}

/// Decides for each candidate, in their order. O(candidates).
pub fn select(affinity: Affinity, candidates: &[Candidate]) -> Vec<Reason> {
    let healthy = |c: &Candidate| !c.suspect;
    let active = |c: &Candidate| healthy(c) && !c.terminating;
    let is_local = |c: &Candidate| c.cluster.is_none();

    let local_active = candidates.iter().any(|c| is_local(c) && active(c));
    let local_healthy = candidates.iter().any(|c| is_local(c) && healthy(c));
    let no_local = !candidates.iter().any(is_local);
    let remote_healthy = candidates.iter().any(|c| !is_local(c) && healthy(c));
    let (use_local, use_remote) = match affinity {
        Affinity::None => (true, true),
        Affinity::Local => (true, no_local || (!local_active && remote_healthy)),
        Affinity::Remote => (!remote_healthy && local_healthy, true),
    };
    let admitted = |c: &Candidate| if is_local(c) { use_local } else { use_remote };

    // Of the admitted ones, the best rank that occurs gets the connections.
    let rank = |c: &Candidate| match (healthy(c), c.terminating) {
        (true, false) => 0,
        (true, true) => 1,
        (false, _) => 2,
    };
    let best = candidates.iter().filter(|c| admitted(c)).map(rank).min();
    candidates
        .iter()
        .map(|c| match (admitted(c), Some(rank(c)) == best) {
            (false, _) if is_local(c) => Reason::RemotePreferred,
            (false, _) => Reason::LocalPreferred,
            (true, true) if rank(c) == 0 => Reason::Preferred,
            (true, true) => Reason::LastChoice,
            (true, false) if !healthy(c) => Reason::Suspect,
            (true, false) => Reason::Terminating,
        })
        .collect()
}

/// True if a frontend port of this name may use a backend port of these names: only where both sides name
/// their ports must a name match.
pub fn port_matches(frontend: &str, backend: &[String]) -> bool {
    frontend.is_empty() || backend.is_empty() || backend.iter().any(|name| name == frontend)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidate(n: u8, cluster: Option<&str>, terminating: bool, suspect: bool) -> Candidate {
        Candidate {
            address: IpAddr::from([10, 0, 0, n]),
            port: 80,
            cluster: cluster.map(|c| c.parse().expect("a name")),
            terminating,
            suspect,
        }
    }

    /// Cilium's truth table, row by row: number of active-healthy local, healthy local, healthy remote backends
    /// and who is admitted. A member that is not healthy stands for "the whole set, unhealthy members included".
    #[test]
    fn affinity_is_the_stock_table() {
        // (local active, local terminating, remote healthy, affinity local, affinity remote)
        let rows = [
            (true, true, true, "L", "R"),
            (true, true, false, "L", "LR"),
            (false, true, true, "LR", "R"),
            (false, true, false, "L", "LR"),
            (false, false, true, "LR", "R"),
            (false, false, false, "L", "R"),
        ];
        for (active, terminating, remote, local_result, remote_result) in rows {
            let mut set = vec![candidate(1, None, false, true)];
            if active {
                set.push(candidate(2, None, false, false));
            }
            if terminating {
                set.push(candidate(3, None, true, false));
            }
            set.push(candidate(4, Some("tokyo"), false, true));
            if remote {
                set.push(candidate(5, Some("tokyo"), false, false));
            }
            for (affinity, expected) in [(Affinity::Local, local_result), (Affinity::Remote, remote_result)] {
                let reasons = select(affinity, &set);
                let admitted = |local: bool, out: Reason| {
                    set.iter().zip(&reasons).any(|(c, r)| c.cluster.is_none() == local && *r != out)
                };
                let mut found = String::new();
                if admitted(true, Reason::RemotePreferred) {
                    found.push('L');
                }
                if admitted(false, Reason::LocalPreferred) {
                    found.push('R');
                }
                assert_eq!(found, expected, "{affinity:?} {active} {terminating} {remote}: {reasons:?}");
            }
        }
    }

    #[test]
    fn a_suspect_backend_is_last_choice() {
        let set = [candidate(1, None, false, false), candidate(2, Some("tokyo"), false, true)];
        assert_eq!(select(Affinity::None, &set), [Reason::Preferred, Reason::Suspect]);
        let alone = [candidate(2, Some("tokyo"), false, true)];
        for affinity in [Affinity::None, Affinity::Local, Affinity::Remote] {
            assert_eq!(select(affinity, &alone), [Reason::LastChoice], "{affinity:?}");
        }
    }

    #[test]
    fn a_terminating_backend_still_serves_and_a_suspect_one_may_not() {
        let set = [candidate(1, None, true, false), candidate(2, Some("tokyo"), false, true)];
        assert_eq!(select(Affinity::None, &set), [Reason::LastChoice, Reason::Suspect]);
    }

    #[test]
    fn named_ports_match_by_name_only_where_both_have_names() {
        let names = |n: &[&str]| n.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        assert!(port_matches("http", &names(&["http", "web"])));
        assert!(!port_matches("http", &names(&["grpc"])));
        assert!(port_matches("", &names(&["grpc"])));
        assert!(port_matches("http", &[]));
    }

    fn any_candidate() -> impl Strategy<Value = Candidate> {
        (0u8..40, 0u8..3, any::<bool>(), any::<bool>()).prop_map(|(n, cluster, terminating, suspect)| {
            let cluster = [None, Some("osaka"), Some("tokyo")][usize::from(cluster)];
            candidate(n, cluster, terminating && cluster.is_none(), suspect && cluster.is_some())
        })
    }

    proptest! {
        #[test]
        fn some_candidate_is_always_in(set in prop::collection::vec(any_candidate(), 1..20), affinity in 0u8..3) {
            let affinity = [Affinity::None, Affinity::Local, Affinity::Remote][usize::from(affinity)];
            let reasons = select(affinity, &set);
            prop_assert!(reasons.iter().any(|r| r.is_in()), "{:?}", reasons);
        }

        #[test]
        fn a_sound_candidate_beats_an_unsound_one(set in prop::collection::vec(any_candidate(), 1..20)) {
            let reasons = select(Affinity::None, &set);
            let sound = |c: &Candidate| !c.suspect && !c.terminating;
            if set.iter().any(sound) {
                for (c, r) in set.iter().zip(reasons) {
                    prop_assert_eq!(r.is_in(), sound(c));
                }
            }
        }

        #[test]
        fn the_order_of_candidates_does_not_matter(set in prop::collection::vec(any_candidate(), 1..12), affinity in 0u8..3) {
            let affinity = [Affinity::None, Affinity::Local, Affinity::Remote][usize::from(affinity)];
            let forward = select(affinity, &set);
            let reversed: Vec<Candidate> = set.iter().rev().cloned().collect();
            let mut backward = select(affinity, &reversed);
            backward.reverse();
            prop_assert_eq!(forward, backward);
        }
    }
}
