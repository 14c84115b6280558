//! Keeps the keys under some prefixes equal to what the caller wants there.
//!
//! At start the store may hold what an earlier process published: [`Publisher::replace`] compares, writes what
//! differs and deletes what is no longer wanted, so an unchanged record costs no revision and no peer is
//! disturbed. Canaries tell readers that the initial set is complete; they are written after it, never before.
//!
//! It writes to a store of this process, or as the leader to an etcd cluster whose mirror it reads.

mod fenced;
mod heartbeat;

pub use heartbeat::{HEARTBEAT_INTERVAL, HEARTBEAT_KEY, beat};

use crate::{
    etcd::{Fence, FenceError},
    range::KeyRange,
    store::{DiskFailure, Snapshot, Store, Transaction, WriteError},
};
use bytes::Bytes;
use std::collections::BTreeMap;
use tracing::debug;

/// Owns the keys under its prefixes: nobody else writes there. Clones are the same publisher.
#[derive(Clone, Debug)]
pub struct Publisher {
    target: Target,
    owned: Vec<KeyRange>,
}

/// Where a publisher writes.
#[derive(Clone, Debug)]
pub enum Target {
    /// A store of this process.
    Embedded(Store),
    /// An etcd cluster, as long as a term as its leader lasts.
    Etcd(Fence),
}

impl From<Store> for Target {
    fn from(store: Store) -> Self {
        Self::Embedded(store)
    }
}

impl From<Fence> for Target {
    fn from(fence: Fence) -> Self {
        Self::Etcd(fence)
    }
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
    /// Keys left as they were, because etcd does not take so large a record; logged.
    pub too_large: usize,
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
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskFailure),
    /// The term as leader is over, or etcd failed.
    #[error(transparent)]
    Fence(#[from] FenceError),
}

impl PublishError {
    /// Whether the store's disk takes no writes: [`Store::writable`] tells when it does again.
    pub fn is_disk(&self) -> bool {
        matches!(self, Self::Disk(_) | Self::Write(WriteError::Disk(_)))
    }
}

impl Publisher {
    /// Publishes under `prefixes` in a store or an etcd cluster.
    pub fn new(target: impl Into<Target>, prefixes: impl IntoIterator<Item = impl Into<Bytes>>) -> Self {
        let owned = prefixes.into_iter().map(|prefix| KeyRange::prefix(prefix)).collect();
        Self { target: target.into(), owned }
    }

    /// What is published, as readers see it: the store, or the mirror of etcd.
    pub fn store(&self) -> &Store {
        match &self.target {
            Target::Embedded(store) => store,
            Target::Etcd(fence) => fence.etcd().mirror(),
        }
    }

    /// Makes the keys under the prefixes exactly `desired`. O(keys there).
    ///
    /// Changes are made in batches of up to 1000 keys (etcd: 128) or 1 MiB, one revision each: written keys first, then
    /// deletions. Fails before any change if a key is not under a prefix of ours.
    pub async fn replace(&self, desired: &BTreeMap<Bytes, Bytes>) -> Result<Outcome, PublishError> {
        let snapshot = self.store().snapshot();
        let puts = desired.iter().map(|(key, value)| Write::Put { key: key.clone(), value: value.clone() });
        let stale = self.owned.iter().flat_map(|range| snapshot.range(range));
        let stale = stale.filter(|entry| !desired.contains_key(&entry.key));
        let deletes = stale.map(|entry| Write::Delete { key: entry.key.clone() });
        let writes: Vec<Write> = puts.chain(deletes).collect();
        self.apply(writes).await
    }

    /// Makes these changes, each in order, leaving out what is already so. O(changes).
    ///
    /// Changes that fit into one batch are visible at one revision. The store, or the mirror, shows them when this
    /// returns. In etcd they are on disk then; in an embedded store see [`durable`](Self::durable).
    pub async fn apply(&self, writes: Vec<Write>) -> Result<Outcome, PublishError> {
        if let Some(foreign) = writes.iter().find(|write| !self.owns(write.key())) {
            let owned = self.owned.iter().map(|range| range.start().clone()).collect();
            return Err(PublishError::NotOwned { key: foreign.key().clone(), owned });
        }
        self.write(&writes).await
    }

    /// Tells readers that the initial set is complete. To be called once [`replace`](Self::replace) has returned
    /// for every type that the canaries speak of; they share one revision after all of it.
    ///
    /// The canaries' keys need not be under the publisher's prefixes.
    pub async fn announce(
        &self,
        canaries: impl IntoIterator<Item = (Bytes, Bytes)>,
    ) -> Result<u64, PublishError> {
        let canaries = canaries.into_iter().map(|(key, value)| Write::Put { key, value });
        let writes: Vec<Write> = canaries.collect();
        Ok(self.write(&writes).await?.revision)
    }

    /// Writes one key, also if it has this value already. It need not be under the publisher's prefixes.
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<u64, PublishError> {
        match &self.target {
            Target::Embedded(store) => {
                let (key, value) = (key.into(), value.into());
                let work = |transaction: &mut Transaction| Ok(transaction.put(key, value, 0));
                Ok(store.derive::<_, WriteError>(work)?.revision)
            }
            Target::Etcd(fence) => Ok(fenced::put(fence, key.into(), value.into()).await?),
        }
    }

    /// Deletes keys that need not be under the publisher's prefixes: what an earlier publisher announced.
    pub async fn withdraw(&self, keys: impl IntoIterator<Item = Bytes>) -> Result<u64, PublishError> {
        let writes: Vec<Write> = keys.into_iter().map(|key| Write::Delete { key }).collect();
        Ok(self.write(&writes).await?.revision)
    }

    /// Waits until a revision that this publisher has written survives the loss of power.
    pub async fn durable(&self, revision: u64) -> Result<(), PublishError> {
        match &self.target {
            Target::Embedded(store) => Ok(store.synced(revision).await?),
            // etcd answers when most members have it on disk.
            Target::Etcd(_) => Ok(()),
        }
    }

    async fn write(&self, writes: &[Write]) -> Result<Outcome, PublishError> {
        let outcome = match &self.target {
            Target::Embedded(store) => write_embedded(store, writes)?,
            Target::Etcd(fence) => fenced::apply(fence, writes).await?,
        };
        debug!(
            written = outcome.written,
            deleted = outcome.deleted,
            unchanged = outcome.unchanged,
            revision = outcome.revision,
            "published"
        );
        Ok(outcome)
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

fn write_embedded(store: &Store, writes: &[Write]) -> Result<Outcome, WriteError> {
    let mut outcome = Outcome { revision: store.revision(), ..Outcome::default() };
    let mut rest = writes;
    while !rest.is_empty() {
        let batch = |transaction: &mut Transaction| Ok(take_batch(transaction, rest));
        let committed = store.derive::<_, WriteError>(batch)?;
        let (taken, part) = committed.value;
        outcome.written += part.written;
        outcome.deleted += part.deleted;
        outcome.unchanged += part.unchanged;
        outcome.revision = committed.revision;
        rest = rest.get(taken..).unwrap_or_default();
    }
    Ok(outcome)
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

    #[tokio::test]
    async fn only_differences_are_written_and_in_one_revision() {
        let store = Store::in_memory(StoreOptions::default());
        store.put("other/x", "kept").expect("put");
        let publisher = Publisher::new(store.clone(), ["ours/"]);
        let first = publisher.replace(&map(&[("ours/a", "1"), ("ours/b", "2")])).await.expect("publish");
        assert_eq!(first, Outcome { written: 2, deleted: 0, unchanged: 0, too_large: 0, revision: 3 });

        let again = publisher.replace(&map(&[("ours/a", "1"), ("ours/b", "2")])).await.expect("publish");
        assert_eq!(again, Outcome { written: 0, deleted: 0, unchanged: 2, too_large: 0, revision: 3 });

        let changed = publisher.replace(&map(&[("ours/b", "3"), ("ours/c", "4")])).await.expect("publish");
        assert_eq!(changed, Outcome { written: 2, deleted: 1, unchanged: 0, too_large: 0, revision: 4 });
        let keys: Vec<Bytes> =
            store.snapshot().range(&KeyRange::all()).map(|entry| entry.key.clone()).collect();
        assert_eq!(keys, ["other/x", "ours/b", "ours/c"]);
    }

    #[tokio::test]
    async fn a_foreign_key_is_refused_before_anything_is_written() {
        let store = Store::in_memory(StoreOptions::default());
        let publisher = Publisher::new(store.clone(), ["ours/"]);
        let refused = publisher.replace(&map(&[("ours/a", "1"), ("theirs/a", "1")])).await;
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
        let outcome = publisher.replace(&many).await.expect("publish");
        assert_eq!((outcome.written, outcome.revision), (2500, 4), "three revisions of at most 1000 keys");
        publisher.announce([("synced/ours".into(), "now".into())]).await.expect("announce");

        let mut seen = Vec::new();
        while seen.len() < 2501 {
            seen.extend(watcher.next().await.expect("nothing is compacted").events);
        }
        assert_eq!(seen.last().map(|event| event.entry.key.clone()), Some("synced/ours".into()));
        assert!(seen.iter().all(|event| event.kind == EventKind::Put));
    }
}
