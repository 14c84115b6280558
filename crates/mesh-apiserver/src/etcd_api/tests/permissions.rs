//! What a client without the grant for it is answered.

use super::{Server, soon};
use crate::etcd_api::Grants;
use kvstore::{
    Client, KeyRange, client,
    proto::etcdserverpb::{
        PutRequest, RangeRequest, StatusRequest, TxnRequest, WatchCreateRequest, WatchRequest, WatchResponse,
        kv_client::KvClient, maintenance_client::MaintenanceClient, watch_client::WatchClient,
        watch_request::RequestUnion,
    },
};
use tokio_stream::StreamExt;
use tonic::{Code, Status};

fn denied(status: &Status) -> (Code, &str) {
    (status.code(), status.message())
}

const DENIED: (Code, &str) = (Code::PermissionDenied, "etcdserver: permission denied");

#[tokio::test]
async fn a_peer_may_not_read_or_write_outside_its_grant() {
    let server = Server::start(Grants::remote("paris")).await;
    let mut kv = KvClient::new(server.channel().await);
    let range = |key: &'static str, range_end: &'static str| RangeRequest {
        key: key.into(),
        range_end: range_end.into(),
        ..RangeRequest::default()
    };
    kv.range(range("cilium/state/", "cilium/state0")).await.expect("granted");
    let status = kv.range(range("cilium/", "cilium0")).await.expect_err("not granted");
    assert_eq!(denied(&status), DENIED);
    let put = PutRequest { key: "cilium/state/x".into(), ..PutRequest::default() };
    assert_eq!(denied(&kv.put(put.clone()).await.expect_err("not granted")), DENIED);
    let put = kvstore::proto::etcdserverpb::RequestOp {
        request: Some(kvstore::proto::etcdserverpb::request_op::Request::RequestPut(put)),
    };
    let txn = TxnRequest { failure: vec![put], ..TxnRequest::default() };
    assert_eq!(denied(&kv.txn(txn).await.expect_err("no branch is granted")), DENIED);
    // Also if it only reads what is granted: 128 times everything would be one answer.
    let list = kvstore::proto::etcdserverpb::RequestOp {
        request: Some(kvstore::proto::etcdserverpb::request_op::Request::RequestRange(range(
            "cilium/state/",
            "cilium/state0",
        ))),
    };
    let txn = TxnRequest { success: vec![list; 128], ..TxnRequest::default() };
    assert_eq!(denied(&kv.txn(txn).await.expect_err("not granted")), DENIED);
    let mut maintenance = MaintenanceClient::new(server.channel().await);
    assert_eq!(denied(&maintenance.status(StatusRequest {}).await.expect_err("not granted")), DENIED);
    assert_eq!(server.store.revision(), 1, "nothing was written");
}

#[tokio::test]
async fn a_refused_watch_leaves_the_others_alone() {
    let server = Server::start(Grants::remote("paris")).await;
    let create = |key: &'static str, range_end: &'static str| {
        let create = WatchCreateRequest {
            key: key.into(),
            range_end: range_end.into(),
            ..WatchCreateRequest::default()
        };
        WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
    };
    let requests = [
        create("cilium/state/", "cilium/state0"),
        create("cilium/cache/", "cilium/cache0"),
        create("cilium/.heartbeat", "cilium/.heartbeau"),
    ];
    let requests = tokio_stream::iter(requests).chain(tokio_stream::pending());
    let mut watch = WatchClient::new(server.channel().await);
    let mut responses = watch.watch(requests).await.expect("a stream").into_inner();
    let mut next = async || -> WatchResponse {
        soon("a response", responses.message()).await.expect("no error").expect("the stream is open")
    };
    let (first, refused, third) = (next().await, next().await, next().await);
    assert!(first.created && !first.canceled && first.watch_id == 0, "{first:?}");
    assert!(refused.created && refused.canceled && refused.watch_id == -1, "{refused:?}");
    assert!(refused.cancel_reason.contains("etcdserver: permission denied"), "{refused:?}");
    assert!(third.created && !third.canceled && third.watch_id == 1, "{third:?}");
    server.store.put("cilium/cache/x", "no").expect("put");
    server.store.put("cilium/.heartbeat", "now").expect("put");
    let event = next().await;
    assert_eq!((event.watch_id, event.events.len()), (1, 1), "{event:?}");
}

#[tokio::test]
async fn a_refused_client_learns_why_on_every_call() {
    let server = Server::start(Grants::refused("cluster id 1 is ours")).await;
    let client = Client::new(server.channel().await);
    let expected = "etcdserver: permission denied: cluster id 1 is ours";
    for error in [
        client.get("cilium/.heartbeat").await.expect_err("refused"),
        client.list_watch(KeyRange::prefix("cilium/state/"), None).next().await.expect_err("refused"),
        client
            .list_watch(
                KeyRange::prefix("cilium/state/"),
                Some(kvstore::Resume { cluster_id: 7, revision: 3 }),
            )
            .next()
            .await
            .expect_err("refused"),
    ] {
        assert!(
            matches!(&error, client::Error::PermissionDenied { reason, .. } if reason == expected),
            "{error:?}"
        );
    }
}
