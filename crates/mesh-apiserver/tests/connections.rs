//! Connections over real mutual TLS on loopback: how many a client may have, and for how long.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use kvstore::proto::etcdserverpb::{
    RangeRequest, RangeResponse, WatchCreateRequest, WatchRequest, WatchResponse, kv_client::KvClient,
    watch_client::WatchClient, watch_request::RequestUnion,
};
use kvstore::{Store, StoreOptions};
use mesh_apiserver::etcd_api::{Calls, Limits};
use mesh_apiserver::serve::clients::{Clients, Refused};
use mesh_apiserver::serve::metrics::Metrics;
use mesh_apiserver::serve::notices::Notices;
use mesh_apiserver::serve::shares::{Caps, Shares};
use mesh_apiserver::serve::{Server, Service};
use mesh_runtime::Shutdown;
use pki::authority::EnrolRequest;
use pki::client::Connector;
use pki::key::{KeyKind, PrivateKey, SigningRequest};
use pki::server::Acceptor;
use pki::{
    Authority, ClusterAuthority, Credentials, Expected, Files, LeafRole, LeafSpec, LiveCredentials, Reloader,
};
use prometheus_client::registry::Registry;
use tokio::net::TcpStream;
use tokio_stream::StreamExt;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

/// Two roots. Under the first: paris, whose hub is served, and berlin. Under the second: tokyo.
struct Mesh {
    dir: tempfile::TempDir,
}

struct Hub {
    address: SocketAddr,
    store: Store,
    clients: Clients,
    registry: Registry,
    shutdown: Shutdown,
    dir: PathBuf,
    reloader: Option<Reloader>,
}

type Watch = Streaming<WatchResponse>;

impl Mesh {
    fn new() -> Self {
        let mesh = Self { dir: tempfile::tempdir().expect("a temporary folder") };
        for (root, clusters) in [("first", &[("paris", 1), ("berlin", 2)][..]), ("second", &[("tokyo", 3)])] {
            let domain = "mesh.example".parse().expect("a trust domain");
            let authority = Authority::init(&mesh.path(root), domain, KeyKind::P256).expect("an authority");
            for (cluster, id) in clusters {
                enrol(&authority, &mesh.path(cluster), cluster, *id);
            }
        }
        mesh
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A new leaf, whose holder accepts both roots.
    fn leaf(&self, cluster: &str, role: LeafRole, node: &str, life: Duration) -> PathBuf {
        let out = self.path(&format!("{cluster}-{role}-{node}"));
        let spec = LeafSpec { life, ..LeafSpec::new(role, node.parse().expect("a node")) };
        let key = PrivateKey::generate(KeyKind::P256).expect("a key");
        let request = SigningRequest::from_pem(&key.request().expect("a request")).expect("a request");
        let cluster = ClusterAuthority::open(&self.path(cluster)).expect("a passport");
        cluster.issue_leaf(&spec, &request).expect("a leaf").write(&out, Some(&key)).expect("written");
        self.accepts(&out, &["first", "second"]);
        out
    }

    /// The hub of paris.
    async fn hub(&self, caps: Caps) -> Hub {
        let dir = self.leaf("paris", LeafRole::Hub, "n1", DAY);
        let store = Store::in_memory(StoreOptions::default());
        store.put("cilium/.heartbeat", "now").expect("memory");
        let server = Server::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a port");
        let (credentials, reloader) = LiveCredentials::watch(Files::in_dir(&dir)).expect("credentials");
        let (clients, mut registry) = (Clients::default(), Registry::default());
        let service = Service {
            cluster: "paris".parse().expect("a name"),
            acceptor: Acceptor::new(credentials),
            calls: Calls::new(store.clone(), Limits::default()),
            limits: Limits::default(),
            clients: clients.clone(),
            shares: Shares::new(caps),
            metrics: Metrics::register(&mut registry, &clients),
            notices: Notices::default(),
        };
        let (address, shutdown) = (server.address(), Shutdown::new());
        tokio::spawn(server.serve(service, shutdown.clone()));
        Hub { address, store, clients, registry, shutdown, dir, reloader: Some(reloader) }
    }

    /// Writes which roots the holder of these files accepts.
    fn accepts(&self, dir: &Path, roots: &[&str]) {
        let root = |name: &&str| std::fs::read_to_string(self.path(name).join("root.crt")).expect("a root");
        let staged = dir.join(".ca.crt");
        std::fs::write(&staged, roots.iter().map(root).collect::<String>()).expect("written");
        std::fs::rename(&staged, dir.join("ca.crt")).expect("renamed");
    }
}

impl Hub {
    async fn dial(&self, leaf: &Path) -> Channel {
        let credentials = LiveCredentials::fixed(Credentials::load(leaf).expect("credentials"));
        let connector = Connector::new(credentials, Expected::Peer("paris".parse().expect("a name")));
        let tcp = TcpStream::connect(self.address).await.expect("a connection");
        let (tls, _) = connector.connect("paris.mesh.cilium.io", tcp).await.expect("a handshake");
        let mut io = Some(TokioIo::new(tls));
        let take = tower::service_fn(move |_: http::Uri| {
            std::future::ready(io.take().ok_or_else(|| std::io::Error::other("the connection was lost")))
        });
        let endpoint = tonic::transport::Endpoint::from_static("http://hub");
        endpoint.connect_with_connector(take).await.expect("HTTP/2")
    }

    fn refused(&self, kind: &str) -> Option<Refused> {
        self.clients.lately_refused().into_iter().find(|refused| refused.kind == kind)
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("text");
        text
    }

    async fn until<T>(&self, what: &str, condition: impl Fn() -> Option<T>) -> T {
        let begin = tokio::time::Instant::now();
        loop {
            if let Some(found) = condition() {
                return found;
            }
            let seen = (self.clients.connected(), self.clients.lately_refused());
            assert!(begin.elapsed() < SOON, "{what}: not within {SOON:?}; seen: {seen:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.shutdown.request();
    }
}

fn enrol(authority: &Authority, dir: &Path, name: &str, id: u32) {
    let request = EnrolRequest {
        cluster: name.parse().expect("a name"),
        id: topology::ClusterId::try_from(id).expect("an id"),
        pod_cidrs: vec![format!("10.{id}.0.0/16").parse().expect("a block")],
        node_cidrs: Vec::new(),
        shared_node_cidrs: Vec::new(),
        service_cidrs: Vec::new(),
        hub_addresses: Vec::new(),
    };
    let key = PrivateKey::generate(KeyKind::P256).expect("a key");
    let signing = SigningRequest::from_pem(&key.request().expect("a request")).expect("a request");
    let enrolled = authority.enroll(&request, &signing).expect("enrolled");
    pki::durable::private_dir(dir).expect("a folder");
    key.write(&dir.join("passport.key")).expect("written");
    ClusterAuthority::write_passport(dir, &enrolled.passport, &[enrolled.root]).expect("written");
}

async fn read(channel: &Channel) -> Result<RangeResponse, Status> {
    let request = RangeRequest { key: "cilium/.heartbeat".into(), ..RangeRequest::default() };
    let mut kv = KvClient::new(channel.clone());
    let answer = tokio::time::timeout(SOON, kv.range(request)).await.expect("an answer in time");
    answer.map(tonic::Response::into_inner)
}

async fn watch(channel: Channel) -> Watch {
    let create = WatchCreateRequest { key: "cilium/.heartbeat".into(), ..WatchCreateRequest::default() };
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let requests = tokio_stream::once(create).chain(tokio_stream::pending());
    let mut watch = WatchClient::new(channel).watch(requests).await.expect("a stream").into_inner();
    assert!(next(&mut watch).await.expect("no error").expect("an answer").created);
    watch
}

async fn next(watch: &mut Watch) -> Result<Option<WatchResponse>, Status> {
    tokio::time::timeout(SOON, watch.message()).await.expect("something of the watch in time")
}

const DAY: Duration = Duration::from_secs(86_400);
const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_peer_does_not_take_the_places_of_others() {
    let mesh = Mesh::new();
    let hub = mesh.hub(Caps { cluster: 4, own_node: 2, ..Caps::default() }).await;
    let dial = async |cluster: &str, role, node: &str| hub.dial(&mesh.leaf(cluster, role, node, DAY)).await;
    let mut held = Vec::new();
    for node in ["n1", "n1", "n1", "n2"] {
        let channel = dial("berlin", LeafRole::Remote, node).await;
        read(&channel).await.expect("there is a place");
        held.push(channel);
    }
    for (cluster, role, node, says) in [
        ("berlin", LeafRole::Remote, "n1", "cluster berlin may have 4"),
        ("berlin", LeafRole::Remote, "n3", "cluster berlin may have 4"),
        ("berlin", LeafRole::Hub, "n4", "cluster berlin may have 4"),
    ] {
        let status = read(&dial(cluster, role, node).await).await.expect_err("no place is left");
        let expected =
            format!("etcdserver: too many requests: too many connections: {says} at a time; close some");
        assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, expected.as_str()));
        let shown = hub.refused("too-many").expect("shown");
        assert!(shown.reason.contains(says) && shown.reason.contains("cluster berlin"), "{shown:?}");
    }
    assert!(hub.metrics().contains("connections_refused_total{reason=\"too-many\"} 3"), "{}", hub.metrics());

    // Everybody else goes on: another peer, agents, the administrator, and berlin itself on what it has.
    for (cluster, role) in
        [("tokyo", LeafRole::Remote), ("paris", LeafRole::Local), ("paris", LeafRole::Local)]
    {
        let channel = dial(cluster, role, "n1").await;
        read(&channel).await.expect("a place of its own");
        held.push(channel);
    }
    let status = read(&dial("paris", LeafRole::Local, "n1").await).await.expect_err("the node has two");
    assert!(status.message().contains("own node n1 may have 2"), "{status:?}");
    for _ in 0..6 {
        let channel = dial("paris", LeafRole::Admin, "n1").await;
        read(&channel).await.expect("administrators are not counted");
        held.push(channel);
    }
    read(&held[0]).await.expect("a connection that was there");

    // A place that is given up is free.
    drop(held.remove(0));
    let begin = tokio::time::Instant::now();
    loop {
        match read(&dial("berlin", LeafRole::Remote, "n1").await).await {
            Ok(_) => break,
            Err(status) => assert!(begin.elapsed() < SOON, "{status:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_clients_have_places_of_their_own() {
    let mesh = Mesh::new();
    let hub = mesh.hub(Caps { refused: 3, ..Caps::default() }).await;
    let good = hub.dial(&mesh.leaf("berlin", LeafRole::Remote, "n1", DAY)).await;
    let mut held = Vec::new();
    for n in 0..3 {
        let hostile = mesh.leaf("berlin", LeafRole::Admin, &format!("n{n}"), DAY);
        let channel = hub.dial(&hostile).await;
        let status = read(&channel).await.expect_err("another cluster's administrator");
        assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
        held.push(channel);
    }
    // Those beyond are closed without a word, and counted.
    let hostile = mesh.leaf("berlin", LeafRole::Admin, "n9", DAY);
    let credentials = LiveCredentials::fixed(Credentials::load(&hostile).expect("credentials"));
    let connector = Connector::new(credentials, Expected::Unattested);
    let tcp = TcpStream::connect(hub.address).await.expect("a connection");
    let (mut tls, _) = connector.connect("paris.mesh.cilium.io", tcp).await.expect("a handshake");
    let mut bytes = Vec::new();
    let closed = tokio::io::AsyncReadExt::read_to_end(&mut tls, &mut bytes);
    let closed = tokio::time::timeout(SOON, closed).await.expect("it is closed");
    assert!(bytes.is_empty(), "{closed:?} {bytes:?}");
    hub.until("counted", || hub.metrics().contains("connections_turned_away_total 1").then_some(())).await;
    read(&good).await.expect("a good client");
    // One reason, said four times, is one entry.
    let shown: Vec<Refused> = hub.clients.lately_refused();
    assert_eq!((shown.len(), shown[0].count), (1, 4), "{shown:#?}");
    // Each is told for five seconds.
    hub.until("they are closed", || (hub.clients.connected().len() == 1).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_ends_with_its_certificate() {
    let mesh = Mesh::new();
    let hub = mesh.hub(Caps::default()).await;
    let long = hub.dial(&mesh.leaf("berlin", LeafRole::Remote, "n1", DAY)).await;
    let short = hub.dial(&mesh.leaf("berlin", LeafRole::Remote, "n2", Duration::from_secs(6))).await;
    let (mut stays, mut ends) = (watch(long).await, watch(short.clone()).await);
    hub.store.put("cilium/.heartbeat", "then").expect("memory");
    for watch in [&mut stays, &mut ends] {
        assert_eq!(next(watch).await.expect("no error").expect("an event").events.len(), 1);
    }
    let after = next(&mut ends).await;
    assert!(!matches!(after, Ok(Some(_))), "the watch has ended: {after:?}");
    let shown = hub.refused("expired").expect("shown");
    assert!(shown.reason.contains("CN=remote-berlin") && shown.reason.contains("has ended"), "{shown:?}");
    read(&short).await.expect_err("the connection is closed");
    hub.store.put("cilium/.heartbeat", "later").expect("memory");
    assert_eq!(next(&mut stays).await.expect("no error").expect("an event").events.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_ends_when_its_root_is_removed() {
    let mesh = Mesh::new();
    let mut hub = mesh.hub(Caps::default()).await;
    let reloader = tokio::spawn(hub.reloader.take().expect("the reloader").run());
    let berlin = hub.dial(&mesh.leaf("berlin", LeafRole::Remote, "n1", DAY)).await;
    let tokyo = hub.dial(&mesh.leaf("tokyo", LeafRole::Remote, "n1", DAY)).await;
    let (mut stays, mut ends) = (watch(berlin).await, watch(tokyo).await);
    mesh.accepts(&hub.dir, &["first"]);
    let after = next(&mut ends).await;
    assert!(!matches!(after, Ok(Some(_))), "the watch has ended: {after:?}");
    let shown = hub.refused("root-removed").expect("shown");
    assert!(shown.reason.contains("CN=remote-tokyo"), "{shown:?}");
    hub.store.put("cilium/.heartbeat", "later").expect("memory");
    assert_eq!(next(&mut stays).await.expect("no error").expect("an event").events.len(), 1);
    assert_eq!(hub.clients.lately_refused().len(), 1, "nobody else: {:#?}", hub.clients.lately_refused());
    reloader.abort();
}

/// Whoever replaces a stolen passport is rid of its holder at once, however long the stolen one lasts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_administrator_ends_with_the_passport_and_an_agent_stays() {
    let mesh = Mesh::new();
    let mut hub = mesh.hub(Caps::default()).await;
    let reloader = tokio::spawn(hub.reloader.take().expect("the reloader").run());
    let agent = hub.dial(&mesh.leaf("paris", LeafRole::Local, "n1", DAY)).await;
    let thief = hub.dial(&mesh.leaf("paris", LeafRole::Admin, "n1", DAY)).await;
    let (mut stays, mut ends) = (watch(agent).await, watch(thief).await);
    std::fs::remove_dir_all(mesh.path("paris")).expect("removed");
    enrol(&Authority::open(&mesh.path("first")).expect("the authority"), &mesh.path("paris"), "paris", 1);
    mesh.leaf("paris", LeafRole::Hub, "n1", DAY);
    let after = next(&mut ends).await;
    assert!(!matches!(after, Ok(Some(_))), "the watch has ended: {after:?}");
    let shown = hub.refused("root-removed").expect("shown");
    assert!(shown.reason.contains("CN=admin-paris"), "{shown:?}");
    hub.store.put("cilium/.heartbeat", "later").expect("memory");
    assert_eq!(next(&mut stays).await.expect("no error").expect("an event").events.len(), 1);
    reloader.abort();
}
