//! Very many of something.

use super::{
    super::{Server, soon},
    create,
};
use crate::etcd_api::{Calls, Grants, Limits, SharedRoom, serve_until};
use kvstore::{
    Store, StoreOptions,
    proto::etcdserverpb::{
        RangeRequest, WatchRequest, WatchResponse, kv_client::KvClient, watch_client::WatchClient,
        watch_request::RequestUnion,
    },
};
use std::{sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Streaming, transport::Channel};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_watches_on_one_stream_are_a_thousand() {
    let server = Server::start(Grants::admin()).await;
    let requests = tokio_stream::once(create("k")).chain(tokio_stream::pending());
    let mut watch = WatchClient::new(server.channel().await);
    let mut other = soon("a stream", watch.watch(requests)).await.expect("a stream").into_inner();
    assert!(soon("created", other.message()).await.expect("no error").expect("open").created);

    let requests = tokio_stream::iter((0..10_000).map(|_| create("k"))).chain(tokio_stream::pending());
    let mut watch = WatchClient::new(server.channel().await);
    let mut responses = soon("a stream", watch.watch(requests)).await.expect("a stream").into_inner();
    let (mut served, mut refused) = (0, 0);
    for _ in 0..10_000 {
        let response = soon("an answer", responses.message()).await.expect("no error").expect("open");
        assert!(response.created, "{response:?}");
        if response.canceled {
            assert_eq!(response.cancel_reason, "too many watches on one stream, at most 1000 are served");
            refused += 1;
        } else {
            served += 1;
        }
    }
    assert_eq!((served, refused), (1000, 9000));
    server.store.put("k", "v").expect("put");
    let event = soon("an event for another client", other.message()).await.expect("no error").expect("open");
    assert_eq!(event.events.len(), 1);
    for _ in 0..1000 {
        let response = soon("an event", responses.message()).await.expect("no error").expect("open");
        assert_eq!(response.events.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_of_watches_share_the_bound_of_their_connection() {
    let limits = Limits { watches_per_stream: 4, watches_per_connection: 10, ..Limits::default() };
    let server = Server::with(Store::in_memory(StoreOptions::default()), Grants::admin(), limits).await;
    let channel = server.channel().await;
    let mut streams = Vec::new();
    let mut served = 0;
    for _ in 0..4 {
        let mut stream = Watches::open(&channel, 4).await;
        for _ in 0..4 {
            let response = stream.next().await;
            served += usize::from(!response.canceled);
            assert!(!response.canceled || response.cancel_reason == "too many watches of this client");
        }
        streams.push(stream);
    }
    assert_eq!(served, 10);
    // Another connection has room of its own, and what a stream had is free when it has ended.
    assert!(!Watches::open(&server.channel().await, 1).await.next().await.canceled);
    assert!(Watches::open(&channel, 1).await.next().await.canceled);
    streams.remove(0);
    let begin = tokio::time::Instant::now();
    while Watches::open(&channel, 1).await.next().await.canceled {
        assert!(begin.elapsed() < Duration::from_secs(10), "still refused");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A stream of watches, which ends when it is dropped.
struct Watches {
    responses: Streaming<WatchResponse>,
    _requests: mpsc::Sender<WatchRequest>,
}

impl Watches {
    /// Asks for so many.
    async fn open(channel: &Channel, watches: usize) -> Self {
        let (sender, receiver) = mpsc::channel(watches);
        for _ in 0..watches {
            sender.send(create("k")).await.expect("there is room");
        }
        let mut client = WatchClient::new(channel.clone());
        let responses = soon("a stream", client.watch(ReceiverStream::new(receiver))).await.expect("served");
        Self { responses: responses.into_inner(), _requests: sender }
    }

    async fn next(&mut self) -> WatchResponse {
        soon("an answer", self.responses.message()).await.expect("no error").expect("open")
    }
}

/// A list that is on its way to a client that does not read ends with its connection, after a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_is_never_read_ends_its_connection() {
    let limits = Limits { list_time: Duration::from_millis(500), ..Limits::default() };
    let store = Store::in_memory(StoreOptions::default());
    for n in 0..64 {
        store.put(format!("big/{n}"), vec![b'x'; 256 << 10]).expect("put");
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let router = Calls::new(store, limits);
    let room = SharedRoom::default();
    let serving = tokio::spawn(async move {
        let (io, _) = listener.accept().await.expect("a connection");
        serve_until(io, router, Arc::new(Grants::admin()), room, limits, std::future::pending()).await
    });
    let io = hyper_util::rt::TokioIo::new(TcpStream::connect(address).await.expect("connect"));
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), io)
            .await
            .expect("HTTP/2");
    let client_end = tokio::spawn(connection);
    let list = RangeRequest { key: "big/".into(), range_end: "big0".into(), ..RangeRequest::default() };
    let message = kvstore::proto::Message::encode_to_vec(&list);
    let length = u32::try_from(message.len()).expect("short").to_be_bytes();
    let request = http::Request::post(format!("http://{address}/etcdserverpb.KV/Range"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(axum::body::Body::from([&[0][..], &length, &message].concat()))
        .expect("a request");
    let answer = soon("the head of an answer", client.send_request(request)).await.expect("an answer");
    let ended = soon("the end of the connection", serving).await.expect("no panic").expect_err("it is cut");
    assert!(ended.to_string().contains("has not read a list"), "{ended}");
    drop((answer, client));
    // How the client ends is not what is tested.
    drop(soon("the client", client_end).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_calls_than_a_connection_has_streams_wait() {
    let limits = Limits { streams_per_connection: 4, ..Limits::default() };
    let server = Server::with(Store::in_memory(StoreOptions::default()), Grants::admin(), limits).await;
    server.store.put("k", "v").expect("put");
    let channel = server.channel().await;
    // Until the server has said how many it takes, a client may begin more, which are refused and may be sent again.
    KvClient::new(channel.clone())
        .range(RangeRequest { key: "k".into(), ..RangeRequest::default() })
        .await
        .expect("served");
    let mut calls: tokio::task::JoinSet<_> = (0..500)
        .map(|_| {
            let mut kv = KvClient::new(channel.clone());
            async move { kv.range(RangeRequest { key: "k".into(), ..RangeRequest::default() }).await }
        })
        .collect();
    while let Some(answer) = soon("an answer", calls.join_next()).await {
        assert_eq!(answer.expect("no panic").expect("served in turn").into_inner().kvs.len(), 1);
    }
}

/// More streams than there is room for pieces of the history: those that wait go on when others have been read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_read_the_history_wait_for_each_other_and_miss_nothing() {
    let server = Server::start(Grants::admin()).await;
    let value = bytes::Bytes::from(vec![b'x'; 64 << 10]);
    for _ in 0..40 {
        server.store.put("flood", value.clone()).expect("put");
    }
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", server.address));
    // Room on the connection for all that the streams' own windows let pass.
    let endpoint = endpoint.expect("an address").initial_connection_window_size(64 << 20);
    let channel = endpoint.connect().await.expect("connect");
    let mut streams = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let mut watch = WatchClient::new(channel.clone());
        let mut from = create("flood");
        let Some(RequestUnion::CreateRequest(request)) = &mut from.request_union else { panic!("{from:?}") };
        request.start_revision = 2;
        let requests = tokio_stream::once(from).chain(tokio_stream::pending());
        let mut stream = soon("a stream", watch.watch(requests)).await.expect("served").into_inner();
        streams.spawn(async move {
            let mut seen = Vec::new();
            while seen.len() < 40 {
                let response = soon("events", stream.message()).await.expect("no error").expect("open");
                seen.extend(response.events.into_iter().filter_map(|event| Some(event.kv?.mod_revision)));
            }
            assert_eq!(seen, (2..42).collect::<Vec<i64>>());
        });
    }
    while let Some(read) = soon("a reader", streams.join_next()).await {
        read.expect("all events in order");
    }
}
