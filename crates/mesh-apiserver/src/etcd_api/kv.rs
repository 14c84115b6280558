//! The KV service.

use super::{
    Api, Grants,
    grants::requested,
    range::{self, key_value},
    refusal,
    txn::{self, Refused},
    wire,
};
use kvstore::{
    Entry, KeyRange,
    proto::{
        Message,
        etcdserverpb::{
            CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
            PutResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse, kv_server::Kv,
        },
    },
    store::{Committed, Transaction},
};
use std::sync::Arc;
use tonic::{Request, Response, Status};
use tracing::debug;

#[tonic::async_trait]
impl Kv for Api {
    /// The router hands Range to [`read::range`](super::read::range), which answers with shared pages.
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let grants = Grants::of(request.extensions());
        let request = request.into_inner();
        grants.may_read(&requested(request.key.clone(), request.range_end.clone())?)?;
        let snapshot = self.store.snapshot();
        let response = range::find(&snapshot, request, Some(&self.counts))?.response();
        Ok(Response::new(RangeResponse { header: Some(self.header(snapshot.revision())), ..response }))
    }

    /// The router hands Put to [`write::put`](super::write::put).
    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let grants = Grants::of(request.extensions());
        self.answer_put(&grants, request.into_inner()).await.map(Response::new)
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let grants = Grants::of(request.extensions());
        let request = request.into_inner();
        authorize_delete(&grants, &request)?;
        if let Some(etcd) = &self.etcd {
            return etcd.delete_range(request).await.map(Response::new);
        }
        let committed = self.commit(|transaction| delete(transaction, request)).await?;
        let header = Some(self.header(committed.revision));
        Ok(Response::new(DeleteRangeResponse { header, ..committed.value }))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let grants = Grants::of(request.extensions());
        let request = request.into_inner();
        txn::check(&request, self.limits.txn_operations)?;
        txn::authorize(&request, &grants)?;
        // Its reads hold up whoever writes, and one answer may hold a whole list 128 times.
        grants.may_transact()?;
        self.check_size(&request)?;
        if let Some(etcd) = &self.etcd {
            return etcd.txn(request).await.map(Response::new);
        }
        let committed = self.commit(|transaction| txn::run(transaction, request)).await?;
        let header = Some(self.header(committed.revision));
        Ok(Response::new(TxnResponse { header, ..committed.value }))
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        Grants::of(request.extensions()).may_write(&KeyRange::all())?;
        let request = request.into_inner();
        let revision = u64::try_from(request.revision).unwrap_or(0);
        if let Some(etcd) = &self.etcd {
            let answer = etcd.compact(request).await?;
            self.fanout.wave();
            // The mirror may have forgotten that much already; other replicas forget by their own retention.
            if let Err(error) = self.store.compact(revision) {
                debug!(%error, revision, "mirror not compacted");
            }
            return Ok(Response::new(answer));
        }
        // Whoever watches is to have what is about to be forgotten.
        self.fanout.wave();
        self.store.compact(revision).map_err(refusal::compact)?;
        Ok(Response::new(CompactionResponse { header: Some(self.header(self.store.revision())) }))
    }
}

impl Api {
    /// Answers a put of the holder of `grants`.
    pub(super) async fn answer_put(
        &self,
        grants: &Grants,
        request: PutRequest,
    ) -> Result<PutResponse, Status> {
        authorize_put(grants, &request)?;
        self.check_size(&request)?;
        if let Some(etcd) = &self.etcd {
            return etcd.put(request).await;
        }
        let committed = self.commit(|transaction| put(transaction, request)).await?;
        let header = Some(self.header(committed.revision));
        Ok(PutResponse { header, ..committed.value })
    }

    /// Runs a transaction and waits until it is on disk: what the API acknowledges survives a power failure.
    async fn commit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Transaction) -> Result<T, Refused> + Send + 'static,
    ) -> Result<Committed<T>, Status> {
        let committed = self.store.transact_together(work).await.map_err(|refused: Refused| refused.0)?;
        if committed.changed {
            self.store.synced(committed.revision).await.map_err(refusal::unsynced)?;
        }
        Ok(committed)
    }

    fn check_size(&self, request: &impl Message) -> Result<(), Status> {
        if request.encoded_len() > self.limits.request_bytes {
            Err(refusal::request_too_large())
        } else {
            Ok(())
        }
    }
}

pub(super) fn authorize_put(grants: &Grants, request: &PutRequest) -> Result<(), Status> {
    if request.key.is_empty() {
        return Err(refusal::empty_key());
    }
    let key = KeyRange::key(request.key.clone());
    grants.may_write(&key)?;
    if request.lease != 0 {
        grants.may_maintain()?;
    }
    if request.prev_kv || request.ignore_value { grants.may_read(&key) } else { Ok(()) }
}

pub(super) fn authorize_delete(grants: &Grants, request: &DeleteRangeRequest) -> Result<(), Status> {
    let range = requested(request.key.clone(), request.range_end.clone())?;
    grants.may_write(&range)?;
    if request.prev_kv { grants.may_read(&range) } else { Ok(()) }
}

/// Makes a put; the response has no header yet.
pub(super) fn put(transaction: &mut Transaction, request: PutRequest) -> Result<PutResponse, Refused> {
    if request.ignore_value && !request.value.is_empty() {
        return Err(refusal::value_provided().into());
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(refusal::lease_provided().into());
    }
    let existing = transaction.snapshot().get(&request.key).cloned();
    if (request.ignore_value || request.ignore_lease) && existing.is_none() {
        return Err(refusal::key_not_found().into());
    }
    if request.lease != 0 && !transaction.snapshot().has_lease(request.lease) {
        return Err(refusal::lease_not_found().into());
    }
    let (mut value, mut lease) = (request.value, request.lease);
    if let Some(existing) = existing {
        if request.ignore_value {
            value = existing.value.clone();
        }
        if request.ignore_lease {
            lease = existing.lease;
        }
    }
    let previous = transaction.put(request.key, value, lease);
    Ok(PutResponse { header: None, prev_kv: previous.filter(|_| request.prev_kv).map(wire_entry) })
}

/// Makes a deletion; the response has no header yet.
pub(super) fn delete(
    transaction: &mut Transaction,
    request: DeleteRangeRequest,
) -> Result<DeleteRangeResponse, Refused> {
    let deleted = transaction.delete(&requested(request.key, request.range_end)?);
    let count = wire(deleted.len() as u64);
    let prev_kvs = if request.prev_kv { deleted.into_iter().map(wire_entry).collect() } else { Vec::new() };
    Ok(DeleteRangeResponse { header: None, deleted: count, prev_kvs })
}

fn wire_entry(entry: Arc<Entry>) -> kvstore::proto::mvccpb::KeyValue {
    key_value(&entry, false)
}
