//! The API over the mirror of a real etcd: whoever reads, watches and writes there is answered as by etcd itself.

use super::{
    Etcd as Process, Server,
    contract::{assert_same, transcript},
    soon,
};
use crate::etcd_api::{Calls, Grants, Limits};
use crate::store::dial::EtcdDial;
use kvstore::{
    Etcd, StoreOptions,
    proto::etcdserverpb::{PutRequest, RangeRequest, kv_client::KvClient},
};
use std::sync::Arc;
use tokio::task::JoinHandle;
use tonic::Code;

/// Our server over the mirror of an etcd, and its follower.
struct Mirrored {
    server: Server,
    etcd: Etcd,
    following: JoinHandle<String>,
}

impl Mirrored {
    async fn of(process: &Process, grants: Grants) -> Self {
        let endpoint = format!("http://{}", process.address).parse().expect("an endpoint");
        let dial = EtcdDial::new(vec![endpoint], None);
        let (etcd, mut follower) =
            soon("the mirror", Etcd::open(dial, StoreOptions::default())).await.expect("a store");
        let following = tokio::spawn(async move {
            let Err(error) = follower.run().await;
            error.to_string()
        });
        let (router, mirror) =
            (Calls::shared(etcd.clone(), Limits::default(), Arc::default()), etcd.mirror().clone());
        let server = Server::serving(router, mirror, grants, Limits::default()).await;
        Self { server, etcd, following }
    }
}

impl Drop for Mirrored {
    fn drop(&mut self) {
        self.following.abort();
    }
}

#[tokio::test]
async fn a_mirror_answers_as_etcd() {
    let (behind, alone) = tokio::join!(Process::start(), Process::start());
    let mirrored = Mirrored::of(&behind, Grants::admin()).await;
    let ours = transcript(mirrored.server.channel().await).await;
    let theirs = transcript(super::connect(&alone.address).await).await;
    assert_same(&ours, &theirs);
    let mut kv = KvClient::new(super::connect(&behind.address).await);
    let asked = kv.range(RangeRequest { key: "a".into(), ..RangeRequest::default() });
    let header = asked.await.expect("range").into_inner().header.expect("a header");
    assert_eq!(mirrored.etcd.mirror().cluster_id(), header.cluster_id, "the id is etcd's");
}

#[tokio::test]
async fn who_may_not_write_does_not_reach_etcd() {
    let process = Process::start().await;
    let mirrored = Mirrored::of(&process, Grants::remote("paris")).await;
    let mut kv = KvClient::new(mirrored.server.channel().await);
    let put = PutRequest { key: "cilium/state/x".into(), value: "1".into(), ..PutRequest::default() };
    let refused = kv.put(put).await.expect_err("refused");
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::PermissionDenied, "etcdserver: permission denied")
    );
    assert_eq!(mirrored.etcd.mirror().revision(), 1, "nothing was written");
}
