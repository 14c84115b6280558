//! A mirror shows what etcd has, whatever happens to etcd.

use crate::server::{Following, Server, until};
use bytes::Bytes;
use kvstore::etcd::Dial;
use kvstore::{
    Entry, EventKind, KeyRange, Store, StoreOptions,
    etcd::Etcd,
    proto::etcdserverpb::{
        CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest,
        RangeRequest, RequestOp, TxnRequest, lease_client::LeaseClient, request_op::Request,
    },
    store::Changes,
};
use std::time::Duration;

/// Key, value, create revision, mod revision, version, lease.
type Seen = (Bytes, Bytes, u64, u64, u64, i64);

fn seen(entry: &Entry) -> Seen {
    let Entry { key, value, create_revision, mod_revision, version, lease, .. } = entry.clone();
    (key, value, create_revision, mod_revision, version, lease)
}

fn state(store: &Store) -> Vec<Seen> {
    store.snapshot().range(&KeyRange::all()).map(|entry| seen(entry)).collect()
}

/// What etcd itself says that it has.
async fn truth(server: &Server) -> (Vec<Seen>, u64) {
    let request = RangeRequest { key: "\0".into(), range_end: "\0".into(), ..RangeRequest::default() };
    let answer = server.kv().await.range(request).await.expect("range").into_inner();
    let revision = answer.header.expect("a header").revision.unsigned_abs();
    let entry = |kv: kvstore::proto::mvccpb::KeyValue| {
        let number = i64::unsigned_abs;
        (kv.key, kv.value, number(kv.create_revision), number(kv.mod_revision), number(kv.version), kv.lease)
    };
    (answer.kvs.into_iter().map(entry).collect(), revision)
}

async fn caught_up(etcd: &Etcd, server: &Server) {
    let (truth, revision) = truth(server).await;
    assert!(etcd.reached(revision, Duration::from_secs(20)).await, "{revision}: {:?}", etcd.mirror());
    assert_eq!(state(etcd.mirror()), truth);
}

/// What a watcher of everything has seen: kind, key, revision.
fn drain(watcher: &mut kvstore::Watcher, into: &mut Vec<(EventKind, Bytes, u64)>) {
    while let Some(Changes { events, .. }) = watcher.take().expect("not compacted") {
        into.extend(
            events.into_iter().map(|event| (event.kind, event.entry.key.clone(), event.entry.mod_revision)),
        );
    }
}

#[tokio::test]
async fn what_etcd_does_the_mirror_shows_with_every_counter() {
    let server = Server::start().await;
    server.put("a", "1").await;
    server.put("b", "1").await;
    let (etcd, _following) = server.open().await;
    assert_eq!(state(etcd.mirror()).len(), 2);
    let mut watcher = etcd.mirror().watch(KeyRange::all(), 2);
    let channel = server.dial().dial(0).await.expect("connect");
    let mut leases = LeaseClient::new(channel.clone());
    let lease =
        leases.lease_grant(LeaseGrantRequest { ttl: 60, id: 0 }).await.expect("grant").into_inner().id;
    server.put("a", "2").await;
    let put = |key: &str, lease: i64| PutRequest {
        key: key.to_owned().into(),
        value: "v".into(),
        lease,
        ..PutRequest::default()
    };
    let mut kv = server.kv().await;
    kv.put(put("leased", lease)).await.expect("put");
    let delete = DeleteRangeRequest { key: "a".into(), ..DeleteRangeRequest::default() };
    let operations = [
        Request::RequestPut(put("c", 0)),
        Request::RequestDeleteRange(delete.clone()),
        Request::RequestPut(put("d", lease)),
    ];
    let success = operations.map(|request| RequestOp { request: Some(request) }).into();
    kv.txn(TxnRequest { success, ..TxnRequest::default() }).await.expect("txn");
    kv.put(put("a", 0)).await.expect("put");
    caught_up(&etcd, &server).await;
    leases.lease_revoke(LeaseRevokeRequest { id: lease }).await.expect("revoke");
    caught_up(&etcd, &server).await;
    let mut events = Vec::new();
    drain(&mut watcher, &mut events);
    use EventKind::{Delete, Put};
    let told: Vec<(EventKind, &str, u64)> = events
        .iter()
        .map(|(kind, key, revision)| (*kind, std::str::from_utf8(key).expect("text"), *revision))
        .collect();
    // The two of before it was opened are history that the mirror began with.
    assert_eq!(
        told,
        [
            (Put, "a", 2),
            (Put, "b", 3),
            (Put, "a", 4),
            (Put, "leased", 5),
            (Put, "c", 6),
            (Delete, "a", 6),
            (Put, "d", 6),
            (Put, "a", 7),
            (Delete, "d", 8),
            (Delete, "leased", 8),
        ]
    );
    assert!(etcd.endpoint().is_some() && etcd.mirror().is_mirror());
    until("it is current", 10, || match etcd.age() {
        age if age < Duration::from_secs(3) => Ok(()),
        age => Err(age),
    })
    .await;
}

#[tokio::test]
async fn a_mirror_begins_with_the_history_that_etcd_still_has() {
    let server = Server::start().await;
    for n in 0..20 {
        server.put("a", &n.to_string()).await;
    }
    let revision = server.put("b", "1").await;
    let compact = CompactionRequest { revision: 10, physical: true };
    server.kv().await.compact(compact).await.expect("compact");
    let (etcd, _following) = server.open().await;
    assert_eq!(etcd.mirror().revision(), revision);
    let mut events = Vec::new();
    // What is at 10 is known, what happened then is not.
    assert!(etcd.mirror().watch(KeyRange::all(), 10).take().is_err());
    drain(&mut etcd.mirror().watch(KeyRange::all(), 11), &mut events);
    assert_eq!(
        events.iter().map(|(_, _, revision)| *revision).collect::<Vec<_>>(),
        (11..=revision).collect::<Vec<_>>()
    );
    caught_up(&etcd, &server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pauses_and_crashes_of_etcd_lose_nothing_and_tell_nothing_twice() {
    let mut server = Server::start().await;
    server.put("before", "1").await;
    let (etcd, following) = server.open().await;
    let mut watcher = etcd.mirror().watch(KeyRange::all(), 2);
    let mut events = Vec::new();
    let follower = {
        // It stands still: nobody notices but by its age, and then that it does not answer.
        server.freeze();
        until("the mirror grows old", 30, || match etcd.age() {
            age if age > Duration::from_secs(3) => Ok(()),
            age => Err(age),
        })
        .await;
        until("contact is lost", 30, || match etcd.endpoint() {
            None => Ok(()),
            Some(endpoint) => Err(endpoint),
        })
        .await;
        assert_eq!(state(etcd.mirror()).len(), 1, "what is known is served");
        server.thaw();
        server.put("thawed", "1").await;
        caught_up(&etcd, &server).await;
        drain(&mut watcher, &mut events);
        for n in 0..3 {
            let last = server.put("counter", &n.to_string()).await;
            server.kill();
            until("contact is lost", 30, || etcd.endpoint().map_or(Ok(()), Err)).await;
            server.restart().await;
            assert_eq!(server.put("after", &n.to_string()).await, last + 1);
            caught_up(&etcd, &server).await;
            drain(&mut watcher, &mut events);
        }
        following.stop().await
    };
    // Nobody follows for a while.
    for n in 0..50 {
        server.put(&format!("missed/{n}"), "1").await;
    }
    let _following = Following::start(follower);
    caught_up(&etcd, &server).await;
    drain(&mut watcher, &mut events);
    let revisions: Vec<u64> = events.iter().map(|(_, _, revision)| *revision).collect();
    assert_eq!(revisions, (2..=etcd.mirror().revision()).collect::<Vec<_>>(), "each revision once, in order");
}

#[tokio::test]
async fn what_etcd_has_compacted_meanwhile_is_read_anew_and_watchers_are_told() {
    let server = Server::start().await;
    server.put("gone", "1").await;
    server.put("stays", "1").await;
    let (etcd, following) = server.open().await;
    let mut watcher = etcd.mirror().watch(KeyRange::all(), 0);
    let follower = following.stop().await;
    let known = etcd.mirror().revision();
    let delete = DeleteRangeRequest { key: "gone".into(), ..DeleteRangeRequest::default() };
    server.kv().await.delete_range(delete).await.expect("delete");
    let mut last = 0;
    for n in 0..10 {
        last = server.put("new", &n.to_string()).await;
    }
    let compact = CompactionRequest { revision: last.cast_signed() - 2, physical: true };
    server.kv().await.compact(compact).await.expect("compact");
    assert_eq!(etcd.mirror().revision(), known, "nobody follows");
    let _following = Following::start(follower);
    caught_up(&etcd, &server).await;
    let compacted = watcher.take().expect_err("its history is gone");
    assert_eq!((compacted.next, compacted.compact_revision), (known + 1, last + 1));
    let mut watcher = etcd.mirror().watch(KeyRange::all(), last + 1);
    let next = server.put("new", "more").await;
    caught_up(&etcd, &server).await;
    let mut events = Vec::new();
    drain(&mut watcher, &mut events);
    assert_eq!(events, [(EventKind::Put, Bytes::from("new"), next)]);
}

#[tokio::test]
async fn another_etcd_is_not_taken_for_the_same_store() {
    // Its cluster id is another one.
    let mut server = Server::start().await;
    server.put("a", "1").await;
    let (etcd, following) = server.open().await;
    server.kill();
    server.empty();
    server.rename();
    server.restart().await;
    let failure = following.failure().await;
    assert!(failure.contains("the store behind etcd is another one: cluster id"), "{failure}");
    drop(etcd);

    // Emptied, it has the same id, since that is made of its flags: fewer revisions give it away.
    let mut server = Server::start().await;
    for _ in 0..5 {
        server.put("a", "1").await;
    }
    let (_etcd, following) = server.open().await;
    server.kill();
    server.empty();
    server.restart().await;
    let failure = following.failure().await;
    assert!(failure.contains("it is at revision 1, 6 was seen"), "{failure}");

    // With as many revisions, its content does.
    let mut server = Server::start().await;
    server.put("a", "1").await;
    let (etcd, following) = server.open().await;
    let follower = following.stop().await;
    server.kill();
    server.empty();
    server.restart().await;
    for _ in 0..5 {
        server.put("b", "1").await;
    }
    let failure = Following::start(follower).failure().await;
    assert!(failure.contains(r#"key b"a" is not what it was at revision 2"#), "{failure}");
    assert_eq!(state(etcd.mirror()).len(), 1, "nothing of it was shown");
}

#[tokio::test]
async fn the_next_endpoint_is_used_when_one_does_not_answer() {
    let server = Server::start().await;
    server.put("a", "1").await;
    // Nobody listens at the first; the second accepts and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let endpoints = vec![
        "127.0.0.1:1".to_owned(),
        silent.local_addr().expect("address").to_string(),
        server.address().to_owned(),
    ];
    let opened = Etcd::open(crate::server::Plain(endpoints), StoreOptions::default());
    let (etcd, follower) =
        tokio::time::timeout(Duration::from_secs(30), opened).await.expect("in time").expect("a store");
    let _following = Following::start(follower);
    caught_up(&etcd, &server).await;
    until("contact", 10, || {
        etcd.endpoint().filter(|found| found == server.address()).map(drop).ok_or_else(|| etcd.endpoint())
    })
    .await;
}
