//! The real process, over real mutual TLS on loopback, asked by Debian's `etcdctl` (package etcd-client).

#[path = "process/floods.rs"]
mod floods;
#[path = "process/full_disk.rs"]
mod full_disk;
#[path = "process/peer_filters.rs"]
mod peer_filters;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use pki::authority::EnrolRequest;
use pki::key::{KeyKind, PrivateKey, SigningRequest};
use pki::{Authority, ClusterAuthority, LeafRole, LeafSpec};
use serde_json::Value;

/// A mesh authority with one cluster, its certificates, and room for a hub.
struct World {
    dir: tempfile::TempDir,
    /// What the hub is started with beside what it must be.
    arguments: Vec<String>,
}

/// A running hub. It is killed when dropped.
struct Hub {
    child: Child,
    api: SocketAddr,
    admin: SocketAddr,
    log: PathBuf,
}

impl World {
    fn new(cluster: &str, id: u32) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| dir.path().join(name);
        let domain = "mesh.example".parse().expect("a trust domain");
        Authority::init(&path("authority"), domain, KeyKind::P256).expect("an authority");
        let world = Self { dir, arguments: Vec::new() };
        world.enroll(cluster, id, "127.0.0.1", "cluster");
        for role in LeafRole::ALL {
            world.leaf("cluster", role, role.as_str());
        }
        std::fs::create_dir(world.path("manifests")).expect("a folder");
        world.manifest("north.yaml", include_str!("golden/north.yaml"));
        world
    }

    /// Makes a cluster of the mesh, whose hub may have this address, its authority in `folder`.
    fn enroll(&self, cluster: &str, id: u32, hub: &str, folder: &str) {
        let authority = Authority::open(&self.path("authority")).expect("an authority");
        let request = EnrolRequest {
            cluster: cluster.parse().expect("a name"),
            id: topology::ClusterId::try_from(id).expect("an id"),
            pod_cidrs: vec![format!("10.{id}.0.0/16").parse().expect("a block")],
            node_cidrs: vec![format!("172.30.{id}.0/24").parse().expect("a block")],
            shared_node_cidrs: Vec::new(),
            service_cidrs: vec!["10.96.0.0/16".parse().expect("a block")],
            hub_addresses: vec![hub.parse().expect("an address")],
        };
        let key = PrivateKey::generate(KeyKind::P256).expect("a key");
        let signing = SigningRequest::from_pem(&key.request().expect("a request")).expect("a request");
        let enrolled = authority.enroll(&request, &signing).expect("enrolled");
        pki::durable::private_dir(&self.path(folder)).expect("a folder");
        key.write(&self.path(folder).join("passport.key")).expect("write");
        ClusterAuthority::write_passport(&self.path(folder), &enrolled.passport, &[enrolled.root])
            .expect("write");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes a leaf under the authority in `folder`.
    fn leaf(&self, folder: &str, role: LeafRole, name: &str) {
        let cluster = ClusterAuthority::open(&self.path(folder)).expect("the cluster's authority");
        let mut spec = LeafSpec::new(role, "n1".parse().expect("a node"));
        if role == LeafRole::Hub {
            spec.addresses.push("127.0.0.1".parse().expect("an address"));
        }
        let key = PrivateKey::generate(KeyKind::P256).expect("a key");
        let signing = SigningRequest::from_pem(&key.request().expect("a request")).expect("a request");
        let leaf = cluster.issue_leaf(&spec, &signing).expect("a leaf");
        leaf.write(&self.path(name), Some(&key)).expect("write");
    }

    fn manifest(&self, file: &str, text: &str) {
        std::fs::write(self.path(".tmp"), text).expect("write");
        std::fs::rename(self.path(".tmp"), self.path("manifests").join(file)).expect("rename");
    }

    fn command(&self, cluster: &str, id: u32) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-apiserver"));
        let source = format!("manifests:{}", self.path("manifests").display());
        command.args(["--cluster-name", cluster, "--cluster-id", &id.to_string(), "--source", &source]);
        command.arg("--data-dir").arg(self.path("data")).arg("--tls-dir").arg(self.path("hub"));
        command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-format", "json"]);
        command.args(&self.arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn start(&self) -> Hub {
        let log = self.path("hub.log");
        let child =
            self.command("north", 9).stderr(File::create(&log).expect("a log")).spawn().expect("it starts");
        let none = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut hub = Hub { child, api: none, admin: none, log };
        let started = hub.wait("the ports in its log", |hub| {
            let lines = hub.log();
            let line = lines.lines().find(|line| line.contains("hub started")).map(str::to_owned);
            line.and_then(|line| serde_json::from_str::<Value>(&line).ok())
        });
        let address =
            |member: &str| started[member].as_str().and_then(|text| text.parse().ok()).expect("an address");
        (hub.api, hub.admin) = (address("hub"), address("admin"));
        hub.wait("it to be ready", |hub| hub.page("/readyz").contains("200 OK").then_some(()));
        hub
    }

    /// What etcdctl says with the certificate of a role: whether it succeeded, and its output.
    fn etcdctl(&self, hub: &Hub, role: &str, arguments: &[&str]) -> (bool, String) {
        self.etcdctl_with(hub, &self.path(role), arguments)
    }

    /// What etcdctl prints that reads its question from its input.
    fn etcdctl_asked(&self, hub: &Hub, arguments: &[&str], question: &str) -> String {
        let mut command = self.etcdctl_command(hub, &self.path("admin"));
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("etcdctl is installed (package etcd-client)");
        child.stdin.take().expect("piped").write_all(question.as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "etcdctl {arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    fn etcdctl_with(&self, hub: &Hub, certificate: &Path, arguments: &[&str]) -> (bool, String) {
        let mut command = self.etcdctl_command(hub, certificate);
        let output = command.args(arguments).output().expect("etcdctl is installed (package etcd-client)");
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    fn etcdctl_command(&self, hub: &Hub, certificate: &Path) -> Command {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--command-timeout", "5s", "--dial-timeout", "5s"]);
        command.arg(format!("--endpoints=https://{}", hub.api)).arg("--cacert").arg(self.path("hub/ca.crt"));
        command.arg("--cert").arg(certificate.join("tls.crt")).arg("--key").arg(certificate.join("tls.key"));
        command
    }
}

impl Hub {
    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn page(&self, path: &str) -> String {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(self.admin)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().unwrap_or_default()
    }

    fn status(&self) -> Value {
        let page = self.page("/status");
        let body = page.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
        serde_json::from_str(body).unwrap_or_default()
    }

    fn wait<T>(&self, what: &str, condition: impl Fn(&Self) -> Option<T>) -> T {
        let deadline = SystemTime::now() + Duration::from_secs(20);
        loop {
            if let Some(found) = condition(self) {
                return found;
            }
            let late = SystemTime::now() > deadline;
            assert!(!late, "waited for {what}; status: {:#}\nlog:\n{}", self.status(), self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop((self.child.kill(), self.child.wait()));
    }
}

#[test]
fn a_client_reads_what_its_role_may() {
    let world = World::new("north", 9);
    let hub = world.start();
    let (ok, keys) = world.etcdctl(&hub, "admin", &["get", "--prefix", "cilium/", "--keys-only"]);
    assert!(ok, "{keys}");
    for line in include_str!("golden/apiserver-north.jsonl").lines() {
        let recorded: Value = serde_json::from_str(line).expect("JSON");
        let key = recorded["key"].as_str().expect("a key");
        // MCS-API is off, so there is no export.
        assert!(
            key.contains("/serviceexports/v1/north/") || keys.lines().any(|line| line == key),
            "no {key} in\n{keys}"
        );
    }
    let (ok, state) = world.etcdctl(&hub, "remote", &["get", "--prefix", "cilium/state/", "--keys-only"]);
    assert!(ok && state.contains("cilium/state/services/v1/north/shop/cart"), "{state}");
    let (ok, local) = world.etcdctl(&hub, "local", &["get", "--prefix", "isthmus/v1/local/"]);
    assert!(ok && local.contains(r#""name":"shop/cart""#), "{local}");
    for (role, arguments) in [
        ("remote", &["get", "--prefix", "isthmus/v1/local/"][..]),
        ("remote", &["get", "--prefix", "isthmus/v1/hub/"]),
        ("remote", &["put", "cilium/state/nodes/v1/north/n9", "forged"]),
        ("local", &["put", "cilium/state/nodes/v1/north/n9", "forged"]),
        ("local", &["get", "--prefix", "isthmus/v1/hub/"]),
    ] {
        let (ok, text) = world.etcdctl(&hub, role, arguments);
        assert!(!ok && text.contains("permission denied"), "{role} {arguments:?}: {text}");
    }
    let version = hub.status();
    assert_eq!(version["records"]["services/v1"], 1, "{version:#}");
    let metrics = hub.page("/metrics");
    assert!(metrics.contains("mesh_apiserver_connections_total{role=\"remote\"}"), "{metrics}");
}

/// etcdctl as an operator uses it, over TLS and with URLs.
#[test]
fn etcdctl_maintains_the_hub_over_tls() {
    let world = World::new("north", 9);
    let hub = world.start();
    let run = |arguments: &[&str]| {
        let (ok, text) = world.etcdctl(&hub, "admin", arguments);
        assert!(ok, "etcdctl {arguments:?}: {text}");
        text
    };
    assert!(run(&["endpoint", "health"]).contains("is healthy"));
    let members = run(&["member", "list"]);
    assert!(members.contains(", started, isthmus"), "{members}");
    assert_eq!(run(&["put", "test/a", "1"]), "OK\n");
    let txn =
        world.etcdctl_asked(&hub, &["txn"], "value(\"test/a\") = \"1\"\n\nput test/b 2\n\nput test/c 3\n\n");
    assert_eq!(txn, "SUCCESS\n\nOK\n");
    assert_eq!(run(&["get", "--prefix", "test/"]), "test/a\n1\ntest/b\n2\n");
    let granted = run(&["lease", "grant", "60"]);
    assert!(granted.contains("granted with TTL(60s)"), "{granted}");
    let status = run(&["endpoint", "status"]);
    assert!(status.contains("3.5.21"), "{status}");
}

#[test]
fn strangers_are_refused_and_named() {
    let world = World::new("north", 9);
    let stranger = World::new("rogue", 7);
    let hub = world.start();
    let (ok, text) = world.etcdctl_with(&hub, &stranger.path("remote"), &["get", "x"]);
    assert!(!ok, "{text}");
    let refused = hub
        .wait("the refusal", |hub| hub.status()["refused"].as_array().and_then(|list| list.first().cloned()));
    let reason = refused["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("CN=remote-rogue") && reason.contains("accepted root"), "{refused:#}");
    assert!(hub.log().contains("CN=remote-rogue"), "{}", hub.log());

    // No certificate at all: openssl completes TLS 1.3 on its side, and we close.
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-connect", &hub.api.to_string(), "-quiet"]).stdin(Stdio::null());
    let output = openssl.output().expect("openssl is installed");
    hub.wait("the refusal without a certificate", |hub| {
        let status = hub.status();
        let refused = status["refused"].as_array().cloned().unwrap_or_default();
        refused.iter().any(|refused| refused["kind"] == "no-certificate").then_some(())
    });
    assert!(!output.status.success() || !output.stderr.is_empty());
    // Others are served all the same.
    assert!(world.etcdctl(&hub, "remote", &["get", "--prefix", "cilium/state/"]).0);
}

#[test]
fn a_killed_hub_comes_back_with_its_revisions_and_numbers() {
    let world = World::new("north", 9);
    let mut hub = world.start();
    let header = |hub: &Hub| -> (Value, Value, Value) {
        let (ok, text) =
            world.etcdctl(hub, "admin", &["get", "cilium/state/identities/v1/id/589825", "-w", "json"]);
        assert!(ok, "{text}");
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        let revision = answer["kvs"][0]["mod_revision"].clone();
        (answer["header"]["cluster_id"].clone(), revision, answer["kvs"][0]["value"].clone())
    };
    let before = header(&hub);
    assert!(before.1.is_u64(), "{before:?}");
    hub.child.kill().expect("SIGKILL");
    hub.child.wait().expect("it is gone");
    let hub = world.start();
    assert_eq!(header(&hub), before);
}

#[test]
fn sigterm_ends_it_in_order() {
    let world = World::new("north", 9);
    let mut hub = world.start();
    let term = Command::new("kill").arg(hub.child.id().to_string()).status().expect("kill");
    assert!(term.success());
    hub.wait("the admin port to close", |hub| TcpStream::connect(hub.admin).is_err().then_some(()));
    let status = hub.child.wait().expect("it is gone");
    assert!(status.success(), "{status:?}\n{}", hub.log());
}

#[test]
fn another_clusters_certificate_is_said_at_the_start() {
    let world = World::new("north", 9);
    let output = world.command("paris", 1).stderr(Stdio::piped()).output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(text.contains("that of cluster north with id 9, expected cluster paris with id 1"), "{text}");
}

#[test]
fn another_clusters_certificate_later_changes_nothing() {
    let world = World::new("north", 9);
    let other = World::new("rogue", 7);
    let hub = world.start();
    for file in ["ca.crt", "tls.key", "tls.crt"] {
        std::fs::copy(other.path("hub").join(file), world.path("hub").join(file)).expect("copied");
    }
    let says = "that of cluster rogue with id 7, expected cluster north with id 9";
    hub.wait("the problem", |hub| {
        let status = hub.status();
        status["certificate"]["problem"].as_str().is_some_and(|text| text.contains(says)).then_some(())
    });
    assert!(hub.log().contains(says), "{}", hub.log());
    // The other cluster's administrator is nobody here; the own one goes on.
    let roots = |world: &World| world.path("admin/ca.crt");
    std::fs::copy(roots(&world), world.path("hub/ca.crt")).expect("copied");
    let (ok, text) = world.etcdctl_with(&hub, &other.path("admin"), &["get", "--prefix", "cilium/"]);
    assert!(!ok, "{text}");
    let (ok, text) = world.etcdctl(&hub, "admin", &["get", "--prefix", "cilium/state/"]);
    assert!(ok, "{text}");
}

#[test]
fn a_hub_that_cannot_start_leaves_nothing_behind() {
    let world = World::new("north", 9);
    std::fs::remove_dir_all(world.path("manifests")).expect("removed");
    let output = world.command("north", 9).stderr(Stdio::piped()).output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("read the folder of manifests"), "{text}");
    assert!(!world.path("data").exists(), "a store was made all the same");
}
