//! Calls over the connection of the moment, bounded in time, with errors in etcd's own words.

use super::{Etcd, EtcdError};
use crate::proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, LeaseGrantRequest,
    LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse, PutRequest, PutResponse, ResponseHeader, TxnRequest, TxnResponse,
    kv_client::KvClient, lease_client::LeaseClient,
};
use std::{error::Error as _, time::Duration};
use tokio::time::timeout;
use tonic::{Response, Status, transport::Channel};

impl Etcd {
    /// Puts a key. The mirror shows it when this returns, unless it lost contact meanwhile; so for all writes below.
    pub async fn put(&self, request: PutRequest) -> Result<PutResponse, Status> {
        let answer = self.call(async |channel| kv(channel).put(request).await).await?;
        self.shown(answer.header.as_ref()).await;
        Ok(answer)
    }

    /// Deletes a range.
    pub async fn delete_range(&self, request: DeleteRangeRequest) -> Result<DeleteRangeResponse, Status> {
        let answer = self.call(async |channel| kv(channel).delete_range(request).await).await?;
        self.shown(answer.header.as_ref()).await;
        Ok(answer)
    }

    /// Runs a transaction.
    pub async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        let answer = self.send_txn(request).await?;
        self.shown(answer.header.as_ref()).await;
        Ok(answer)
    }

    /// Runs a transaction without waiting for the mirror.
    pub(super) async fn send_txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        self.call(async |channel| kv(channel).txn(request).await).await
    }

    /// Compacts etcd's history. That of the mirror stays.
    pub async fn compact(&self, request: CompactionRequest) -> Result<CompactionResponse, Status> {
        self.call(async |channel| kv(channel).compact(request).await).await
    }

    /// Grants a lease.
    pub async fn lease_grant(&self, request: LeaseGrantRequest) -> Result<LeaseGrantResponse, Status> {
        self.call(async |channel| lease(channel).lease_grant(request).await).await
    }

    /// Ends a lease and deletes its keys.
    pub async fn lease_revoke(&self, request: LeaseRevokeRequest) -> Result<LeaseRevokeResponse, Status> {
        let answer = self.call(async |channel| lease(channel).lease_revoke(request).await).await?;
        self.shown(answer.header.as_ref()).await;
        Ok(answer)
    }

    /// Keeps a lease alive, once.
    pub async fn lease_keep_alive(
        &self,
        request: LeaseKeepAliveRequest,
    ) -> Result<LeaseKeepAliveResponse, Status> {
        self.call(async |channel| {
            let requests = futures_util::stream::iter([request]);
            let mut answers = lease(channel).lease_keep_alive(requests).await?.into_inner();
            let answer = answers.message().await?;
            answer.map(Response::new).ok_or_else(|| Status::unavailable(CONNECTION_LOST))
        })
        .await
    }

    /// How long a lease has to live.
    pub async fn lease_time_to_live(
        &self,
        request: LeaseTimeToLiveRequest,
    ) -> Result<LeaseTimeToLiveResponse, Status> {
        self.call(async |channel| lease(channel).lease_time_to_live(request).await).await
    }

    /// All leases.
    pub async fn lease_leases(&self, request: LeaseLeasesRequest) -> Result<LeaseLeasesResponse, Status> {
        self.call(async |channel| lease(channel).lease_leases(request).await).await
    }

    async fn call<T>(
        &self,
        ask: impl AsyncFnOnce(Channel) -> Result<Response<T>, Status>,
    ) -> Result<T, Status> {
        let channel = timeout(PATIENCE, self.channel()).await;
        let channel = channel.map_err(|_elapsed| Status::unavailable(NO_LEADER))?;
        unary(ask(channel)).await
    }

    /// Waits until there is contact.
    async fn channel(&self) -> Channel {
        let mut contact = self.shared.contact.subscribe();
        loop {
            if let Some(contact) = &*contact.borrow_and_update() {
                return contact.channel.clone();
            }
            // The sender lives as long as the handle that we are.
            contact.changed().await.expect("the handle is alive");
        }
    }

    /// Waits until the mirror shows what an answer speaks of. Without contact the answer goes out all the same: the
    /// write is made.
    async fn shown(&self, header: Option<&ResponseHeader>) {
        let revision = header.and_then(|header| u64::try_from(header.revision).ok()).unwrap_or(0);
        self.reached(revision, SHOWN).await;
    }
}

/// Awaits an answer of etcd for at most [`ANSWER`]. The error is etcd's own, or Unavailable in etcd's words.
pub async fn unary<T>(ask: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Status> {
    match timeout(ANSWER, ask).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        // An error with a cause is our transport's: nobody answered.
        Ok(Err(status)) if status.source().is_some() => Err(Status::unavailable(CONNECTION_LOST)),
        Ok(Err(status)) => Err(Status::new(status.code(), status.message())),
        Err(_elapsed) => Err(Status::unavailable(TIMED_OUT)),
    }
}

pub(super) fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(MESSAGE_BYTES)
}

fn lease(channel: Channel) -> LeaseClient<Channel> {
    LeaseClient::new(channel).max_decoding_message_size(MESSAGE_BYTES)
}

pub(super) fn refused(method: &'static str) -> impl Fn(Status) -> EtcdError {
    move |status| EtcdError::call(method, &status)
}

/// A revision as the wire has it.
pub(super) fn wire(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// Longest wait for an answer; etcd's own is 5 s and twice its election timeout
/// (etcd `server/etcdserver/v3_server.go`, ReqTimeout).
pub const ANSWER: Duration = Duration::from_secs(7);
/// How long a call waits for a connection, so that going on to another endpoint shows nowhere.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the answer to a write waits for the mirror.
const SHOWN: Duration = Duration::from_secs(5);
/// Longest answer and longest piece of a watch.
pub(super) const MESSAGE_BYTES: usize = 256 << 20;
/// Texts of etcd (`api/v3rpc/rpctypes/error.go`) for: nobody can write, no answer, the connection broke.
const NO_LEADER: &str = "etcdserver: no leader";
const TIMED_OUT: &str = "etcdserver: request timed out";
const CONNECTION_LOST: &str = "etcdserver: request timed out, possibly due to connection lost";
