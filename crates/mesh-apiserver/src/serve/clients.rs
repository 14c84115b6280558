//! Who is connected, and who was turned away.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use pki::PeerIdentity;
use serde::Serialize;

use super::{handshakes::subnet, notices::gist, role_word};
use crate::peer_filters::in_force::Peer;

/// The clients of the API, shared between connections and the status page.
#[derive(Clone, Debug, Default)]
pub struct Clients {
    state: Arc<Mutex<State>>,
}

/// A client that is connected.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Client {
    /// Its certificate in words.
    pub name: String,
    /// What it is.
    pub role: &'static str,
    /// The cluster that its passport proves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Its address.
    pub address: SocketAddr,
    /// When it connected.
    pub since: Timestamp,
    /// When its certificate ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_expires: Option<Timestamp>,
    /// Whose export filter applies to it.
    #[serde(skip)]
    pub peer: Option<Peer>,
}

/// A client that was turned away, once or again and again for the same reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// When last.
    pub at: Timestamp,
    /// When first.
    pub first: Timestamp,
    /// How many times.
    pub count: u64,
    /// Its address, the last time.
    pub address: SocketAddr,
    /// What kind of reason.
    pub kind: &'static str,
    /// The whole sentence, of the last time.
    pub reason: String,
}

/// Keeps a client in the list until it is dropped.
#[derive(Debug)]
pub struct Entry {
    clients: Clients,
    number: u64,
}

#[derive(Debug, Default)]
struct State {
    connected: BTreeMap<u64, Client>,
    refused: VecDeque<Refused>,
    next: u64,
}

impl Clients {
    /// Notes a client that has connected, and whose export filter applies to it.
    pub fn enter(&self, address: SocketAddr, identity: &PeerIdentity, peer: Option<Peer>) -> Entry {
        let accepted = identity.accepted();
        let client = Client {
            name: identity.subject.clone(),
            role: accepted.map_or("refused", |accepted| role_word(&accepted.role)),
            cluster: accepted.and_then(|accepted| accepted.cluster()).map(ToString::to_string),
            address,
            since: Timestamp::now(),
            certificate_expires: accepted.and_then(|accepted| Timestamp::try_from(accepted.expires).ok()),
            peer,
        };
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.connected.insert(number, client);
        Entry { clients: self.clone(), number }
    }

    /// Notes a client that was turned away. The last [`MAX_REFUSED`] are kept, of one address the last
    /// [`MAX_REFUSED_OF_ADDRESS`]; the same reason again is the same entry.
    pub fn refused(&self, at: Timestamp, address: SocketAddr, kind: &'static str, reason: String) {
        let of_address = |refused: &Refused| subnet(refused.address.ip()) == subnet(address.ip());
        let what = gist(&reason);
        let is_same =
            |refused: &Refused| of_address(refused) && refused.kind == kind && gist(&refused.reason) == what;
        let mut state = self.state();
        let refused = &mut state.refused;
        let known = refused.iter().position(is_same).and_then(|at| refused.remove(at));
        if known.is_none() {
            let oldest = || refused.iter().position(of_address);
            if refused.iter().filter(|refused| of_address(refused)).count() >= MAX_REFUSED_OF_ADDRESS {
                oldest().and_then(|at| refused.remove(at));
            } else if refused.len() >= MAX_REFUSED {
                refused.pop_front();
            }
        }
        let (first, count) = known.map_or((at, 0), |known| (known.first, known.count));
        refused.push_back(Refused { at, first, count: count + 1, address, kind, reason });
    }

    /// Who is connected, by time.
    pub fn connected(&self) -> Vec<Client> {
        self.state().connected.values().cloned().collect()
    }

    /// Who was turned away lately, the last one first.
    pub fn lately_refused(&self) -> Vec<Refused> {
        self.state().refused.iter().rev().cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is whole, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.clients.state().connected.remove(&self.number);
    }
}

/// Refusals that the status page shows.
pub const MAX_REFUSED: usize = 64;
/// Of them, those of one IPv4 address or IPv6 /64: who is refused in a loop does not hide the others.
pub const MAX_REFUSED_OF_ADDRESS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_in_a_loop_are_one_entry_and_hide_nobody() {
        let clients = Clients::default();
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let at = |second| Timestamp::from_second(second).expect("a time");
        clients.refused(at(0), address("192.0.2.9:1"), "tls", "the quiet one".to_owned());
        for n in 1..=1000_u16 {
            let reason = format!("certificate CN=x, serial {n:x}: no");
            clients.refused(at(n.into()), SocketAddr::new([192, 0, 2, 1].into(), n), "peer-refused", reason);
        }
        let reason = "certificate CN=x, serial 3e8: no".to_owned();
        let last = Refused {
            at: at(1000),
            first: at(1),
            count: 1000,
            address: address("192.0.2.1:1000"),
            kind: "peer-refused",
            reason,
        };
        let seen = clients.lately_refused();
        assert_eq!((seen.len(), &seen[0]), (2, &last));
        // Ever new names are many entries, but only so many.
        for n in 0..1000 {
            clients.refused(at(2000), address("192.0.2.1:1"), "peer-refused", format!("{n}"));
        }
        let seen = clients.lately_refused();
        assert_eq!(seen.len(), MAX_REFUSED_OF_ADDRESS + 1);
        assert_eq!(seen[MAX_REFUSED_OF_ADDRESS].reason, "the quiet one");
        for n in 0..200_u8 {
            clients.refused(at(3000), SocketAddr::new([198, 51, 100, n].into(), 1), "tls", "x".to_owned());
        }
        assert_eq!(clients.lately_refused().len(), MAX_REFUSED);
    }
}
