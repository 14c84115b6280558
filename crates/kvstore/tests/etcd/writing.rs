//! One of several writes, and nobody else can.

use crate::server::{Following, Server, until};
use bytes::Bytes;
use kvstore::{
    Etcd, KeyRange, Publisher, Store, StoreOptions, Write,
    etcd::{Contender, FenceError, Leadership},
    proto::etcdserverpb::{
        DeleteRangeRequest, LeaseLeasesRequest, PutRequest, RangeRequest, RequestOp, request_op::Request,
    },
    store::Retention,
};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::timeout;
use tonic::Code;

const LEADER: &str = "test/leader";

fn put(key: &str, value: &str) -> Vec<RequestOp> {
    let request =
        PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..PutRequest::default() };
    vec![RequestOp { request: Some(Request::RequestPut(request)) }]
}

async fn elected(contender: &Contender) -> Leadership {
    timeout(Duration::from_secs(20), contender.elected()).await.expect("elected within 20 s")
}

fn value(etcd: &Etcd, key: &str) -> Option<Bytes> {
    etcd.mirror().snapshot().get(key.as_bytes()).map(|entry| entry.value.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_leads_and_a_former_leader_writes_nothing() {
    let server = Server::start().await;
    let ((one, _a), (two, _b)) = (server.open().await, server.open().await);
    let (first, second) =
        (Contender::new(one.clone(), LEADER, "one"), Contender::new(two.clone(), LEADER, "two"));
    let mut leader = elected(&first).await;
    assert_eq!(second.leader().as_deref().or(Some("one")), Some("one"));
    let revision = leader.fence().write(put("a", "1")).await.expect("the leader writes");
    leader.fence().shown(revision).await.expect("shown");
    assert_eq!(value(&one, "a"), Some("1".into()), "what was written is in the mirror");
    let waiting = timeout(Duration::from_secs(1), second.elected()).await;
    assert!(waiting.is_err(), "two leaders at once");

    // Its key is taken away, as when its lease runs out while it sleeps.
    let fence = leader.fence().clone();
    let request = DeleteRangeRequest { key: LEADER.into(), ..DeleteRangeRequest::default() };
    server.kv().await.delete_range(request).await.expect("delete");
    let next = elected(&second).await;
    let refused = fence.write(put("a", "late")).await;
    assert!(matches!(refused, Err(FenceError::NotLeader)), "{refused:?}");
    let why = timeout(Duration::from_secs(10), leader.lost()).await.expect("it learns of it");
    assert!(why.contains("another replica"), "{why}");
    let revision = next.fence().write(put("a", "2")).await.expect("the new leader writes");
    next.fence().shown(revision).await.expect("shown");
    assert!(one.reached(revision, Duration::from_secs(10)).await);
    assert_eq!((value(&one, "a"), value(&two, "a")), (Some("2".into()), Some("2".into())));
    assert_eq!(first.leader().as_deref(), Some("two"));

    // One that resigns is followed at once, although its lease has seconds to live.
    leader.resign().await;
    next.resign().await;
    let left = two.lease_leases(LeaseLeasesRequest {}).await.expect("leases").leases;
    assert_eq!(left, [], "the lease had to run out");
    let again = elected(&first).await;
    // The lease of one that dies without a word runs out.
    drop(again);
    let last = elected(&second).await;
    last.fence().write(put("a", "3")).await.expect("writes");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_deposed_writes_nothing_and_nobody_deposes_itself() {
    let server = Server::start().await;
    let ((one, _a), (two, _b)) = (server.open().await, server.open().await);
    let (first, second) =
        (Contender::new(one.clone(), LEADER, "one"), Contender::new(two.clone(), LEADER, "two"));
    assert_eq!(second.depose().await.expect("asked"), None, "nobody leads");
    let mut leader = elected(&first).await;
    assert!(*leader.kept_until().borrow() > tokio::time::Instant::now());
    until("the leader is known to the other", 10, || second.leader().map(drop).ok_or("no leader")).await;
    assert_eq!(first.depose().await.expect("asked"), None, "the leader itself");
    let (deposed, ()) = tokio::join!(second.depose(), second.vacated());
    assert_eq!(deposed.expect("asked").as_deref(), Some("one"));
    let refused = leader.fence().write(put("a", "late")).await;
    assert!(matches!(refused, Err(FenceError::NotLeader)), "{refused:?}");
    let why = timeout(Duration::from_secs(10), leader.lost()).await.expect("it learns of it");
    assert!(why.contains("another replica"), "{why}");
    let next = elected(&second).await;
    next.fence().write(put("a", "1")).await.expect("the next one writes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_etcd_learns_that_it_leads_no_more_and_leads_again_when_it_is_back() {
    let mut server = Server::start().await;
    let (etcd, _following) = server.open().await;
    let contender = Contender::new(etcd.clone(), LEADER, "one");
    let mut leader = elected(&contender).await;
    let publisher = Publisher::new(leader.fence().clone(), ["ours/"]);
    publisher.put("ours/a", "1").await.expect("written");
    server.kill();
    let why = timeout(Duration::from_secs(20), leader.lost()).await.expect("the lease cannot be kept");
    assert!(why.contains("could not be kept alive for 5 s"), "{why}");
    let failed = publisher.put("ours/a", "2").await.expect_err("nobody answers").to_string();
    assert!(failed.contains("etcdserver: "), "{failed}");
    let refused =
        etcd.put(PutRequest { key: "b".into(), ..PutRequest::default() }).await.expect_err("nobody answers");
    assert_eq!((refused.code(), refused.message()), (Code::Unavailable, "etcdserver: no leader"));
    assert_eq!(value(&etcd, "ours/a"), Some("1".into()), "what is known is served");
    leader.resign().await;
    let (_, leader) = tokio::join!(server.restart(), elected(&contender));
    let publisher = Publisher::new(leader.fence().clone(), ["ours/"]);
    publisher.put("ours/a", "3").await.expect("written");
    assert_eq!(value(&etcd, "ours/a"), Some("3".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_and_an_embedded_store_are_published_to_alike() {
    let server = Server::start().await;
    server.put("other/x", "kept").await;
    let (etcd, _following) = server.open().await;
    let leader = elected(&Contender::new(etcd.clone(), LEADER, "one")).await;
    let embedded = Store::in_memory(StoreOptions::default());
    embedded.put("other/x", "kept").expect("put");
    let publishers =
        [Publisher::new(leader.fence().clone(), ["ours/"]), Publisher::new(embedded.clone(), ["ours/"])];
    let many = |count: usize, value: &str| -> BTreeMap<Bytes, Bytes> {
        (0..count).map(|n| (format!("ours/{n:04}").into(), value.to_owned().into())).collect()
    };
    let mut outcomes = Vec::new();
    for publisher in &publishers {
        let mut seen = Vec::new();
        seen.push(publisher.replace(&many(700, "1")).await.expect("published"));
        seen.push(publisher.replace(&many(700, "1")).await.expect("published"));
        seen.push(publisher.replace(&many(600, "2")).await.expect("published"));
        let key = Bytes::from("ours/0000");
        let twice = vec![
            Write::Delete { key: key.clone() },
            Write::Put { key: key.clone(), value: "3".into() },
            Write::Delete { key: "ours/none".into() },
        ];
        seen.push(publisher.apply(twice).await.expect("published"));
        publisher.announce([("synced/ours".into(), "now".into())]).await.expect("announced");
        publisher.withdraw(["other/x".into()]).await.expect("withdrawn");
        outcomes
            .push(seen.into_iter().map(|one| (one.written, one.deleted, one.unchanged)).collect::<Vec<_>>());
    }
    assert_eq!(outcomes[0], outcomes[1]);
    assert_eq!(outcomes[0], [(700, 0, 0), (0, 0, 700), (600, 100, 0), (1, 1, 1)]);
    let content = |store: &Store| -> Vec<(Bytes, Bytes)> {
        let snapshot = store.snapshot();
        let entries = snapshot.range(&KeyRange::all()).filter(|entry| entry.key != LEADER.as_bytes());
        entries.map(|entry| (entry.key.clone(), entry.value.clone())).collect()
    };
    assert_eq!(content(etcd.mirror()), content(&embedded));
    until("the canary is the last of the set", 1, || {
        let snapshot = etcd.mirror().snapshot();
        let canary = snapshot.get(b"synced/ours").expect("there").mod_revision;
        let newest = snapshot.range(&KeyRange::prefix("ours/")).map(|entry| entry.mod_revision).max();
        if newest < Some(canary) { Ok(()) } else { Err((newest, canary)) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_in_etcd_is_bounded_by_the_leaders_retention() {
    let server = Server::start().await;
    let retention = Retention { revisions: 10, ..Retention::default() };
    let opened = Etcd::open(server.dial(), StoreOptions { retention });
    let (etcd, follower) = timeout(Duration::from_secs(20), opened).await.expect("in time").expect("a store");
    let _following = Following::start(follower);
    let leader = elected(&Contender::new(etcd.clone(), LEADER, "one")).await;
    assert_eq!(leader.fence().compact().await.expect("nothing to do"), None);
    let publisher = Publisher::new(leader.fence().clone(), ["ours/"]);
    for n in 0..60 {
        publisher.put("ours/a", n.to_string()).await.expect("written");
    }
    let compacted = leader.fence().compact().await.expect("compacted").expect("a revision");
    assert!(compacted > 20 && compacted < etcd.mirror().revision(), "{compacted}, {:?}", etcd.mirror());
    assert_eq!(leader.fence().compact().await.expect("nothing to do"), None);
    let range = |revision: u64| RangeRequest {
        key: "ours/a".into(),
        revision: revision.cast_signed(),
        ..RangeRequest::default()
    };
    let mut kv = server.kv().await;
    let gone = kv.range(range(compacted - 1)).await.expect_err("compacted");
    assert_eq!(gone.message(), "etcdserver: mvcc: required revision has been compacted");
    kv.range(range(compacted)).await.expect("the oldest one");
}
