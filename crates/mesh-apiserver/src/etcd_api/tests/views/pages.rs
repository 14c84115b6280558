//! Peers with different filters, an equal one, and none, read lists.

use super::{
    super::super::{Calls, Grants, Limits},
    PREFIX,
};
use crate::peer_filters::{
    PeerFilters,
    in_force::{Peer, publish_now},
};
use axum::Extension;
use kvstore::{
    KeyRange, Store, StoreOptions,
    proto::etcdserverpb::{RangeRequest, RequestOp, TxnRequest, kv_client::KvClient, request_op},
};
use std::sync::Arc;
use tonic::Code;
use topology::ClusterName;
use tower::Layer;

#[tokio::test]
async fn each_peer_reads_its_own_pages_and_counts() {
    let store = Store::in_memory(StoreOptions::default());
    for n in 0..300 {
        let namespace = ["shop", "bank", "bank"][n % 3];
        let value = format!(r#"{{"K8sNamespace":"{namespace}","Metadata":"{:0200}"}}"#, n);
        store
            .put(format!("{PREFIX}ip/v1/default/10.0.{}.{}", n / 256, n % 256), value)
            .map(drop)
            .expect("put");
    }
    let file = "peers: {tokyo: {namespaces: {include: [shop]}}, oslo: {namespaces: {include: [shop]}}, \
                lima: {namespaces: {include: [bank]}}}";
    publish_now(&store, &PeerFilters::parse(file).expect("a file"));
    let hub = Calls::new(store.clone(), Limits::default());
    let peer = |name: &str| {
        let peer = Peer::named(&name.parse::<ClusterName>().expect("a name"));
        let grants = Arc::new(Grants::remote("north").seen_by(peer));
        KvClient::new(Extension(grants).layer(hub.clone()))
    };
    let page = RangeRequest {
        key: PREFIX.into(),
        range_end: KeyRange::prefix(PREFIX).wire_end(),
        limit: 50,
        ..RangeRequest::default()
    };
    // Twice, so that the second time they are the kept ones.
    for _ in 0..2 {
        for (name, count) in [("tokyo", 100), ("lima", 200), ("oslo", 100), ("rome", 300)] {
            let (mut from, mut left) = (page.clone(), count);
            while left > 0 {
                let answer = peer(name).range(from.clone()).await.expect("a page").into_inner();
                assert_eq!((answer.count, answer.more), (left, left > 50), "{name}");
                let wanted = match name {
                    "lima" => "bank",
                    "rome" => "",
                    _ => "shop",
                };
                assert!(
                    answer.kvs.iter().all(|kv| String::from_utf8_lossy(&kv.value).contains(wanted)),
                    "{name}"
                );
                from.key = KeyRange::after_key(&answer.kvs.last().expect("a record").key);
                left -= i64::try_from(answer.kvs.len()).expect("few");
            }
            let all = RangeRequest { limit: 0, keys_only: true, ..page.clone() };
            let answer = peer(name).range(all).await.expect("a list").into_inner();
            assert!(answer.kvs.iter().all(|kv| kv.value.is_empty()));
            assert_eq!((answer.kvs.len() as i64, answer.count), (count, count), "{name}");
            let only = RangeRequest { count_only: true, limit: 0, ..page.clone() };
            assert_eq!(peer(name).range(only).await.expect("a count").into_inner().count, count, "{name}");
        }
    }
    // 10.0.0.1 is the bank's: to tokyo it does not exist.
    let key = format!("{PREFIX}ip/v1/default/10.0.0.1");
    let one = RangeRequest { key: key.clone().into(), ..RangeRequest::default() };
    for (name, count) in [("tokyo", 0), ("lima", 1), ("rome", 1)] {
        let answer = peer(name).range(one.clone()).await.expect("an answer").into_inner();
        assert_eq!((answer.count, answer.kvs.len()), (count, usize::try_from(count).expect("few")), "{name}");
    }
    // Transactions know no filters: they are for those who may write.
    let read = RequestOp { request: Some(request_op::Request::RequestRange(one)) };
    let txn = TxnRequest { success: vec![read], ..TxnRequest::default() };
    for name in ["tokyo", "rome"] {
        let refused = peer(name).txn(txn.clone()).await.expect_err("refused");
        assert_eq!(refused.code(), Code::PermissionDenied, "{name}: {refused:?}");
    }
}
