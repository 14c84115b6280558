//! The Maintenance and Cluster services, as far as they have something true to say.

use super::{Api, ETCD_VERSION, Grants, RAFT_TERM};
use kvstore::proto::etcdserverpb::{
    Member, MemberListRequest, MemberListResponse, StatusRequest, StatusResponse, cluster_server::Cluster,
    maintenance_server::Maintenance,
};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Maintenance for Api {
    /// The store is its own leader, and its log is its revisions. Sizes are those of the history in memory.
    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Grants::of(request.extensions()).may_maintain()?;
        let revision = self.store.revision();
        let bytes = i64::try_from(self.store.history_bytes()).unwrap_or(i64::MAX);
        Ok(Response::new(StatusResponse {
            header: Some(self.header(revision)),
            version: ETCD_VERSION.to_owned(),
            db_size: bytes,
            leader: self.store.member_id(),
            raft_index: revision,
            raft_term: RAFT_TERM,
            raft_applied_index: revision,
            errors: Vec::new(),
            db_size_in_use: bytes,
            is_learner: false,
        }))
    }
}

#[tonic::async_trait]
impl Cluster for Api {
    /// One member. It has no peer URL; its client URL is the one that the caller used.
    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        Grants::of(request.extensions()).may_maintain()?;
        let member = Member {
            id: self.store.member_id(),
            name: "isthmus".to_owned(),
            peer_ur_ls: Vec::new(),
            client_ur_ls: Vec::new(),
            is_learner: false,
        };
        let header = Some(self.header(self.store.revision()));
        Ok(Response::new(MemberListResponse { header, members: vec![member] }))
    }
}
