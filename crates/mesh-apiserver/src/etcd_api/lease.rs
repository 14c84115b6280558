//! The Lease service. Only administrators may use it: of the mesh itself only the leader of several replicas hangs on one.
//! Over a mirror, leases are etcd's.

use super::{Api, Grants, refusal};
use futures_util::{Stream, StreamExt};
use kvstore::proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse, lease_server::Lease,
};
use std::pin::Pin;
use tonic::{Request, Response, Status, Streaming};

#[tonic::async_trait]
impl Lease for Api {
    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        Grants::of(request.extensions()).may_maintain()?;
        let request = request.into_inner();
        if let Some(etcd) = &self.etcd {
            return etcd.lease_grant(request).await.map(Response::new);
        }
        let LeaseGrantRequest { ttl, id } = request;
        let lease = self.store.grant(id, ttl).map_err(refusal::lease)?;
        let header = Some(self.header(self.store.revision()));
        let (id, ttl) = (lease.id, lease.ttl_secs);
        Ok(Response::new(LeaseGrantResponse { header, id, ttl, error: String::new() }))
    }

    /// Waits until the deletions are on disk, as for every write.
    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        Grants::of(request.extensions()).may_maintain()?;
        let request = request.into_inner();
        if let Some(etcd) = &self.etcd {
            return etcd.lease_revoke(request).await.map(Response::new);
        }
        let revision = self.store.revoke(request.id).map_err(refusal::lease)?;
        self.store.synced(revision).await.map_err(refusal::unsynced)?;
        Ok(Response::new(LeaseRevokeResponse { header: Some(self.header(revision)) }))
    }

    type LeaseKeepAliveStream = Pin<Box<dyn Stream<Item = Result<LeaseKeepAliveResponse, Status>> + Send>>;

    /// As etcd, answers for a lease that does not exist with a remaining time of 0.
    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        Grants::of(request.extensions()).may_maintain()?;
        let api = self.clone();
        let responses = request.into_inner().then(move |request| {
            let api = api.clone();
            async move {
                let request = request?;
                if let Some(etcd) = &api.etcd {
                    return etcd.lease_keep_alive(request).await;
                }
                let id = request.id;
                let ttl = api.store.keep_alive(id).map_or(0, |lease| lease.ttl_secs);
                Ok(LeaseKeepAliveResponse { header: Some(api.header(api.store.revision())), id, ttl })
            }
        });
        Ok(Response::new(Box::pin(responses)))
    }

    /// As etcd, answers for a lease that does not exist with a remaining time of -1.
    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        Grants::of(request.extensions()).may_maintain()?;
        let request = request.into_inner();
        if let Some(etcd) = &self.etcd {
            return etcd.lease_time_to_live(request).await.map(Response::new);
        }
        let LeaseTimeToLiveRequest { id, keys } = request;
        let snapshot = self.store.snapshot();
        let header = Some(self.header(snapshot.revision()));
        let mut response = LeaseTimeToLiveResponse { header, id, ttl: -1, granted_ttl: 0, keys: Vec::new() };
        if let Some(lease) = self.store.lease(id) {
            response.ttl = i64::try_from(lease.remaining.as_secs()).unwrap_or(i64::MAX);
            response.granted_ttl = lease.ttl_secs;
            if keys {
                response.keys = snapshot.lease_keys(id).cloned().collect();
            }
        }
        Ok(Response::new(response))
    }

    async fn lease_leases(
        &self,
        request: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        Grants::of(request.extensions()).may_maintain()?;
        if let Some(etcd) = &self.etcd {
            return etcd.lease_leases(request.into_inner()).await.map(Response::new);
        }
        let header = Some(self.header(self.store.revision()));
        let leases = self.store.leases().into_iter().map(|id| LeaseStatus { id }).collect();
        Ok(Response::new(LeaseLeasesResponse { header, leases }))
    }
}
