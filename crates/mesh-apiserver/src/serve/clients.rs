//! Who is connected, and who was turned away.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use pki::PeerIdentity;
use serde::Serialize;

use super::role_word;

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
}

/// A client that was turned away.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// When.
    pub at: Timestamp,
    /// Its address.
    pub address: SocketAddr,
    /// What kind of reason.
    pub kind: &'static str,
    /// The whole sentence.
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
    /// Notes a client that has connected.
    pub fn enter(&self, address: SocketAddr, peer: &PeerIdentity) -> Entry {
        let accepted = peer.accepted();
        let client = Client {
            name: peer.subject.clone(),
            role: accepted.map_or("refused", |accepted| role_word(&accepted.role)),
            cluster: accepted.and_then(|accepted| accepted.cluster()).map(ToString::to_string),
            address,
            since: Timestamp::now(),
            certificate_expires: accepted.and_then(|accepted| Timestamp::try_from(accepted.expires).ok()),
        };
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.connected.insert(number, client);
        Entry { clients: self.clone(), number }
    }

    /// Notes a client that was turned away. The last [`MAX_REFUSED`] are kept.
    pub fn refused(&self, refused: Refused) {
        let mut state = self.state();
        while state.refused.len() >= MAX_REFUSED {
            state.refused.pop_front();
        }
        state.refused.push_back(refused);
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
pub const MAX_REFUSED: usize = 50;
