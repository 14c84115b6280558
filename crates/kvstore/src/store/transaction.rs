//! Changes that happen together, at one revision.

use super::{
    entry::{Entry, Event, EventKind},
    lease::LeaseChange,
    snapshot::Snapshot,
};
use crate::range::KeyRange;
use bytes::Bytes;
use std::sync::Arc;

/// A private copy of the latest state, and the changes made to it so far.
#[derive(Debug)]
pub struct Transaction {
    working: Snapshot,
    revision: u64,
    events: Vec<Event>,
    leases: Vec<LeaseChange>,
}

/// The outcome of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed<T> {
    /// What the transaction's work returned.
    pub value: T,
    /// The revision of its changes, or the latest one if it changed nothing.
    pub revision: u64,
    /// Whether it changed anything.
    pub changed: bool,
}

impl Transaction {
    pub(crate) fn new(working: Snapshot) -> Self {
        let revision = working.revision() + 1;
        Self { working, revision, events: Vec::new(), leases: Vec::new() }
    }

    /// The state with this transaction's own changes.
    pub fn snapshot(&self) -> &Snapshot {
        &self.working
    }

    /// Whether anything has changed yet.
    pub fn is_changed(&self) -> bool {
        !self.events.is_empty()
    }

    /// Writes a key and returns the version before.
    ///
    /// The lease is 0 for none, or one that [`Snapshot::has_lease`] knows. Key and value are copied: what the store keeps
    /// does not hold on to the message that it came in.
    pub fn put(&mut self, key: Bytes, value: Bytes, lease: i64) -> Option<Arc<Entry>> {
        let previous = self.working.get(&key).cloned();
        let (create_revision, version) = previous
            .as_ref()
            .map_or((self.revision, 1), |before| (before.create_revision, before.version + 1));
        let (key, value) = together(&key, &value);
        let entry = Entry {
            key,
            value,
            create_revision,
            mod_revision: self.revision,
            version,
            lease,
            sub: self.sub(),
        };
        self.record(EventKind::Put, entry, previous.clone());
        previous
    }

    /// Deletes the keys of a range and returns what they were, in key order.
    pub fn delete(&mut self, range: &KeyRange) -> Vec<Arc<Entry>> {
        let found: Vec<Arc<Entry>> = self.working.range(range).cloned().collect();
        for previous in &found {
            let tombstone = Entry {
                key: previous.key.clone(),
                value: Bytes::new(),
                create_revision: 0,
                mod_revision: self.revision,
                version: 0,
                lease: 0,
                sub: self.sub(),
            };
            self.record(EventKind::Delete, tombstone, Some(previous.clone()));
        }
        found
    }

    /// Notes a new lease.
    pub(crate) fn grant(&mut self, id: i64, ttl_secs: i64) {
        self.working.set_lease(id, Some(ttl_secs));
        self.leases.push(LeaseChange::Granted { id, ttl_secs });
    }

    /// Notes the end of a lease, whose keys are deleted already.
    pub(crate) fn end_lease(&mut self, id: i64) {
        self.working.set_lease(id, None);
        self.leases.push(LeaseChange::Ended { id });
    }

    fn record(&mut self, kind: EventKind, entry: Entry, previous: Option<Arc<Entry>>) {
        let event = Event { kind, entry: Arc::new(entry), previous };
        self.working.set_revision(self.revision);
        self.working.apply(&event);
        self.events.push(event);
    }

    fn sub(&self) -> u32 {
        u32::try_from(self.events.len()).expect("a transaction has fewer than 2^32 changes")
    }

    pub(crate) fn finish(self) -> (Snapshot, Vec<Event>, Vec<LeaseChange>) {
        (self.working, self.events, self.leases)
    }
}

/// A copy of both in one piece of memory, which holds nothing else.
fn together(key: &[u8], value: &[u8]) -> (Bytes, Bytes) {
    let mut both = Bytes::from([key, value].concat());
    let key = both.split_to(key.len());
    (key, both)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_does_not_hold_on_to_the_message_it_came_in() {
        let message = Bytes::from(vec![7; 8192]);
        let mut transaction = Transaction::new(Snapshot::empty());
        transaction.put(message.slice(..10), message.slice(10..300), 0);
        let kept = transaction.snapshot().get(&message[..10]).cloned().expect("put");
        assert_eq!((&kept.key[..], &kept.value[..]), (&message[..10], &message[10..300]));
        drop(transaction);
        assert!(message.try_into_mut().is_ok(), "nothing else holds the message");
    }
}
