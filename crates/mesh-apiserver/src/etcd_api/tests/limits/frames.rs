//! Requests that are no sound requests: both our server and etcd are asked, and must answer alike.

use super::super::{Etcd, Server, connect, soon};
use crate::etcd_api::{Grants, Limits};
use hyper::body::Body;
use kvstore::{
    Store, StoreOptions,
    proto::{
        Message,
        etcdserverpb::{
            CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, WatchCreateRequest,
            WatchRequest, WatchResponse, kv_client::KvClient, watch_client::WatchClient,
            watch_request::RequestUnion,
        },
    },
};
use std::{pin::Pin, time::Duration};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_stream::StreamExt;
use tonic::{Code, transport::Channel};
use tower::ServiceExt;

const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";

/// A message with its head.
fn framed(message: &impl Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).expect("short");
    [&[0][..], &length.to_be_bytes(), &message].concat()
}

/// What a call with this body is answered: gRPC's code and text, and the message without its head.
async fn call(channel: &Channel, path: &str, body: Vec<u8>) -> (Code, String, Vec<u8>) {
    let request = http::Request::post(format!("http://server{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(axum::body::Body::from(body)))
        .expect("a request");
    let answer = soon("an answer", channel.clone().oneshot(request)).await.expect("an answer");
    let (head, mut body) = answer.into_parts();
    let (mut headers, mut data) = (head.headers, Vec::new());
    while let Some(frame) =
        soon("the body", std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context))).await
    {
        match frame.expect("no error").into_data() {
            Ok(bytes) => data.extend(bytes),
            Err(frame) => headers.extend(frame.into_trailers().expect("data or trailers")),
        }
    }
    let status = tonic::Status::from_header_map(&headers).unwrap_or_else(|| panic!("no status: {headers:?}"));
    (status.code(), status.message().to_owned(), data.split_off(data.len().min(5)))
}

fn put(key_bytes: usize, value_bytes: usize) -> Vec<u8> {
    let (key, value) = (vec![b'k'; key_bytes].into(), vec![b'v'; value_bytes].into());
    framed(&PutRequest { key, value, ..PutRequest::default() })
}

#[tokio::test]
async fn we_answer_what_is_wrong_as_etcd_does() {
    let (ours, etcd) = tokio::join!(Server::start(Grants::admin()), Etcd::start());
    let (ours, theirs) = (ours.channel().await, connect(&etcd.address).await);
    let range = |key: &'static str, range_end: &'static str, revision| {
        framed(&RangeRequest {
            key: key.into(),
            range_end: range_end.into(),
            revision,
            ..RangeRequest::default()
        })
    };
    let inverted =
        DeleteRangeRequest { key: "z".into(), range_end: "a".into(), ..DeleteRangeRequest::default() };
    for (what, path, body) in [
        ("a large key", PUT, put(1 << 20, 1)),
        // etcd counts some bytes of its own log, too.
        ("a value of nearly etcd's most", PUT, put(1, (3 << 19) - 100)),
        ("a value of more", PUT, put(1, 3 << 19)),
        ("a key that is too large", PUT, put(3 << 19, 1)),
        ("a message that is too long", PUT, put(1, 3 << 20)),
        ("a message that says it is 4 GiB long", PUT, vec![0, 0xff, 0xff, 0xff, 0xff, 1]),
        ("the same to Range", RANGE, vec![0, 0xff, 0xff, 0xff, 0xff, 1]),
        ("a compressed message", PUT, vec![1, 0, 0, 0, 1, 0]),
        ("the same to Range", RANGE, vec![1, 0, 0, 0, 1, 0]),
        ("no key", RANGE, framed(&RangeRequest::default())),
        ("an inverted range", RANGE, range("z", "a", 0)),
        ("a range that ends where it begins", RANGE, range("a", "a", 0)),
        ("an inverted deletion", "/etcdserverpb.KV/DeleteRange", framed(&inverted)),
        ("a revision in the future", RANGE, range("a", "", 1 << 40)),
        ("a revision below zero", RANGE, range("a", "", i64::MIN)),
        (
            "a compaction in the future",
            "/etcdserverpb.KV/Compact",
            framed(&CompactionRequest { revision: i64::MAX, ..CompactionRequest::default() }),
        ),
    ] {
        let [mut ours, theirs] = [call(&ours, path, body.clone()).await, call(&theirs, path, body).await];
        // Headers have other ids.
        ours.2.clear();
        assert_eq!((ours.0, ours.1), (theirs.0, theirs.1), "left: ours, right: etcd's answer to {what}");
    }
    // Here the code is etcd's, the text is our library's.
    for (what, path, body) in [
        ("no protobuf", RANGE, vec![0, 0, 0, 0, 6, 0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        ("no protobuf", PUT, vec![0, 0, 0, 0, 6, 0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        ("an unknown method", "/etcdserverpb.KV/Nothing", framed(&RangeRequest::default())),
        ("an unknown service", "/etcdserverpb.Nobody/Range", framed(&RangeRequest::default())),
    ] {
        let (code, text, _) = call(&ours, path, body.clone()).await;
        let theirs = call(&theirs, path, body).await;
        assert_eq!(code, theirs.0, "{what}: ours says {text:?}, etcd {:?}", theirs.1);
    }
    for channel in [ours, theirs] {
        let range = RangeRequest { key: "k".into(), ..RangeRequest::default() };
        KvClient::new(channel).range(range).await.expect("the connection lives");
    }
}

#[tokio::test]
async fn an_inverted_watch_is_refused_as_by_etcd() {
    let (ours, etcd) = tokio::join!(Server::start(Grants::admin()), Etcd::start());
    let mut answers = Vec::new();
    for channel in [ours.channel().await, connect(&etcd.address).await] {
        let create = |key: &'static str, range_end: &'static str| {
            let (key, range_end) = (key.into(), range_end.into());
            let create = WatchCreateRequest { key, range_end, ..WatchCreateRequest::default() };
            WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
        };
        let requests = [create("z", "a"), create("a", "a"), create("a", "b"), create("b", "\0")];
        let requests = tokio_stream::iter(requests).chain(tokio_stream::pending());
        let mut stream = WatchClient::new(channel).watch(requests).await.expect("a stream").into_inner();
        let mut answer = async || -> WatchResponse {
            soon("an answer", stream.message()).await.expect("no error").expect("open")
        };
        let mut all = Vec::new();
        for _ in 0..4 {
            let WatchResponse { watch_id, created, canceled, cancel_reason, .. } = answer().await;
            all.push((watch_id, created, canceled, cancel_reason));
        }
        answers.push(all);
    }
    assert_eq!(answers[0], answers[1], "left: ours, right: etcd's");
    let canceled: Vec<bool> = answers[0].iter().map(|(_, _, canceled, _)| *canceled).collect();
    assert_eq!(canceled, [true, true, false, false], "{answers:?}");
}

#[tokio::test]
async fn a_request_that_never_ends_is_given_up() {
    let limits = Limits { message_time: Duration::from_millis(300), ..Limits::default() };
    let server = Server::with(Store::in_memory(StoreOptions::default()), Grants::admin(), limits).await;
    let channel = server.channel().await;
    for path in
        [RANGE, PUT, "/etcdserverpb.KV/Txn", "/etcdserverpb.Lease/LeaseGrant", "/etcdserverpb.Watch/Watch"]
    {
        // The head of a message of a hundred bytes, and two of them.
        let (code, text) = endless(&channel, path, &[0, 0, 0, 0, 100, 0x0a, 90]).await;
        assert_eq!(code, Code::DeadlineExceeded, "{path}: {text}");
    }
    let range = RangeRequest { key: "k".into(), ..RangeRequest::default() };
    KvClient::new(channel).range(range).await.expect("the connection lives");
}

#[tokio::test]
async fn unfinished_messages_have_little_room() {
    let server = Server::start(Grants::admin()).await;
    let channel = server.channel().await;
    // Each announces 2 MiB less one byte: room is there for two.
    let begun = |channel: Channel| async move { endless(&channel, PUT, &[0, 0, 0x1f, 0xff, 0xff, 0]).await };
    let mut calls: tokio::task::JoinSet<_> = (0..20).map(|_| begun(channel.clone())).collect();
    for n in 0..18 {
        let ended = soon("a call that found no room", calls.join_next()).await.expect("a call");
        let (code, text) = ended.expect("no panic");
        assert_eq!(code, Code::ResourceExhausted, "{n}: {text}");
    }
    let range = RangeRequest { key: "k".into(), ..RangeRequest::default() };
    KvClient::new(channel).range(range).await.expect("small requests find room");
    let mut other = KvClient::new(server.channel().await);
    let put = PutRequest { key: "k".into(), ..PutRequest::default() };
    other.put(put).await.expect("so do other connections");
}

/// What a call is answered whose body says this and never ends.
async fn endless(channel: &Channel, path: &str, begin: &'static [u8]) -> (Code, String) {
    let data = tokio_stream::once(Ok::<_, std::io::Error>(bytes::Bytes::from_static(begin)));
    let body = axum::body::Body::from_stream(data.chain(tokio_stream::pending()));
    let request = http::Request::post(format!("http://server{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(body))
        .expect("a request");
    let answer = soon("an answer", channel.clone().oneshot(request)).await.expect("an answer");
    let (head, mut body) = answer.into_parts();
    let mut headers = head.headers;
    while let Some(frame) =
        soon("the end", std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context))).await
    {
        if let Ok(trailers) = frame.expect("no error").into_trailers() {
            headers.extend(trailers);
        }
    }
    let status = tonic::Status::from_header_map(&headers).unwrap_or_else(|| panic!("no status: {headers:?}"));
    (status.code(), status.message().to_owned())
}

/// Whatever is said on the port instead of HTTP/2, it is answered or closed, and soon.
#[tokio::test]
async fn other_protocols_are_answered_or_closed() {
    let limits = Limits { hello_time: Duration::from_millis(300), ..Limits::default() };
    let server = Server::with(Store::in_memory(StoreOptions::default()), Grants::admin(), limits).await;
    let range =
        format!("POST {RANGE} HTTP/1.1\r\nHost: hub\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let long = format!("GET /{} HTTP/1.1\r\nHost: hub\r\n\r\n", "x".repeat(1 << 20));
    for (what, said, answered) in [
        ("nothing", &b""[..], ""),
        ("half of the preface", b"PRI * HTTP/2", ""),
        (
            "another method",
            b"DELETE /version HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 405",
        ),
        ("another path", b"GET /nothing HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n", "HTTP/1.1 "),
        ("gRPC over HTTP/1.1", range.as_bytes(), "HTTP/1.1 "),
        ("a long request", long.as_bytes(), "HTTP/1.1 4"),
        (
            "TLS",
            &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            "HTTP/1.1 400",
        ),
        ("noise", &[0xff; 4096], "HTTP/1.1 400"),
        (
            "HTTP/2 that is none",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            "\0\0",
        ),
    ] {
        let mut io = tokio::net::TcpStream::connect(server.address).await.expect("connect");
        // The server may close before it has read everything.
        drop(io.write_all(said).await);
        let mut answer = Vec::new();
        let read = soon(what, io.read_to_end(&mut answer)).await;
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with(answered), "{what}: {read:?} {text:?}");
        assert!(!answered.is_empty() || answer.is_empty(), "{what}: {text:?}");
    }
    let range = RangeRequest { key: "k".into(), ..RangeRequest::default() };
    KvClient::new(server.channel().await).range(range).await.expect("others are served");
}
