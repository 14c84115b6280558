//! Floods from one side, and what they cost the real process: memory, log lines, and the patience of a good client.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kvstore::proto::Message;
use kvstore::proto::etcdserverpb::{
    PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest, WatchRequest, kv_client::KvClient,
    request_op::Request, watch_request::RequestUnion,
};
use pki::client::{Connector, TlsStream};
use pki::{Credentials, Expected, LeafRole, LiveCredentials};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use super::{Hub, World};

/// Where the flood comes from; the good client is at 127.0.0.1.
const FLOODER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const RECORDS: &str = "isthmus/v1/shared/flood/";

async fn tcp(hub: &Hub) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(FLOODER, 0))?;
    socket.connect(hub.api).await
}

async fn tls(world: &World, hub: &Hub, role: LeafRole) -> TlsStream<TcpStream> {
    let credentials = Credentials::load(&world.path(role.as_str())).expect("credentials");
    let connector = Connector::new(LiveCredentials::fixed(credentials), Expected::OwnHub);
    let tcp = tcp(hub).await.expect("a connection");
    connector.connect("127.0.0.1", tcp).await.expect("a handshake").0
}

/// A client that takes what its window holds and then nothing.
async fn unread(world: &World, hub: &Hub, tasks: &mut JoinSet<()>) -> SendRequest<axum::body::Body> {
    let io = TokioIo::new(tls(world, hub, LeafRole::Remote).await);
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(1 << 10).initial_connection_window_size(1 << 16);
    let (client, connection) = builder.handshake(io).await.expect("HTTP/2");
    // It ends when the hub or the test does.
    tasks.spawn(async move { drop(connection.await) });
    client
}

fn request(path: &str, message: &impl Message) -> http::Request<axum::body::Body> {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).expect("short").to_be_bytes();
    http::Request::post(format!("http://hub{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(axum::body::Body::from([&[0][..], &length, &message].concat()))
        .expect("a request")
}

async fn administrator(world: &World, hub: &Hub) -> KvClient<Channel> {
    let mut io = Some(TokioIo::new(tls(world, hub, LeafRole::Admin).await));
    let take = tower::service_fn(move |_: http::Uri| {
        std::future::ready(io.take().ok_or_else(|| std::io::Error::other("the connection was lost")))
    });
    let channel = Endpoint::from_static("http://hub").connect_with_connector(take).await.expect("HTTP/2");
    KvClient::new(channel).max_decoding_message_size(usize::MAX)
}

fn put(number: usize, bytes: usize) -> PutRequest {
    let key = format!("{RECORDS}{number:06}").into();
    PutRequest { key, value: vec![b'x'; bytes].into(), ..PutRequest::default() }
}

impl Hub {
    /// A field of `/proc/<pid>/status`, MiB.
    fn memory(&self, field: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = text.lines().find_map(|line| line.strip_prefix(field)).expect("a field of its memory");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
    }

    fn counter(&self, name: &str) -> u64 {
        let metrics = self.page("/metrics");
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0, |value| value.trim().parse().expect("a number"))
    }
}

impl World {
    fn good_client_reads(&self, hub: &Hub) {
        let (ok, text) = self.etcdctl(hub, "remote", &["get", "--prefix", "cilium/state/services/"]);
        assert!(ok && text.contains("shop/cart"), "{text}\n{:#}", hub.status());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_are_few_and_short() {
    let world = World::new("north", 9);
    let hub = world.start();
    world.good_client_reads(&hub);
    let before = hub.memory("VmRSS:");
    // After a handshake nothing, or half of what HTTP/2 begins with.
    let mut silent = Vec::new();
    for n in 0..40 {
        let mut stream = tls(&world, &hub, LeafRole::Local).await;
        if n % 2 == 0 {
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"PRI * HTTP/2").await.expect("written");
        }
        silent.push(stream);
    }
    // Not even a handshake.
    let mut held = VecDeque::new();
    for _ in 0..10_000 {
        held.push_back(tcp(&hub).await.expect("a connection"));
        if held.len() > 2000 {
            held.pop_front();
        }
    }
    world.good_client_reads(&hub);
    let growth = hub.memory("VmRSS:").saturating_sub(before);
    assert!(growth < 64, "{growth} MiB for 10 000 silent connections");
    let away = "mesh_apiserver_connections_turned_away_total";
    assert!(hub.counter(away) > 3000, "{} turned away", hub.counter(away));
    let timeouts = "mesh_apiserver_connections_refused_total{reason=\"timeout\"}";
    hub.wait("handshakes to time out", |hub| (hub.counter(timeouts) >= 100).then_some(()));
    let silences = "mesh_apiserver_connections_refused_total{reason=\"silent\"}";
    hub.wait("silent clients to be closed", |hub| (hub.counter(silences) >= 16).then_some(()));
    hub.wait("all of them to be gone", |hub| {
        hub.status()["clients"].as_array().is_some_and(Vec::is_empty).then_some(())
    });
    // Each kind is told once, and counted where it is shown.
    let log = hub.log();
    for kind in [
        "TLS handshake not complete after",
        "client has spoken neither HTTP/2 nor HTTP/1.1",
        "too many connections or handshakes, turned away",
    ] {
        let lines = log.lines().filter(|line| line.contains(kind)).count();
        assert_eq!(lines, 1, "{kind} in\n{log}");
    }
    let status = hub.status();
    let refused = status["refused"].as_array().expect("a list");
    let shown = refused.iter().find(|refused| refused["kind"] == "timeout").expect("timeouts");
    assert!(shown["count"].as_u64() >= Some(100), "{shown:#}");
    assert!(refused.len() < 10, "{refused:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_do_not_read_cost_little_memory() {
    let world = World::new("north", 9);
    let hub = world.start();
    let mut admin = administrator(&world, &hub).await;
    // 20 MiB of records.
    for first in (0..20_480).step_by(128) {
        let puts = (first..first + 128).map(|number| Request::RequestPut(put(number, 1 << 10)));
        let success = puts.map(|put| RequestOp { request: Some(put) }).collect();
        admin.txn(TxnRequest { success, ..TxnRequest::default() }).await.expect("written");
    }
    let (mut tasks, mut clients) = (JoinSet::new(), Vec::new());
    for _ in 0..60 {
        clients.push(unread(&world, &hub, &mut tasks).await);
    }
    let before = hub.memory("VmRSS:");

    // 1200 whole lists, no two alike, so that none of them is shared.
    let mut asked = Vec::new();
    for (n, client) in clients.iter_mut().enumerate() {
        for m in 0..20 {
            let limit = 1_000_000 + i64::try_from(20 * n + m).expect("a number");
            let (key, range_end) = (RECORDS.into(), "isthmus/v1/shared/flood0".into());
            let list = RangeRequest { key, range_end, limit, ..RangeRequest::default() };
            asked.push(tokio::spawn(client.send_request(request("/etcdserverpb.KV/Range", &list))));
        }
    }
    // And watches of what changes next.
    for client in &mut clients {
        for _ in 0..10 {
            let (key, range_end) = (RECORDS.into(), "isthmus/v1/shared/flood0".into());
            let create = WatchCreateRequest { key, range_end, ..WatchCreateRequest::default() };
            let watch = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
            asked.push(tokio::spawn(client.send_request(request("/etcdserverpb.Watch/Watch", &watch))));
        }
    }
    // The first lists are on their way; another holder's come all the same, and so do changes of 25 MiB.
    let begun = || asked.iter().filter(|call| call.is_finished()).count();
    let begin = tokio::time::Instant::now();
    while begun() < 600 {
        assert!(begin.elapsed() < Duration::from_secs(60), "{} calls were answered", begun());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for number in 0..400 {
        admin.put(put(number, 64 << 10)).await.expect("written");
    }
    let (ok, text) = world.etcdctl(&hub, "local", &["get", "--prefix", RECORDS, "--limit=1", "-w", "fields"]);
    assert!(ok && text.contains("\"Count\" : 20480"), "{text}");
    let list = RangeRequest {
        key: RECORDS.into(),
        range_end: "isthmus/v1/shared/flood0".into(),
        ..RangeRequest::default()
    };
    let whole = tokio::time::timeout(Duration::from_secs(60), admin.range(list)).await;
    assert_eq!(whole.expect("in time").expect("a list").into_inner().kvs.len(), 20_480);
    let growth = hub.memory("VmHWM:").saturating_sub(before);
    eprintln!("{before} MiB, then {growth} MiB more at most; {} of {} calls answered", begun(), asked.len());
    assert!(growth < 400, "{growth} MiB for 60 clients that do not read");
    tasks.abort_all();
}
