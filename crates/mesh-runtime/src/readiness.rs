//! Ready means that nothing is left to wait for, and what is left has a name.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What still keeps a process from being ready. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    open: Arc<Mutex<Open>>,
}

/// Keeps a process from being ready until it is dropped.
#[derive(Debug)]
#[must_use = "dropping the guard means that what it waits for is done"]
pub struct BlockReady {
    readiness: Readiness,
    number: u64,
}

/// Holds the guards that have not been dropped.
#[derive(Debug, Default)]
struct Open {
    guards: BTreeMap<u64, String>,
    next: u64,
}

impl Readiness {
    /// Nothing to wait for yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Something to wait for, such as `first sync of cluster tokyo`.
    pub fn block(&self, name: impl Into<String>) -> BlockReady {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let number = open.next;
        open.next += 1;
        open.guards.insert(number, name.into());
        BlockReady { readiness: self.clone(), number }
    }

    /// What is still waited for, in the order in which it was blocked on; empty means ready.
    pub fn waiting_for(&self) -> Vec<String> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).guards.values().cloned().collect()
    }

    /// Whether nothing is waited for.
    pub fn is_ready(&self) -> bool {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).guards.is_empty()
    }
}

impl Drop for BlockReady {
    fn drop(&mut self) {
        self.readiness.open.lock().unwrap_or_else(PoisonError::into_inner).guards.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_guard_is_dropped() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        let (own, peer) = (readiness.block("own hub"), readiness.block("cluster tokyo"));
        assert_eq!(readiness.waiting_for(), ["own hub", "cluster tokyo"]);
        drop(own);
        assert_eq!(readiness.clone().waiting_for(), ["cluster tokyo"]);
        drop(peer);
        assert!(readiness.is_ready());
    }
}
