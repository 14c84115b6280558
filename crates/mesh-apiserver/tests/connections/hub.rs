//! A hub behind real mutual TLS on loopback, and clients of three clusters under two roots.

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
use tonic::{Status, Streaming};

/// Two roots. Under the first: paris, whose hub is served, and berlin. Under the second: tokyo.
pub(crate) struct Mesh {
    dir: tempfile::TempDir,
}

pub(crate) struct Hub {
    pub(crate) address: SocketAddr,
    pub(crate) store: Store,
    pub(crate) clients: Clients,
    pub(crate) registry: Registry,
    pub(crate) shutdown: Shutdown,
    pub(crate) dir: PathBuf,
    pub(crate) reloader: Option<Reloader>,
}

pub(crate) type Watch = Streaming<WatchResponse>;

impl Mesh {
    pub(crate) fn new() -> Self {
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

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A new leaf, whose holder accepts both roots.
    pub(crate) fn leaf(&self, cluster: &str, role: LeafRole, node: &str, life: Duration) -> PathBuf {
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
    pub(crate) async fn hub(&self, caps: Caps) -> Hub {
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
    pub(crate) fn accepts(&self, dir: &Path, roots: &[&str]) {
        let root = |name: &&str| std::fs::read_to_string(self.path(name).join("root.crt")).expect("a root");
        let staged = dir.join(".ca.crt");
        std::fs::write(&staged, roots.iter().map(root).collect::<String>()).expect("written");
        std::fs::rename(&staged, dir.join("ca.crt")).expect("renamed");
    }
}

impl Hub {
    pub(crate) async fn dial(&self, leaf: &Path) -> Channel {
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

    pub(crate) fn refused(&self, kind: &str) -> Option<Refused> {
        self.clients.lately_refused().into_iter().find(|refused| refused.kind == kind)
    }

    pub(crate) fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("text");
        text
    }

    pub(crate) async fn until<T>(&self, what: &str, condition: impl Fn() -> Option<T>) -> T {
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

pub(crate) fn enrol(authority: &Authority, dir: &Path, name: &str, id: u32) {
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

pub(crate) async fn read(channel: &Channel) -> Result<RangeResponse, Status> {
    let request = RangeRequest { key: "cilium/.heartbeat".into(), ..RangeRequest::default() };
    let mut kv = KvClient::new(channel.clone());
    let answer = tokio::time::timeout(SOON, kv.range(request)).await.expect("an answer in time");
    answer.map(tonic::Response::into_inner)
}

pub(crate) async fn watch(channel: Channel) -> Watch {
    let create = WatchCreateRequest { key: "cilium/.heartbeat".into(), ..WatchCreateRequest::default() };
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let requests = tokio_stream::once(create).chain(tokio_stream::pending());
    let mut watch = WatchClient::new(channel).watch(requests).await.expect("a stream").into_inner();
    assert!(next(&mut watch).await.expect("no error").expect("an answer").created);
    watch
}

pub(crate) async fn next(watch: &mut Watch) -> Result<Option<WatchResponse>, Status> {
    tokio::time::timeout(SOON, watch.message()).await.expect("something of the watch in time")
}

pub(crate) const DAY: Duration = Duration::from_secs(86_400);
pub(crate) const SOON: Duration = Duration::from_secs(30);
