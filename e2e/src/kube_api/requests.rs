//! Counting what clients ask for.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// Requests since the start or the last reset, as `GET /_lab/requests` gives them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    /// How often each thing was asked for: `list services`, `watch endpointslices.discovery.k8s.io`, `get /version`.
    pub requests: BTreeMap<String, u64>,
    /// How often each status was answered.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests for things that this server does not do, the first 100: a test asserts that there are none.
    pub unsupported: Vec<String>,
    /// Definitions with rules in CEL, which are not evaluated here.
    pub not_evaluated: Vec<String>,
}

/// Counts requests.
#[derive(Debug, Default)]
pub struct Counter(Mutex<Tally>);

/// Most entries of a list, and most different requests that are told apart.
const LIMIT: usize = 100;

impl Counter {
    /// What was counted.
    pub fn tally(&self) -> Tally {
        self.with(|tally| tally.clone())
    }

    /// Begins anew.
    pub fn reset(&self) {
        self.with(|tally| *tally = Tally::default());
    }

    pub(super) fn request(&self, what: String) {
        self.with(|tally| {
            let known = tally.requests.contains_key(&what) || tally.requests.len() < 10 * LIMIT;
            *tally.requests.entry(if known { what } else { "others".to_owned() }).or_default() += 1;
        });
    }

    pub(super) fn status(&self, status: u16) {
        self.with(|tally| *tally.statuses.entry(status).or_default() += 1);
    }

    pub(super) fn unsupported(&self, what: String) {
        self.with(|tally| note(&mut tally.unsupported, what));
    }

    pub(super) fn not_evaluated(&self, what: String) {
        self.with(|tally| note(&mut tally.not_evaluated, what));
    }

    fn with<R>(&self, work: impl FnOnce(&mut Tally) -> R) -> R {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn note(list: &mut Vec<String>, what: String) {
    if list.len() < LIMIT && !list.contains(&what) {
        list.push(what);
    }
}

impl Tally {
    /// How often this was asked for, e.g. `list services`.
    pub fn count(&self, what: &str) -> u64 {
        self.requests.get(what).copied().unwrap_or_default()
    }

    /// All requests for objects, without `/version` and such.
    pub fn total(&self) -> u64 {
        self.requests.values().sum()
    }
}
