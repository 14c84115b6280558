//! What goes wrong between us and an etcd cluster.

use tonic::{Code, Status};

/// The etcd behind the endpoints is not the one that was followed. The process has to begin anew.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreReplaced {
    /// Another cluster answers.
    #[error(
        "the store behind etcd is another one: cluster id {found:x}, expected {expected:x}; start anew to serve it"
    )]
    ClusterId {
        /// The id at first.
        expected: u64,
        /// The id now.
        found: u64,
    },
    /// It has forgotten revisions that it had shown, as after a restored backup.
    #[error(
        "the store behind etcd is another one: it is at revision {found}, {known} was seen; start anew to serve it"
    )]
    WentBack {
        /// What the mirror holds.
        known: u64,
        /// What a linearizable read said.
        found: u64,
    },
    /// It has the name and the revisions, but another history: etcd derives its cluster id from its flags, so one that was
    /// emptied and started again has the same.
    #[error(
        "the store behind etcd is another one: key {key:?} is not what it was at revision {revision}; start anew to serve it"
    )]
    Content {
        /// A key that the mirror has.
        key: bytes::Bytes,
        /// The mirror's revision.
        revision: u64,
    },
    /// It tells one revision twice, or leaves some out, so nothing that it says can be shown in order.
    #[error("etcd broke the order of its revisions: {found}")]
    Disorder {
        /// What came.
        found: String,
    },
}

/// A call to etcd did not succeed. Whether a write was made is not known, unless etcd itself refused it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EtcdError {
    /// etcd answered with an error, or the connection broke.
    #[error("{method} at etcd: {code}: {text}")]
    Call {
        /// The call.
        method: &'static str,
        /// The code.
        code: Code,
        /// etcd's text, or ours in etcd's words.
        text: String,
    },
    /// The answer makes no sense.
    #[error("answer to {method} is wrong: {found}, expected {expected}")]
    Protocol {
        /// The call.
        method: &'static str,
        /// What came.
        found: String,
        /// What should have come.
        expected: &'static str,
    },
    /// The history that is needed is gone.
    #[error("revision {asked} is compacted, the oldest one is {compacted}")]
    Compacted {
        /// What was asked for.
        asked: u64,
        /// The oldest one, 0 if etcd did not say.
        compacted: u64,
    },
    /// More was listed than is kept in memory.
    #[error("etcd holds more than {limit} {unit}, which is more than a mirror keeps")]
    TooLarge {
        /// The bound.
        limit: usize,
        /// What is bounded.
        unit: &'static str,
    },
    /// The watch does not deliver what a read shows to be there.
    #[error("watch at etcd stands still at revision {revision}, a read shows {latest}")]
    Stuck {
        /// The mirror's revision.
        revision: u64,
        /// What is there.
        latest: u64,
    },
    /// It is another store.
    #[error(transparent)]
    Replaced(#[from] StoreReplaced),
}

/// Something was not written by a leader.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FenceError {
    /// Another replica leads by now, or nobody does. Nothing was written.
    #[error("not the leader any more")]
    NotLeader,
    /// etcd failed. Whether it was written is not known.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    /// It was written, but the mirror does not show it.
    #[error("revision {revision} was written, but the mirror is still at {latest}")]
    Lagging {
        /// What was written.
        revision: u64,
        /// The mirror's.
        latest: u64,
    },
}

impl EtcdError {
    pub(super) fn call(method: &'static str, status: &Status) -> Self {
        Self::Call { method, code: status.code(), text: status.message().to_owned() }
    }
}
