//! Leases: keys that hang on one are deleted, at one revision, when nobody keeps it alive.
//!
//! That a lease exists, its time to live and its keys are part of the state and durable. When it runs out is not: as
//! in etcd after a change of leader, every lease has its whole time again after a start, so that a holder that could not
//! reach the store meanwhile does not lose its keys. A grant makes no revision. It survives the death of the process;
//! the death of the machine it survives together with the first write after it that is waited for.

use super::{Store, Transaction, WriteError, recovery};
use crate::range::KeyRange;
use bytes::Bytes;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use tracing::info;

/// Why a lease could not be granted or revoked.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// There is none with this number.
    #[error("lease {id:x} does not exist")]
    NotFound {
        /// The number asked for.
        id: i64,
    },
    /// There is one with this number already.
    #[error("lease {id:x} exists already")]
    Exists {
        /// The number asked for.
        id: i64,
    },
    /// The time to live is longer than any that is granted.
    #[error("time to live of {secs} s, expected at most {MAX_TTL_SECS} s")]
    TooLong {
        /// The seconds asked for.
        secs: i64,
    },
    /// There are [`MAX_LEASES`] already.
    #[error("there are {MAX_LEASES} leases already")]
    TooMany,
    /// The journal failed.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// A lease as it is at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its number, never 0.
    pub id: i64,
    /// The whole seconds that it was granted for.
    pub ttl_secs: i64,
    /// Time until it runs out.
    pub remaining: Duration,
}

/// A change to the set of leases, as the journal has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseChange {
    Granted { id: i64, ttl_secs: i64 },
    Ended { id: i64 },
}

/// When each lease runs out, by lease and by time.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    by_lease: HashMap<i64, Instant>,
    by_time: BTreeSet<(Instant, i64)>,
}

impl Deadlines {
    pub(crate) fn set(&mut self, id: i64, deadline: Instant) {
        self.remove(id);
        self.by_lease.insert(id, deadline);
        self.by_time.insert((deadline, id));
    }

    fn remove(&mut self, id: i64) {
        if let Some(deadline) = self.by_lease.remove(&id) {
            self.by_time.remove(&(deadline, id));
        }
    }

    pub(crate) fn change(&mut self, change: LeaseChange, now: Instant) {
        match change {
            LeaseChange::Granted { id, ttl_secs } => self.set(id, now + ttl(ttl_secs)),
            LeaseChange::Ended { id } => self.remove(id),
        }
    }

    /// The lease that ran out first, if one has.
    fn expired(&self, now: Instant) -> Option<i64> {
        self.by_time.first().filter(|(deadline, _)| *deadline <= now).map(|(_, id)| *id)
    }
}

impl Store {
    /// Grants a lease; the number 0 lets the store choose one at random. Times below [`MIN_TTL_SECS`] become that.
    ///
    /// Fails if the number is taken, the time too long, or if there are [`MAX_LEASES`]. Makes no revision.
    pub fn grant(&self, id: i64, ttl_secs: i64) -> Result<Lease, LeaseError> {
        if ttl_secs > MAX_TTL_SECS {
            return Err(LeaseError::TooLong { secs: ttl_secs });
        }
        let ttl_secs = ttl_secs.max(MIN_TTL_SECS);
        let granted = self.transact(|transaction| {
            if transaction.snapshot().lease_count() >= MAX_LEASES {
                return Err(LeaseError::TooMany);
            }
            let id = if id == 0 { unused_id(transaction) } else { id };
            if transaction.snapshot().has_lease(id) {
                return Err(LeaseError::Exists { id });
            }
            transaction.grant(id, ttl_secs);
            Ok(id)
        })?;
        Ok(Lease { id: granted.value, ttl_secs, remaining: ttl(ttl_secs) })
    }

    /// Ends a lease and deletes its keys, in their order and at one revision. Returns the latest revision after it.
    ///
    /// Fails if there is no such lease. O(keys of the lease).
    pub fn revoke(&self, id: i64) -> Result<u64, LeaseError> {
        let ended = self.transact(|transaction| {
            if !transaction.snapshot().has_lease(id) {
                return Err(LeaseError::NotFound { id });
            }
            end(transaction, id);
            Ok(())
        })?;
        Ok(ended.revision)
    }

    /// Gives a lease its whole time again and returns it; `None` if there is none or it has run out.
    pub fn keep_alive(&self, id: i64) -> Option<Lease> {
        let now = Instant::now();
        let ttl_secs = self.snapshot().lease(id)?;
        let mut deadlines = self.deadlines();
        deadlines.by_lease.get(&id).filter(|deadline| **deadline > now)?;
        deadlines.set(id, now + ttl(ttl_secs));
        Some(Lease { id, ttl_secs, remaining: ttl(ttl_secs) })
    }

    /// A lease as it is; `None` if there is none.
    pub fn lease(&self, id: i64) -> Option<Lease> {
        let ttl_secs = self.snapshot().lease(id)?;
        let deadline = self.deadlines().by_lease.get(&id).copied()?;
        Some(Lease { id, ttl_secs, remaining: deadline.saturating_duration_since(Instant::now()) })
    }

    /// The numbers of all leases, those that run out first before the others.
    pub fn leases(&self) -> Vec<i64> {
        self.deadlines().by_time.iter().map(|(_, id)| *id).collect()
    }

    /// Ends every lease that has run out, each at a revision of its own if it has keys. [`Store::maintain`] calls this.
    pub(super) fn expire_leases(&self) {
        loop {
            let Some(id) = self.deadlines().expired(Instant::now()) else { return };
            let work = |transaction: &mut Transaction| {
                // Somebody may have kept it alive in between; from here on nobody can.
                let mut deadlines = self.deadlines();
                if deadlines.by_lease.get(&id).is_none_or(|at| *at > Instant::now()) {
                    return Ok::<_, WriteError>(None);
                }
                deadlines.remove(id);
                drop(deadlines);
                Ok(Some(end(transaction, id)))
            };
            // The time has passed whatever the disk does; only a closed store writes nothing.
            let Ok(ended) = self.derive(work) else { return };
            if let Some(keys) = ended.value {
                info!(lease = format_args!("{id:x}"), keys, revision = ended.revision, "lease ran out");
            }
        }
    }

    pub(super) fn deadlines(&self) -> MutexGuard<'_, Deadlines> {
        // Each change is whole, so a panic of another holder leaves nothing half done.
        self.inner.deadlines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Deletes the keys of a lease and the lease; returns how many keys there were.
fn end(transaction: &mut Transaction, id: i64) -> usize {
    let keys: Vec<Bytes> = transaction.snapshot().lease_keys(id).cloned().collect();
    for key in &keys {
        transaction.delete(&KeyRange::key(key.clone()));
    }
    transaction.end_lease(id);
    keys.len()
}

fn unused_id(transaction: &Transaction) -> i64 {
    loop {
        // Positive, as etcd's.
        let id = i64::try_from(recovery::random_id() >> 1).unwrap_or_default();
        if id != 0 && !transaction.snapshot().has_lease(id) {
            return id;
        }
    }
}

fn ttl(secs: i64) -> Duration {
    // Far enough for anybody, and no clock overflows.
    Duration::from_secs(u64::try_from(secs).unwrap_or_default().min(LONGEST_WAIT_SECS))
}

/// Most leases at a time.
pub const MAX_LEASES: usize = 65_536;
/// The longest time to live, etcd's (`server/lease/lessor.go`).
pub const MAX_TTL_SECS: i64 = 9_000_000_000;
/// The shortest time to live: that of etcd with its default election timeout.
pub const MIN_TTL_SECS: i64 = 2;
const LONGEST_WAIT_SECS: u64 = 100 * 365 * 86_400;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{EventKind, StoreOptions};

    fn put(store: &Store, key: &'static str, lease: i64) -> u64 {
        let work = |transaction: &mut Transaction| Ok(transaction.put(key.into(), "v".into(), lease));
        store.transact::<_, WriteError>(work).expect("put").revision
    }

    fn keys(store: &Store, id: i64) -> Vec<Bytes> {
        store.snapshot().lease_keys(id).cloned().collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_nobody_keeps_takes_its_keys_with_it_at_one_revision() {
        let store = Store::in_memory(StoreOptions::default());
        let lease = store.grant(7, 10).expect("granted");
        assert_eq!(store.revision(), 1, "a grant makes no revision");
        put(&store, "b", lease.id);
        put(&store, "a", lease.id);
        put(&store, "c", 0);
        let mut watcher = store.watch(KeyRange::all(), 0);
        tokio::time::advance(Duration::from_secs(9)).await;
        store.expire_leases();
        assert_eq!(store.keep_alive(7).map(|lease| lease.remaining), Some(Duration::from_secs(10)));
        tokio::time::advance(Duration::from_secs(9)).await;
        store.expire_leases();
        assert_eq!(keys(&store, 7), ["a", "b"]);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(store.keep_alive(7), None, "it has run out");
        store.expire_leases();
        let changes = watcher.take().expect("not compacted").expect("changes");
        let seen = changes.events.iter().map(|event| (event.kind, event.entry.key.clone()));
        let expected = [(EventKind::Delete, "a".into()), (EventKind::Delete, "b".into())];
        assert_eq!(seen.collect::<Vec<_>>(), expected);
        assert_eq!((changes.revision, store.snapshot().len(), store.leases().len()), (5, 1, 0));
    }

    #[test]
    fn a_key_hangs_on_the_lease_of_its_last_write() {
        let store = Store::in_memory(StoreOptions::default());
        let (one, two) = (store.grant(0, 60).expect("granted"), store.grant(0, 60).expect("granted"));
        assert!(one.id > 0 && two.id > 0 && one.id != two.id);
        put(&store, "a", one.id);
        put(&store, "a", two.id);
        put(&store, "b", two.id);
        put(&store, "b", 0);
        put(&store, "c", two.id);
        store.delete(&KeyRange::key("c")).expect("delete");
        assert_eq!(keys(&store, one.id), [""; 0]);
        assert_eq!(keys(&store, two.id), ["a"]);
        let before = store.revision();
        assert_eq!(store.revoke(one.id).expect("revoked"), before, "without keys there is no revision");
        assert_eq!(store.revoke(two.id).expect("revoked"), before + 1);
        assert!(matches!(store.revoke(two.id), Err(LeaseError::NotFound { .. })));
        assert_eq!(store.snapshot().len(), 1);
    }

    #[test]
    fn what_cannot_be_granted_is_refused() {
        let store = Store::in_memory(StoreOptions::default());
        store.grant(5, 60).expect("granted");
        assert!(matches!(store.grant(5, 60), Err(LeaseError::Exists { id: 5 })));
        assert!(matches!(store.grant(6, MAX_TTL_SECS + 1), Err(LeaseError::TooLong { .. })));
        assert_eq!(store.grant(6, -3).expect("granted").ttl_secs, MIN_TTL_SECS);
        assert_eq!(store.grant(7, MAX_TTL_SECS).expect("granted").ttl_secs, MAX_TTL_SECS);
        assert_eq!(store.leases(), [6, 5, 7]);
        for _ in store.leases().len()..MAX_LEASES {
            store.grant(0, 60).expect("granted");
        }
        assert!(matches!(store.grant(0, 60), Err(LeaseError::TooMany)));
    }

    #[tokio::test(start_paused = true)]
    async fn leases_outlive_the_process_and_have_their_whole_time_again() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let open = || Store::open(directory.path(), StoreOptions::default()).expect("open");
        let store = open();
        store.grant(7, 100).expect("granted");
        store.grant(8, 100).expect("granted");
        put(&store, "a", 7);
        put(&store, "b", 8);
        tokio::time::advance(Duration::from_secs(90)).await;
        store.revoke(8).expect("revoked");
        drop(store);
        let store = open();
        assert_eq!((store.leases(), keys(&store, 7)), (vec![7], vec![Bytes::from("a")]));
        assert_eq!(store.lease(7).map(|lease| lease.remaining), Some(Duration::from_secs(100)));
        assert_eq!(store.snapshot().len(), 1, "the keys of the revoked lease stay away");
        store.revoke(7).expect("revoked");
        drop(store);
        let store = open();
        assert_eq!((store.leases(), store.snapshot().len()), (vec![], 0));
    }
}
