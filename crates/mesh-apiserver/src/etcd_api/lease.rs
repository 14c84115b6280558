//! The Lease service. Leases are not granted yet, so there are none: everything else follows from that.

use super::{Api, Grants, refusal};
use futures_util::{Stream, StreamExt};
use kvstore::proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseTimeToLiveRequest,
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
        Err(Status::unimplemented("this store does not grant leases"))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        Grants::of(request.extensions()).may_maintain()?;
        Err(refusal::lease_not_found())
    }

    type LeaseKeepAliveStream = Pin<Box<dyn Stream<Item = Result<LeaseKeepAliveResponse, Status>> + Send>>;

    /// As etcd, answers for a lease that does not exist with a remaining time of 0.
    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        Grants::of(request.extensions()).may_maintain()?;
        let api = self.clone();
        let responses = request.into_inner().map(move |request| {
            let header = Some(api.header(api.store.revision()));
            Ok(LeaseKeepAliveResponse { header, id: request?.id, ttl: 0 })
        });
        Ok(Response::new(Box::pin(responses)))
    }

    /// As etcd, answers for a lease that does not exist with a remaining time of -1.
    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        Grants::of(request.extensions()).may_maintain()?;
        let (id, header) = (request.into_inner().id, Some(self.header(self.store.revision())));
        Ok(Response::new(LeaseTimeToLiveResponse { header, id, ttl: -1, granted_ttl: 0, keys: Vec::new() }))
    }

    async fn lease_leases(
        &self,
        request: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        Grants::of(request.extensions()).may_maintain()?;
        let header = Some(self.header(self.store.revision()));
        Ok(Response::new(LeaseLeasesResponse { header, leases: Vec::new() }))
    }
}
