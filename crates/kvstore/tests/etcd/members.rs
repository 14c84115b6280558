//! An etcd of three members, of which one is lost, and then a second one.

use crate::server::{Following, Plain, Server, until};
use kvstore::{
    Etcd, EventKind, KeyRange, Publisher, StoreOptions,
    etcd::{Contender, Dial},
    proto::etcdserverpb::{StatusRequest, maintenance_client::MaintenanceClient},
    store::Changes,
};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Which of the servers leads the others.
async fn leader(servers: &[Server]) -> usize {
    for (at, server) in servers.iter().enumerate() {
        let mut client = MaintenanceClient::new(server.dial().dial(0).await.expect("connect"));
        let status = client.status(StatusRequest {}).await.expect("status").into_inner();
        if status.header.expect("a header").member_id == status.leader {
            return at;
        }
    }
    panic!("none of them leads");
}

/// Counts on from a value until it is written, standing for election anew whenever that fails.
async fn write(contender: &Contender, value: u64) {
    let begin = Instant::now();
    loop {
        let leader =
            timeout(Duration::from_secs(60), contender.elected()).await.expect("elected within a minute");
        let publisher = Publisher::new(leader.fence().clone(), ["ours/"]);
        let written = publisher.put("ours/counter", value.to_string()).await;
        leader.resign().await;
        match written {
            Ok(_) => return,
            Err(error) => assert!(begin.elapsed() < Duration::from_secs(60), "not written: {error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_member_may_be_lost_and_with_two_of_three_gone_what_is_known_is_served() {
    let mut servers = Server::three().await;
    let lost = leader(&servers).await;
    // The one that will be lost is the one that is used.
    let mut endpoints: Vec<String> = servers.iter().map(|server| server.address().to_owned()).collect();
    endpoints.rotate_left(lost);
    let opened =
        timeout(Duration::from_secs(30), Etcd::open(Plain(endpoints.clone()), StoreOptions::default()));
    let (etcd, follower) = opened.await.expect("within 30 s").expect("a store");
    let _following = Following::start(follower);
    until("contact", 10, || {
        if etcd.endpoint().as_ref() == endpoints.first() { Ok(()) } else { Err(etcd.endpoint()) }
    })
    .await;
    let mut watcher = etcd.mirror().watch(KeyRange::key("ours/counter"), 2);
    let contender = Contender::new(etcd.clone(), "test/leader", "one");
    write(&contender, 1).await;

    servers[lost].kill();
    write(&contender, 2).await;
    assert_ne!(etcd.endpoint().as_ref(), endpoints.first());
    write(&contender, 3).await;

    // Without a majority nobody can say that the mirror is current.
    let second = (lost + 1) % 3;
    servers[second].kill();
    until("the mirror grows old", 60, || match etcd.age() {
        age if age > Duration::from_secs(5) => Ok(()),
        age => Err(age),
    })
    .await;
    let value = |etcd: &Etcd| etcd.mirror().snapshot().get(b"ours/counter").map(|entry| entry.value.clone());
    assert_eq!(value(&etcd), Some("3".into()), "what is known is served");
    servers[lost].restart().await;
    write(&contender, 4).await;
    until("the mirror is current", 30, || match etcd.age() {
        age if age < Duration::from_secs(3) => Ok(()),
        age => Err(age),
    })
    .await;

    let mut seen = Vec::new();
    while let Some(Changes { events, .. }) = watcher.take().expect("not compacted") {
        for event in events {
            assert_eq!(event.kind, EventKind::Put);
            let text = String::from_utf8(event.entry.value.to_vec()).expect("text");
            seen.push(text.parse::<u64>().expect("a number"));
        }
    }
    // A put whose fate was not known may have been made, and was then made again.
    assert!(seen.windows(2).all(|pair| pair[0] <= pair[1]), "it went back: {seen:?}");
    seen.dedup();
    assert_eq!(seen, [1, 2, 3, 4]);
}
