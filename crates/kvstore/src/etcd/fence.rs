//! Writing as the leader of one term: each transaction carries the term as a condition, so etcd itself refuses what a
//! former leader still sends.

use super::{
    Etcd, EtcdError, FenceError,
    call::{refused, wire},
};
use crate::proto::etcdserverpb::{
    CompactionRequest, Compare, RequestOp, TxnRequest,
    compare::{CompareResult, CompareTarget, TargetUnion},
};
use bytes::Bytes;
use std::{convert::Infallible, time::Duration};
use tokio::time::sleep;
use tonic::Code;
use tracing::{debug, warn};

/// Writes as the leader of one term, and not a moment longer. Clones are of the same term.
#[derive(Clone, Debug)]
pub struct Fence {
    pub(super) etcd: Etcd,
    pub(super) key: Bytes,
    pub(super) create_revision: u64,
}

impl Fence {
    /// The etcd that is written to.
    pub fn etcd(&self) -> &Etcd {
        &self.etcd
    }

    /// Makes these changes at one revision, if the term still lasts, and returns it. They are on the disks of most
    /// members then; the mirror need not show them yet, see [`shown`](Self::shown).
    ///
    /// At most 128 operations of 1 MiB together fit (etcd's `--max-txn-ops` and `--max-request-bytes`).
    pub async fn write(&self, operations: Vec<RequestOp>) -> Result<u64, FenceError> {
        let request = TxnRequest {
            compare: vec![created_at(&self.key, self.create_revision)],
            success: operations,
            failure: Vec::new(),
        };
        let answer = self.etcd.send_txn(request).await.map_err(refused("Txn"))?;
        if !answer.succeeded {
            return Err(FenceError::NotLeader);
        }
        let revision = answer.header.and_then(|header| u64::try_from(header.revision).ok());
        revision.filter(|revision| *revision > 0).ok_or_else(|| {
            let (found, expected) = ("no revision".to_owned(), "a header with a revision");
            EtcdError::Protocol { method: "Txn", found, expected }.into()
        })
    }

    /// Waits until the mirror shows a revision. Fails if it does not get there within ten seconds.
    pub async fn shown(&self, revision: u64) -> Result<(), FenceError> {
        if self.etcd.reached(revision, SHOWN).await {
            return Ok(());
        }
        Err(FenceError::Lagging { revision, latest: self.etcd.mirror().revision() })
    }

    /// Compacts etcd to where the mirror's retention has come, and returns the revision; `None` if etcd is there already.
    ///
    /// One leader at a time does it, and so the history in etcd is bounded as that of an embedded store is.
    pub async fn compact(&self) -> Result<Option<u64>, EtcdError> {
        let mirror = self.etcd.mirror().snapshot();
        let revision = mirror.compacted().min(mirror.revision());
        if revision == 0 {
            return Ok(None);
        }
        let request = CompactionRequest { revision: wire(revision), physical: false };
        match self.etcd.compact(request).await {
            Ok(_) => Ok(Some(revision)),
            // That far, or further, it is compacted.
            Err(status) if status.code() == Code::OutOfRange => Ok(None),
            Err(status) => Err(EtcdError::call("Compact", &status)),
        }
    }

    /// [Compacts](Self::compact) every minute, for ever.
    pub async fn compact_along(&self) -> Infallible {
        loop {
            sleep(COMPACT_INTERVAL).await;
            match self.compact().await {
                Ok(None) => {}
                Ok(Some(revision)) => debug!(revision, "etcd compacted"),
                Err(error) => warn!(error = %error, "compact etcd"),
            }
        }
    }

    /// Waits until the mirror shows that the term is over.
    pub(super) async fn superseded(&self) {
        let mut progress = self.etcd.mirror().progress();
        loop {
            progress.mark_unchanged();
            let snapshot = self.etcd.mirror().snapshot();
            let created = snapshot.get(&self.key).map(|entry| entry.create_revision);
            if created != Some(self.create_revision) {
                return;
            }
            progress.changed().await.expect("the mirror is alive");
        }
    }
}

/// The condition that a key was created at a revision; 0: that it is not there.
pub(super) fn created_at(key: &Bytes, revision: u64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::CreateRevision(wire(revision))),
        range_end: Bytes::new(),
    }
}

/// How long a write waits for the mirror.
pub(super) const SHOWN: Duration = Duration::from_secs(10);
const COMPACT_INTERVAL: Duration = Duration::from_secs(60);
