//! Keeps the keys under some prefixes equal to what the caller wants there.
//!
//! At start the store may hold what an earlier process published: [`Publisher::replace`] compares, writes what
//! differs and deletes what is no longer wanted, so an unchanged record costs no revision and no peer is
//! disturbed. Canaries tell readers that the initial set is complete; they are written after it, never before.

mod heartbeat;

pub use heartbeat::{HEARTBEAT_INTERVAL, HEARTBEAT_KEY, beat};

use crate::{
    range::KeyRange,
    store::{Snapshot, Store, Transaction, WriteError},
};
use bytes::Bytes;
use std::collections::BTreeMap;
use tracing::debug;

/// Owns the keys under its prefixes: nobody else writes there.
#[derive(Debug)]
pub struct Publisher {
    store: Store,
    owned: Vec<KeyRange>,
}

/// A wanted change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// The key is to have this value.
    Put {
        /// The key.
        key: Bytes,
        /// Its value.
        value: Bytes,
    },
    /// The key is not to exist.
    Delete {
        /// The key.
        key: Bytes,
    },
}

/// What a call changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Keys written.
    pub written: usize,
    /// Keys deleted.
    pub deleted: usize,
    /// Keys that were as wanted.
    pub unchanged: usize,
    /// The store's revision after the last change.
    pub revision: u64,
}

/// Something was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The key belongs to somebody else.
    #[error("key {key:?} is outside the publisher's prefixes {owned:?}")]
    NotOwned {
        /// The key.
        key: Bytes,
        /// The starts of the prefixes.
        owned: Vec<Bytes>,
    },
    /// The store refused.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl Publisher {
    /// Publishes under `prefixes` in `store`.
    pub fn new(store: Store, prefixes: impl IntoIterator<Item = impl Into<Bytes>>) -> Self {
        let owned = prefixes.into_iter().map(|prefix| KeyRange::prefix(prefix)).collect();
        Self { store, owned }
    }

    /// The store that is published to.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Makes the keys under the prefixes exactly `desired`. O(keys there).
    ///
    /// Changes are made in batches of up to 1000 keys or 1 MiB, one revision each: written keys first, then
    /// deletions. Fails before any change if a key is not under a prefix of ours.
    pub fn replace(&self, desired: &BTreeMap<Bytes, Bytes>) -> Result<Outcome, PublishError> {
        let snapshot = self.store.snapshot();
        let puts = desired.iter().map(|(key, value)| Write::Put { key: key.clone(), value: value.clone() });
        let stale = self.owned.iter().flat_map(|range| snapshot.range(range));
        let stale = stale.filter(|entry| !desired.contains_key(&entry.key));
        let deletes = stale.map(|entry| Write::Delete { key: entry.key.clone() });
        self.apply(puts.chain(deletes))
    }

    /// Makes these changes, each in order, leaving out what is already so. O(changes).
    ///
    /// Changes that fit into one batch are visible at one revision.
    pub fn apply(&self, writes: impl IntoIterator<Item = Write>) -> Result<Outcome, PublishError> {
        let writes: Vec<Write> = writes.into_iter().collect();
        if let Some(foreign) = writes.iter().find(|write| !self.owns(write.key())) {
            let owned = self.owned.iter().map(|range| range.start().clone()).collect();
            return Err(PublishError::NotOwned { key: foreign.key().clone(), owned });
        }
        let mut outcome = Outcome { revision: self.store.revision(), ..Outcome::default() };
        let mut rest = writes.as_slice();
        while !rest.is_empty() {
            let batch = |transaction: &mut Transaction| Ok(take_batch(transaction, rest));
            let committed = self.store.derive::<_, WriteError>(batch)?;
            let (taken, part) = committed.value;
            outcome.written += part.written;
            outcome.deleted += part.deleted;
            outcome.unchanged += part.unchanged;
            outcome.revision = committed.revision;
            rest = rest.get(taken..).unwrap_or_default();
        }
        debug!(
            written = outcome.written,
            deleted = outcome.deleted,
            unchanged = outcome.unchanged,
            revision = outcome.revision,
            "published"
        );
        Ok(outcome)
    }

    /// Tells readers that the initial set is complete. To be called once [`replace`](Self::replace) has returned
    /// for every type that the canaries speak of; they share one revision after all of it.
    ///
    /// The canaries' keys need not be under the publisher's prefixes.
    pub fn announce(&self, canaries: impl IntoIterator<Item = (Bytes, Bytes)>) -> Result<u64, WriteError> {
        let committed = self.store.transact::<_, WriteError>(|transaction| {
            for (key, value) in canaries {
                put_if_changed(transaction, &key, &value);
            }
            Ok(())
        })?;
        Ok(committed.revision)
    }

    fn owns(&self, key: &[u8]) -> bool {
        self.owned.iter().any(|range| range.contains(key))
    }
}

impl Write {
    /// The key to be changed.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// Makes as many of the writes as fit into one batch; returns how many were looked at.
fn take_batch(transaction: &mut Transaction, writes: &[Write]) -> (usize, Outcome) {
    let mut outcome = Outcome::default();
    let mut bytes = 0;
    for (index, write) in writes.iter().enumerate() {
        if outcome.written + outcome.deleted >= KEYS_PER_BATCH || bytes >= BYTES_PER_BATCH {
            return (index, outcome);
        }
        match write {
            Write::Put { key, value } if put_if_changed(transaction, key, value) => {
                outcome.written += 1;
                bytes += key.len() + value.len();
            }
            Write::Delete { key } if transaction.snapshot().get(key).is_some() => {
                transaction.delete(&KeyRange::key(key.clone()));
                outcome.deleted += 1;
            }
            Write::Put { .. } | Write::Delete { .. } => outcome.unchanged += 1,
        }
    }
    (writes.len(), outcome)
}

fn put_if_changed(transaction: &mut Transaction, key: &Bytes, value: &Bytes) -> bool {
    let is_same = |snapshot: &Snapshot| snapshot.get(key).is_some_and(|entry| entry.value == value);
    if is_same(transaction.snapshot()) {
        return false;
    }
    transaction.put(key.clone(), value.clone(), 0);
    true
}

/// A revision reaches a watcher in one message, so its size is bounded (stock servers refuse requests over 1.5 MiB).
const KEYS_PER_BATCH: usize = 1000;
const BYTES_PER_BATCH: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{EventKind, StoreOptions};

    fn map(pairs: &[(&'static str, &'static str)]) -> BTreeMap<Bytes, Bytes> {
        pairs.iter().map(|(key, value)| (Bytes::from(*key), Bytes::from(*value))).collect()
    }

    #[test]
    fn only_differences_are_written_and_in_one_revision() {
        let store = Store::in_memory(StoreOptions::default());
        store.put("other/x", "kept").expect("put");
        let publisher = Publisher::new(store.clone(), ["ours/"]);
        let first = publisher.replace(&map(&[("ours/a", "1"), ("ours/b", "2")])).expect("publish");
        assert_eq!(first, Outcome { written: 2, deleted: 0, unchanged: 0, revision: 3 });

        let again = publisher.replace(&map(&[("ours/a", "1"), ("ours/b", "2")])).expect("publish");
        assert_eq!(again, Outcome { written: 0, deleted: 0, unchanged: 2, revision: 3 });

        let changed = publisher.replace(&map(&[("ours/b", "3"), ("ours/c", "4")])).expect("publish");
        assert_eq!(changed, Outcome { written: 2, deleted: 1, unchanged: 0, revision: 4 });
        let keys: Vec<Bytes> =
            store.snapshot().range(&KeyRange::all()).map(|entry| entry.key.clone()).collect();
        assert_eq!(keys, ["other/x", "ours/b", "ours/c"]);
    }

    #[test]
    fn a_foreign_key_is_refused_before_anything_is_written() {
        let store = Store::in_memory(StoreOptions::default());
        let publisher = Publisher::new(store.clone(), ["ours/"]);
        let refused = publisher.replace(&map(&[("ours/a", "1"), ("theirs/a", "1")]));
        assert!(
            matches!(&refused, Err(PublishError::NotOwned { key, .. }) if key == "theirs/a"),
            "{refused:?}"
        );
        assert_eq!(store.revision(), 1);
    }

    #[tokio::test]
    async fn canaries_come_after_the_whole_initial_set() {
        let store = Store::in_memory(StoreOptions::default());
        let mut watcher = store.watch(KeyRange::all(), 2);
        let publisher = Publisher::new(store.clone(), ["ours/"]);
        let many = (0..2500).map(|n| (Bytes::from(format!("ours/{n:05}")), Bytes::from("v"))).collect();
        let outcome = publisher.replace(&many).expect("publish");
        assert_eq!((outcome.written, outcome.revision), (2500, 4), "three revisions of at most 1000 keys");
        publisher.announce([("synced/ours".into(), "now".into())]).expect("announce");

        let mut seen = Vec::new();
        while seen.len() < 2501 {
            seen.extend(watcher.next().await.expect("nothing is compacted").events);
        }
        assert_eq!(seen.last().map(|event| event.entry.key.clone()), Some("synced/ours".into()));
        assert!(seen.iter().all(|event| event.kind == EventKind::Put));
    }
}
