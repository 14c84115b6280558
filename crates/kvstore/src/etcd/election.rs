//! Who writes: one replica, by a key that hangs on a lease.
//!
//! The key's `create_revision` is the number of the term. Every write carries it as a condition, so etcd itself refuses
//! what a former leader still sends, however late it arrives. When anything fails, the term is given up and another one
//! is campaigned for: a write whose fate is unknown can then no longer be made.

use super::{
    Etcd, EtcdError, FenceError,
    call::{refused, wire},
};
use crate::proto::etcdserverpb::{
    CompactionRequest, Compare, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, PutRequest,
    RequestOp, TxnRequest,
    compare::{CompareResult, CompareTarget, TargetUnion},
    request_op::Request,
};
use bytes::Bytes;
use std::{convert::Infallible, time::Duration};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tonic::Code;
use tracing::{debug, info, warn};

/// A replica that wants to write.
#[derive(Clone, Debug)]
pub struct Contender {
    etcd: Etcd,
    key: Bytes,
    name: String,
}

/// One term as the leader. Dropping it ends it when its lease runs out; [`resign`](Self::resign) ends it at once.
#[derive(Debug)]
pub struct Leadership {
    fence: Fence,
    lease: i64,
    /// Why it is lost, once it is.
    lost: watch::Receiver<Option<String>>,
    _keeper: JoinSet<()>,
}

/// Writes as the leader of one term, and not a moment longer. Clones are of the same term.
#[derive(Clone, Debug)]
pub struct Fence {
    etcd: Etcd,
    key: Bytes,
    create_revision: u64,
}

impl Contender {
    /// A contender that puts its `name` to `key` when it leads.
    pub fn new(etcd: Etcd, key: impl Into<Bytes>, name: impl Into<String>) -> Self {
        Self { etcd, key: key.into(), name: name.into() }
    }

    /// Waits until this replica leads. The mirror then holds everything that was written before.
    ///
    /// Dropping the future ends the campaign; a lease that was just granted runs out.
    pub async fn elected(&self) -> Leadership {
        let mut pause = SHORTEST_PAUSE;
        loop {
            self.vacant().await;
            match self.stand().await {
                Ok(Some(leadership)) => return leadership,
                Ok(None) => pause = SHORTEST_PAUSE,
                Err(error) => {
                    debug!(error = %error, "campaign failed");
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// The name of the leader of the moment, as the mirror has it.
    pub fn leader(&self) -> Option<String> {
        let snapshot = self.etcd.mirror().snapshot();
        snapshot.get(&self.key).map(|entry| String::from_utf8_lossy(&entry.value).into_owned())
    }

    /// Waits until the mirror shows no leader.
    async fn vacant(&self) {
        let mut progress = self.etcd.mirror().progress();
        loop {
            progress.mark_unchanged();
            if self.etcd.mirror().snapshot().get(&self.key).is_none() {
                return;
            }
            // The sender lives as long as the mirror, which we hold.
            progress.changed().await.expect("the mirror is alive");
        }
    }

    /// Tries to become the leader, once.
    async fn stand(&self) -> Result<Option<Leadership>, EtcdError> {
        let granting = Instant::now();
        let granted = self.etcd.lease_grant(LeaseGrantRequest { ttl: LEASE_TTL_SECS, id: 0 }).await;
        let lease = granted.map_err(refused("LeaseGrant"))?.id;
        let put = PutRequest {
            key: self.key.clone(),
            value: self.name.clone().into(),
            lease,
            ..PutRequest::default()
        };
        let request = TxnRequest {
            compare: vec![created_at(&self.key, 0)],
            success: vec![operation(Request::RequestPut(put))],
            failure: Vec::new(),
        };
        let answer = self.etcd.txn(request).await;
        let won = matches!(&answer, Ok(answer) if answer.succeeded);
        if !won {
            // Also if its fate is unknown: without its lease the put cannot be made any more.
            revoke(&self.etcd, lease).await;
        }
        let answer = answer.map_err(refused("Txn"))?;
        let revision = answer.header.and_then(|header| u64::try_from(header.revision).ok()).unwrap_or(0);
        if !self.etcd.reached(revision, SHOWN).await {
            revoke(&self.etcd, lease).await;
            return Err(EtcdError::Stuck { revision: self.etcd.mirror().revision(), latest: revision });
        }
        if !won {
            return Ok(None);
        }
        let fence = Fence { etcd: self.etcd.clone(), key: self.key.clone(), create_revision: revision };
        let (sender, lost) = watch::channel(None);
        let mut keeper = JoinSet::new();
        keeper.spawn(keep(self.etcd.clone(), lease, granting, sender));
        info!(name = self.name, term = revision, "this replica writes from now on");
        Ok(Some(Leadership { fence, lease, lost, _keeper: keeper }))
    }
}

impl Leadership {
    /// How to write.
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// Waits until the term is over and says why. Cancel safe.
    pub async fn lost(&mut self) -> String {
        let fence = self.fence.clone();
        // Both arms only wait.
        tokio::select! {
            reason = self.lost.wait_for(Option::is_some) => {
                reason.ok().and_then(|reason| reason.clone()).unwrap_or_else(|| "the lease is not kept".to_owned())
            }
            () = fence.superseded() => "another replica was elected, or the leader's key was deleted".to_owned(),
        }
    }

    /// Gives the term up, so that another replica takes over at once. Takes two seconds at most.
    pub async fn resign(self) {
        let Self { fence, lease, _keeper: keeper, .. } = self;
        drop(keeper);
        revoke(&fence.etcd, lease).await;
    }
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
    async fn superseded(&self) {
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

/// Keeps a lease alive until it is lost, and says why.
async fn keep(etcd: Etcd, lease: i64, granted: Instant, lost: watch::Sender<Option<String>>) {
    let ttl = Duration::from_secs(LEASE_TTL_SECS.unsigned_abs());
    let mut kept = granted;
    let reason = loop {
        let begun = Instant::now();
        let answer = timeout_at(kept + ttl, etcd.lease_keep_alive(LeaseKeepAliveRequest { id: lease })).await;
        match answer {
            Ok(Ok(answer)) if answer.ttl > 0 => kept = begun,
            Ok(Ok(_)) => break "the lease has run out".to_owned(),
            Ok(Err(status)) => debug!(error = status.message(), "keep the leader's lease alive"),
            Err(_elapsed) => {}
        }
        if kept + ttl <= Instant::now() {
            break format!("the lease could not be kept alive for {} s", ttl.as_secs());
        }
        sleep_until((begun + ttl / 3).min(kept + ttl)).await;
    };
    lost.send_replace(Some(reason));
}

async fn revoke(etcd: &Etcd, lease: i64) {
    let revoked = timeout(REVOKE, etcd.lease_revoke(LeaseRevokeRequest { id: lease })).await;
    if !matches!(revoked, Ok(Ok(_))) {
        debug!(lease = format_args!("{lease:x}"), "lease not revoked, it runs out");
    }
}

fn created_at(key: &Bytes, revision: u64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::CreateRevision(wire(revision))),
        range_end: Bytes::new(),
    }
}

fn operation(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

/// Time to live of the leader's lease: how long nobody writes after the leader died without a word.
pub const LEASE_TTL_SECS: i64 = 5;
/// How long a write waits for the mirror.
const SHOWN: Duration = Duration::from_secs(10);
const REVOKE: Duration = Duration::from_secs(2);
const COMPACT_INTERVAL: Duration = Duration::from_secs(60);
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
