//! Clients that ask for too much, do not read, or do not speak the protocol.

mod floods;
mod frames;

use super::{Server, soon};
use crate::etcd_api::{Grants, Limits};
use kvstore::{
    Client, KeyRange, Store, StoreOptions,
    proto::etcdserverpb::{
        RangeRequest, WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest,
        kv_client::KvClient, watch_client::WatchClient, watch_request::RequestUnion,
    },
};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_stream::StreamExt;
use tower::ServiceExt;

fn create(key: &'static str) -> WatchRequest {
    let create = WatchCreateRequest { key: key.into(), ..WatchCreateRequest::default() };
    WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
}

#[tokio::test]
async fn watches_beyond_the_limit_are_refused_and_the_rest_goes_on() {
    let limits = Limits { watches_per_stream: 3, ..Limits::default() };
    let server = Server::with(Store::in_memory(StoreOptions::default()), Grants::admin(), limits).await;
    let requests = tokio_stream::iter((0..5).map(|_| create("k"))).chain(tokio_stream::pending());
    let mut watch = WatchClient::new(server.channel().await);
    let mut responses = watch.watch(requests).await.expect("a stream").into_inner();
    let mut ids = Vec::new();
    for _ in 0..5 {
        let response = soon("an answer", responses.message()).await.expect("no error").expect("open");
        ids.push((response.watch_id, response.canceled));
    }
    assert_eq!(ids, [(0, false), (1, false), (2, false), (-1, true), (-1, true)]);
    server.store.put("k", "v").expect("put");
    let event = soon("an event", responses.message()).await.expect("no error").expect("open");
    assert_eq!(event.events.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_delays_nobody() {
    let server = Server::start(Grants::admin()).await;
    let requests = tokio_stream::once(create("flood")).chain(tokio_stream::pending());
    let mut watch = WatchClient::new(server.channel().await);
    let mut unread = watch.watch(requests).await.expect("a stream").into_inner();
    let requests = tokio_stream::once(create("end")).chain(tokio_stream::pending());
    let mut watch = WatchClient::new(server.channel().await);
    let mut read = watch.watch(requests).await.expect("a stream").into_inner();
    soon("created", read.message()).await.expect("no error").expect("open");

    // 64 MiB to a client that reads nothing: far more than the windows hold.
    let value = bytes::Bytes::from(vec![b'x'; 64 << 10]);
    for _ in 0..1000 {
        server.store.put("flood", value.clone()).expect("put");
    }
    server.store.put("end", "now").expect("put");
    let event =
        soon("an event for the one who reads", read.message()).await.expect("no error").expect("open");
    assert_eq!(event.events.len(), 1);

    // Once it reads, it misses nothing.
    let mut seen = 0;
    while seen < 1000 {
        let response = soon("a late event", unread.message()).await.expect("no error").expect("open");
        seen += response.events.len();
    }
    assert_eq!(seen, 1000);
}

#[tokio::test]
async fn version_and_health_are_answered_over_plain_http() {
    let server = Server::start(Grants::refused("no matter")).await;
    for (path, expected) in [
        ("/version", "{\"etcdcluster\":\"3.5.0\",\"etcdserver\":\"3.5.21\"}"),
        ("/health", "{\"health\":\"true\"}"),
    ] {
        let mut io = tokio::net::TcpStream::connect(server.address).await.expect("connect");
        let request = format!("GET {path} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n");
        io.write_all(request.as_bytes()).await.expect("write");
        let mut answer = String::new();
        soon("an answer", io.read_to_string(&mut answer)).await.expect("read");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(expected), "{answer}");
    }
}

#[tokio::test]
async fn a_watch_ends_with_its_follower_while_the_connection_lives() {
    let server = Server::start(Grants::admin()).await;
    let registry = &mut prometheus_client::registry::Registry::default();
    kvstore::metrics::register(&server.store, registry);
    let watchers = |registry: &prometheus_client::registry::Registry| {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).expect("encode");
        text.lines().find(|line| line.starts_with("store_watchers ")).map(str::to_owned)
    };
    let client = Client::new(server.channel().await);
    let mut follow = client.list_watch(KeyRange::key("k"), None);
    soon("the list", follow.next()).await.expect("listed");
    server.store.put("k", "v").expect("put");
    soon("the change", follow.next()).await.expect("followed");
    assert_eq!(watchers(registry).as_deref(), Some("store_watchers 1"));
    drop(follow);
    let begin = tokio::time::Instant::now();
    while watchers(registry).as_deref() != Some("store_watchers 0") {
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", watchers(registry));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    client.get("k").await.expect("the connection lives");
}

#[tokio::test]
async fn watches_with_hostile_numbers_harm_nobody() {
    let server = Server::start(Grants::admin()).await;
    let create = |watch_id: i64, start_revision: i64, key: &'static str, range_end: &'static str| {
        let (key, range_end) = (key.into(), range_end.into());
        let filters = vec![0, 1, 77, -5];
        let create = WatchCreateRequest {
            key,
            range_end,
            watch_id,
            start_revision,
            filters: if start_revision == i64::MIN { filters } else { Vec::new() },
            progress_notify: true,
            ..WatchCreateRequest::default()
        };
        WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
    };
    let cancel = |watch_id| WatchRequest {
        request_union: Some(RequestUnion::CancelRequest(WatchCancelRequest { watch_id })),
    };
    let requests = [
        WatchRequest::default(),
        cancel(i64::MIN),
        create(i64::MIN, i64::MAX, "k", ""),
        create(i64::MAX, i64::MIN, "k", "a"),
        create(-1, -1, "z", "a"),
        create(-2, i64::MAX, "", "\0"),
        WatchRequest { request_union: Some(RequestUnion::ProgressRequest(WatchProgressRequest {})) },
        create(5, 0, "k", ""),
    ];
    let requests = tokio_stream::iter(requests).chain(tokio_stream::pending());
    let mut watch = WatchClient::new(server.channel().await);
    let mut responses = watch.watch(requests).await.expect("a stream").into_inner();
    let mut created = Vec::new();
    while created.len() < 5 {
        let response = soon("an answer", responses.message()).await.expect("no error").expect("open");
        if response.created {
            created.push((response.watch_id, response.canceled));
        }
    }
    // The two inverted ranges are refused.
    assert_eq!(created, [(i64::MIN, false), (-1, true), (-1, true), (-2, false), (5, false)]);
    server.store.put("k", "v").expect("put");
    loop {
        let response = soon("the event", responses.message()).await.expect("no error").expect("open");
        if !response.events.is_empty() {
            assert_eq!((response.watch_id, response.events.len()), (5, 1), "{response:?}");
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_that_are_not_read_make_their_own_connection_wait_and_no_other() {
    let server = Server::start(Grants::admin()).await;
    let value = bytes::Bytes::from(vec![b'x'; 256 << 10]);
    for n in 0..64 {
        server.store.put(format!("big/{n}"), value.clone()).expect("put");
    }
    let list = || RangeRequest { key: "big/".into(), range_end: "big0".into(), ..RangeRequest::default() };
    // 16 MiB each, on one connection whose client reads nothing of what it asks for.
    let mut asked = Vec::new();
    let channel = server.channel().await;
    for _ in 0..20 {
        let mut body = Vec::from([0]);
        let message = kvstore::proto::Message::encode_to_vec(&list());
        body.extend(u32::try_from(message.len()).expect("short").to_be_bytes());
        body.extend(message);
        let request = http::Request::post(format!("http://{}/etcdserverpb.KV/Range", server.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(tonic::body::Body::new(axum::body::Body::from(body)))
            .expect("a request");
        asked.push(tokio::spawn(channel.clone().oneshot(request)));
    }
    let begun = || asked.iter().filter(|call| call.is_finished()).count();
    let begin = tokio::time::Instant::now();
    while begun() == 0 {
        assert!(begin.elapsed() < Duration::from_secs(10), "no list was begun");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Its further lists wait for the first one to be read; another connection is answered.
    let mut other = KvClient::new(server.channel().await).max_decoding_message_size(64 << 20);
    let response = soon("another client's list", other.range(list())).await.expect("a list").into_inner();
    assert_eq!(response.kvs.len(), 64);
    assert_eq!(begun(), 1, "lists on the way to a client that does not read");
}
