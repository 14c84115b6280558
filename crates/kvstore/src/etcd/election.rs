//! Who writes: one replica, by a key that hangs on a lease.
//!
//! The key's `create_revision` is the number of the term. Every write carries it as a condition, so etcd itself refuses
//! what a former leader still sends, however late it arrives. When anything fails, the term is given up and another one
//! is campaigned for: a write whose fate is unknown can then no longer be made.

use super::{
    Etcd, EtcdError,
    call::refused,
    fence::{Fence, SHOWN, created_at},
};
use crate::proto::etcdserverpb::{
    DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, PutRequest, RequestOp,
    TxnRequest, request_op::Request,
};
use bytes::Bytes;
use std::time::Duration;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tracing::{debug, info};

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
    /// Until when the lease lasts, as far as etcd has answered.
    kept_until: watch::Receiver<Instant>,
    _keeper: JoinSet<()>,
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
            self.shows(false).await;
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

    /// Waits until etcd answers, as far as the mirror tells: without that there is no use in standing. Cancel safe.
    pub async fn in_contact(&self) {
        self.etcd.current_within(FRESH).await;
    }

    /// Waits until the mirror shows a leader, and then none. Cancel safe.
    pub async fn vacated(&self) {
        self.shows(true).await;
        self.shows(false).await;
    }

    /// Ends the term of whoever leads under another name, and returns that name; `None` if nobody does. What that replica
    /// still sends, etcd refuses.
    ///
    /// For a caller who knows by other means who is to lead. It stands for election after it, as everybody.
    pub async fn depose(&self) -> Result<Option<String>, EtcdError> {
        let snapshot = self.etcd.mirror().snapshot();
        let Some(entry) = snapshot.get(&self.key).filter(|entry| entry.value != self.name.as_bytes()) else {
            return Ok(None);
        };
        let delete = DeleteRangeRequest { key: self.key.clone(), ..DeleteRangeRequest::default() };
        let request = TxnRequest {
            // Another leader than the one that was seen is left alone.
            compare: vec![created_at(&self.key, entry.create_revision)],
            success: vec![operation(Request::RequestDeleteRange(delete))],
            failure: Vec::new(),
        };
        let answer = self.etcd.txn(request).await.map_err(refused("Txn"))?;
        Ok(answer.succeeded.then(|| String::from_utf8_lossy(&entry.value).into_owned()))
    }

    /// Waits until the mirror shows a leader, or none.
    async fn shows(&self, leader: bool) {
        let mut progress = self.etcd.mirror().progress();
        loop {
            progress.mark_unchanged();
            if self.etcd.mirror().snapshot().get(&self.key).is_some() == leader {
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
        let (lost, until) = (watch::Sender::new(None), watch::Sender::new(granting + LEASE_TTL));
        let (is_lost, kept_until) = (lost.subscribe(), until.subscribe());
        let mut keeper = JoinSet::new();
        keeper.spawn(keep(self.etcd.clone(), lease, until, lost));
        info!(name = self.name, term = revision, "this replica writes from now on");
        Ok(Some(Leadership { fence, lease, lost: is_lost, kept_until, _keeper: keeper }))
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

    /// Until when the lease lasts, as far as etcd has answered: nobody else is elected before. A process that was paused
    /// finds it in the past.
    pub fn kept_until(&self) -> watch::Receiver<Instant> {
        self.kept_until.clone()
    }

    /// Gives the term up, so that another replica takes over at once. Takes two seconds at most.
    pub async fn resign(self) {
        let Self { fence, lease, _keeper: keeper, .. } = self;
        drop(keeper);
        revoke(&fence.etcd, lease).await;
    }
}

/// Keeps a lease alive until it is lost, and says why.
async fn keep(etcd: Etcd, lease: i64, until: watch::Sender<Instant>, lost: watch::Sender<Option<String>>) {
    let reason = loop {
        let (begun, end) = (Instant::now(), *until.borrow());
        let answer = timeout_at(end, etcd.lease_keep_alive(LeaseKeepAliveRequest { id: lease })).await;
        match answer {
            Ok(Ok(answer)) if answer.ttl > 0 => drop(until.send_replace(begun + LEASE_TTL)),
            Ok(Ok(_)) => break "the lease has run out".to_owned(),
            Ok(Err(status)) => debug!(error = status.message(), "keep the leader's lease alive"),
            Err(_elapsed) => {}
        }
        let end = *until.borrow();
        if end <= Instant::now() {
            break format!("the lease could not be kept alive for {LEASE_TTL_SECS} s");
        }
        sleep_until((begun + LEASE_TTL / 3).min(end)).await;
    };
    lost.send_replace(Some(reason));
}

async fn revoke(etcd: &Etcd, lease: i64) {
    let revoked = timeout(REVOKE, etcd.lease_revoke(LeaseRevokeRequest { id: lease })).await;
    if !matches!(revoked, Ok(Ok(_))) {
        debug!(lease = format_args!("{lease:x}"), "lease not revoked, it runs out");
    }
}

fn operation(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

/// Time to live of the leader's lease: how long nobody writes after the leader died without a word.
pub const LEASE_TTL_SECS: i64 = 5;
const LEASE_TTL: Duration = Duration::from_secs(LEASE_TTL_SECS.unsigned_abs());
/// Above the age of a mirror with contact.
const FRESH: Duration = Duration::from_secs(3);
const REVOKE: Duration = Duration::from_secs(2);
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
