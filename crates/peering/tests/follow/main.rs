//! Following a hub in one process: a real store behind the real API, over real mutual TLS on loopback.

mod terms;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kvstore::{KeyRange, Store, StoreOptions};
use mesh_apiserver::etcd_api::{Calls, Grants, Limits, serve};
use peering::config::HubConfig;
use peering::follow::{Relation, Subject, follow, unknown};
use peering::ids::Ids;
use peering::view::{Link, View};
use pki::authority::EnrolRequest;
use pki::key::{KeyKind, PrivateKey, SigningRequest};
use pki::server::Acceptor;
use pki::{Authority, ClusterAuthority, Credentials, LeafRole, LeafSpec, LiveCredentials};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use topology::cluster::{ClusterId, MaxClusters};
use topology::record::config::ClusterConfig;
use topology::record::key::{self, Kind};

/// Two enrolled clusters with their certificates: paris follows, tokyo is followed.
struct Mesh {
    dir: tempfile::TempDir,
}

/// A hub of tokyo: a store that is served until it is stopped.
struct Hub {
    store: Store,
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

/// Somebody in paris who follows a hub.
struct Follower {
    view: watch::Receiver<View>,
    task: JoinHandle<()>,
}

impl Mesh {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let domain = "mesh.example".parse().expect("a trust domain");
        let authority =
            Authority::init(&dir.path().join("authority"), domain, KeyKind::P256).expect("an authority");
        for (id, name) in [(1, "paris"), (2, "tokyo"), (3, "osaka")] {
            enrol(&authority, dir.path().join(name), name, id);
        }
        Self { dir }
    }

    fn leaf(&self, cluster: &str, role: LeafRole) -> PathBuf {
        self.dir.path().join(cluster).join(role.as_str())
    }

    /// Serves `store` as the hub of `cluster`, on a port that is free or was the hub's before.
    async fn serve(&self, cluster: &str, store: Store, port: u16) -> Hub {
        let credentials = Credentials::load(&self.leaf(cluster, LeafRole::Hub)).expect("credentials");
        let acceptor = Acceptor::new(LiveCredentials::fixed(credentials));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let grants = Arc::new(Grants::remote(cluster));
        let routes = Calls::new(store.clone(), Limits::default());
        let accepting = tokio::spawn(async move {
            // Connections end with the task that holds them.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, routes, grants) = (acceptor.clone(), routes.clone(), grants.clone());
                connections.spawn(async move {
                    let Ok((tls, _)) = acceptor.accept(tcp).await else { return };
                    // How a client ends its connection is not what is tested.
                    let _ended = serve(tls, routes, grants, Limits::default()).await;
                });
            }
        });
        Hub { store, address, accepting }
    }

    fn follow(&self, hub: &Hub, ids: &Ids) -> Follower {
        let config = self.config(hub);
        let cluster = "tokyo".parse().expect("a name");
        let (sender, view) = watch::channel(unknown(&cluster));
        let subject = Subject {
            cluster,
            relation: Relation::Peer,
            max: MaxClusters::N255,
            ids: ids.clone(),
            changed: Arc::new(Notify::new()),
        };
        Follower { view, task: tokio::spawn(follow(subject, config, sender)) }
    }

    /// How paris reaches a hub.
    fn config(&self, hub: &Hub) -> HubConfig {
        let leaf = self.leaf("paris", LeafRole::Remote);
        let file = self.dir.path().join("tokyo.yaml");
        let text = format!(
            "endpoints: [\"https://tokyo.mesh.cilium.io:{}\"]\ntrusted-ca-file: {dir}/ca.crt\ncert-file: {dir}/tls.crt\nkey-file: {dir}/tls.key\ncilium-host-aliases: [{{hostname: tokyo.mesh.cilium.io, ips: [127.0.0.1]}}]\n",
            hub.address.port(),
            dir = leaf.display()
        );
        std::fs::write(&file, text).expect("write");
        HubConfig::load(&file).expect("readable").expect("a configuration")
    }
}

impl Hub {
    /// Closes the port and every connection; the store stays.
    async fn stop(self) -> (Store, u16) {
        self.accepting.abort();
        let ended = self.accepting.await;
        assert!(ended.is_err_and(|e| e.is_cancelled()), "the listener was stopped by us");
        (self.store, self.address.port())
    }
}

impl Follower {
    /// Waits until the view is so. Fails, with what was seen last, if it never is.
    async fn until(&mut self, what: &str, is_so: impl Fn(&View) -> bool) -> View {
        let waited = timeout(Duration::from_secs(20), self.view.wait_for(|view| is_so(view))).await;
        let seen = waited.map(|view| view.expect("the follower lives").clone());
        seen.unwrap_or_else(|_elapsed| panic!("{what}: never; last seen {:#?}", *self.view.borrow()))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn enrol(authority: &Authority, dir: PathBuf, name: &str, id: u32) {
    let request = EnrolRequest {
        cluster: name.parse().expect("a name"),
        id: ClusterId::try_from(id).expect("an id"),
        pod_cidrs: vec![format!("10.{id}.0.0/16").parse().expect("a block")],
        node_cidrs: Vec::new(),
        shared_node_cidrs: Vec::new(),
        service_cidrs: Vec::new(),
        hub_addresses: Vec::new(),
    };
    let key = PrivateKey::generate(KeyKind::P256).expect("a key");
    let signing = SigningRequest::from_pem(&key.request().expect("a request")).expect("a request");
    let enrolled = authority.enroll(&request, &signing).expect("enrolled");
    pki::durable::private_dir(&dir).expect("a folder");
    key.write(&dir.join("passport.key")).expect("write");
    ClusterAuthority::write_passport(&dir, &enrolled.passport, &[enrolled.root]).expect("write");
    let cluster = ClusterAuthority::open(&dir).expect("a passport");
    for role in [LeafRole::Hub, LeafRole::Remote] {
        let key = PrivateKey::generate(KeyKind::P256).expect("a key");
        let request = SigningRequest::from_pem(&key.request().expect("a request")).expect("a request");
        let leaf = cluster
            .issue_leaf(&LeafSpec::new(role, "n1".parse().expect("a node")), &request)
            .expect("a leaf");
        pki::durable::private_dir(&dir.join(role.as_str())).expect("a folder");
        leaf.write(&dir.join(role.as_str()), Some(&key)).expect("write");
    }
}

/// A store with what every hub of tokyo publishes, and services of these names; without canaries.
fn store(services: &[&str]) -> Store {
    let store = Store::in_memory(StoreOptions::default());
    let id = ClusterId::try_from(2).expect("an id");
    put(&store, key::HEARTBEAT, "now");
    let config = ClusterConfig::of_hub(id, MaxClusters::N255).encode();
    put(&store, "cilium/cluster-config/tokyo", &String::from_utf8(config).expect("text"));
    for name in services {
        put_service(&store, name);
    }
    store
}

fn put(store: &Store, key: &str, value: &str) {
    store.put(key.to_owned(), value.to_owned()).expect("memory");
}

fn put_service(store: &Store, name: &str) {
    let value = format!(
        r#"{{"cluster":"tokyo","namespace":"shop","name":"{name}","frontends":{{}},"backends":{{}},"labels":{{}},"selector":{{}},"includeExternal":true,"shared":true,"clusterID":2}}"#
    );
    put(store, &format!("cilium/state/services/v1/tokyo/shop/{name}"), &value);
}

fn delete_service(store: &Store, name: &str) {
    let key = format!("cilium/state/services/v1/tokyo/shop/{name}");
    store.delete(&KeyRange::key(key)).expect("memory");
}

fn announce(store: &Store) {
    for kind in Kind::ALL {
        put(store, &kind.canary(&"tokyo".parse().expect("a name")), "now");
    }
}

fn ids() -> Ids {
    let ids = Ids::new("paris".parse().expect("a name"));
    ids.take(&"paris".parse().expect("a name"), ClusterId::try_from(1).expect("an id")).expect("free");
    ids
}

fn services(view: &View) -> Vec<&str> {
    view.member.services.keys().map(|name| name.name()).collect()
}

#[tokio::test]
async fn nothing_is_taken_for_complete_before_its_canary() {
    let mesh = Mesh::new();
    let hub = mesh.serve("tokyo", store(&["a"]), 0).await;
    let mut follower = mesh.follow(&hub, &ids());
    let view = follower.until("connected", |view| matches!(view.link, Link::Syncing)).await;
    assert_eq!(services(&view), Vec::<&str>::new());
    put_service(&hub.store, "b");
    announce(&hub.store);
    let view = follower.until("everything is known", |view| matches!(view.link, Link::Fresh)).await;
    assert_eq!(services(&view), ["a", "b"]);
    delete_service(&hub.store, "a");
    follower.until("a is gone", |view| services(view) == ["b"]).await;
}

#[tokio::test]
async fn a_hub_that_was_away_is_resumed_and_what_it_deleted_is_gone() {
    let mesh = Mesh::new();
    let records = store(&["a", "b"]);
    announce(&records);
    let hub = mesh.serve("tokyo", records, 0).await;
    let mut follower = mesh.follow(&hub, &ids());
    follower.until("everything is known", |view| matches!(view.link, Link::Fresh)).await;
    let (store, port) = hub.stop().await;
    let view = follower.until("the loss is seen", |view| matches!(view.link, Link::Stale { .. })).await;
    assert_eq!(services(&view), ["a", "b"], "a lost connection changes nothing");
    delete_service(&store, "a");
    put_service(&store, "c");
    let _hub = mesh.serve("tokyo", store, port).await;
    let caught_up = |view: &View| matches!(view.link, Link::Fresh) && services(view) == ["b", "c"];
    follower.until("what happened meanwhile is known", caught_up).await;
}

#[tokio::test]
async fn a_hub_with_another_store_is_listed_anew_and_never_empties_the_view_on_the_way() {
    let mesh = Mesh::new();
    let records = store(&["a", "b"]);
    announce(&records);
    let hub = mesh.serve("tokyo", records, 0).await;
    let mut follower = mesh.follow(&hub, &ids());
    follower.until("everything is known", |view| matches!(view.link, Link::Fresh)).await;
    let (_, port) = hub.stop().await;
    follower.until("the loss is seen", |view| matches!(view.link, Link::Stale { .. })).await;

    // The new store has more revisions than the old one had, so that a resume by number alone would succeed.
    let records = store(&["b"]);
    for _ in 0..50 {
        put(&records, key::HEARTBEAT, "later");
    }
    let hub = mesh.serve("tokyo", records, port).await;
    // Connected, but the new hub has not announced anything: what was known stays.
    let view = follower.until("connected again", |view| matches!(view.link, Link::Syncing)).await;
    assert_eq!(services(&view), ["a", "b"]);
    announce(&hub.store);
    follower.until("the new list counts", |view| services(view) == ["b"]).await;
}

#[tokio::test]
async fn somebody_elses_hub_is_refused_by_name() {
    let mesh = Mesh::new();
    let hub = mesh.serve("osaka", store(&["a"]), 0).await;
    let mut follower = mesh.follow(&hub, &ids());
    let view = follower.until("refused", |view| matches!(view.link, Link::Refused(_))).await;
    let reason = view.link.reason().unwrap_or_default().to_owned();
    assert!(reason.contains("osaka") && reason.contains("tokyo"), "{reason}");
    assert_eq!(services(&view), Vec::<&str>::new());
}

#[tokio::test]
async fn a_peer_with_an_id_that_is_taken_is_refused_until_it_is_free() {
    let mesh = Mesh::new();
    let records = store(&["a"]);
    announce(&records);
    let hub = mesh.serve("tokyo", records, 0).await;
    let ids = ids();
    let osaka = "osaka".parse().expect("a name");
    ids.take(&osaka, ClusterId::try_from(2).expect("an id")).expect("free");
    let mut follower = mesh.follow(&hub, &ids);
    let view = follower.until("refused", |view| matches!(view.link, Link::Refused(_))).await;
    assert!(view.link.reason().is_some_and(|r| r.contains("which is osaka's")), "{:?}", view.link);
    ids.keep(|name| *name != osaka);
    follower.until("everything is known", |view| matches!(view.link, Link::Fresh)).await;
}
