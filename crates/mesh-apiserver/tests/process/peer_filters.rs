//! Export filters of a real hub: one filtered peer and one that is not, a filter that changes while it runs and while it
//! does not, and files that are no filters.

use super::*;

const HIDES_ALL: &str = "peers:\n  tokyo:\n    namespaces: {exclude: ['*']}\n";
const SHOWS_SHOP: &str = "peers:\n  tokyo:\n    namespaces: {include: [shop]}\n";
const SHOWS_CARTS: &str = "peers:\n  tokyo:\n    services: {include: ['shop/cart']}\n";
const CART: &str = "cilium/state/services/v1/north/shop/cart";

/// `etcdctl watch`, its output in a file. It is killed when dropped.
struct Watch {
    child: Child,
    output: PathBuf,
}

impl Watch {
    fn output(&self) -> String {
        // Endpoint slices are no text.
        String::from_utf8_lossy(&std::fs::read(&self.output).unwrap_or_default()).into_owned()
    }

    fn was_compacted(&self) -> bool {
        self.output().contains("required revision has been compacted")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop((self.child.kill(), self.child.wait()));
    }
}

impl World {
    /// A hub of north with a file of filters, and a peer tokyo.
    fn filtering(filters: &str) -> Self {
        let mut world = Self::new("north", 9);
        world.enroll("tokyo", 7, "127.0.0.7", "tokyo-cluster");
        world.leaf("tokyo-cluster", LeafRole::Remote, "tokyo");
        std::fs::create_dir(world.path("filters")).expect("a folder");
        world.filters(filters);
        let file = world.path("filters/peers.yaml").display().to_string();
        world.arguments = vec!["--peer-filters".to_owned(), file];
        world
    }

    fn filters(&self, text: &str) {
        std::fs::write(self.path("filters/.tmp"), text).expect("write");
        std::fs::rename(self.path("filters/.tmp"), self.path("filters/peers.yaml")).expect("rename");
    }

    /// The keys that a peer is shown, and the revision.
    fn keys(&self, hub: &Hub, role: &str) -> (Vec<String>, u64) {
        let arguments = ["get", "--prefix", "cilium/state/", "--keys-only", "-w", "json"];
        let (ok, text) = self.etcdctl(hub, role, &arguments);
        assert!(ok, "{role}: {text}");
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        let keys = answer["kvs"].as_array().cloned().unwrap_or_default();
        assert_eq!(
            answer["count"].as_u64().unwrap_or(0),
            keys.len() as u64,
            "the count is that of what is shown"
        );
        let decode = |kv: &Value| {
            let bytes = base64::Engine::decode(
                &base64::engine::general_purpose::STANDARD,
                kv["key"].as_str().expect("a key"),
            );
            String::from_utf8(bytes.expect("base64")).expect("a key")
        };
        (keys.iter().map(decode).collect(), answer["header"]["revision"].as_u64().expect("a revision"))
    }

    fn watch(&self, hub: &Hub, role: &str, revision: u64) -> Watch {
        let output = self.path(&format!("{role}-{revision}.watch"));
        let file = File::create(&output).expect("a file");
        let mut command = self.etcdctl_command(hub, &self.path(role));
        command.args(["watch", "--prefix", "cilium/state/", "--rev", &revision.to_string()]);
        command.stdout(file.try_clone().expect("the same file")).stderr(file).stdin(Stdio::null());
        Watch { child: command.spawn().expect("etcdctl is installed (package etcd-client)"), output }
    }
}

/// The filter that the status page shows for a connected cluster.
fn shown(hub: &Hub, cluster: &str) -> Option<(Value, u64)> {
    let clients = hub.status()["clients"].as_array().cloned().unwrap_or_default();
    let client = clients.into_iter().find(|client| client["cluster"] == cluster)?;
    Some((client["exportFilter"]["filter"].clone(), client["exportFilter"]["since"].as_u64()?))
}

fn only_nodes(keys: &[String]) -> bool {
    !keys.is_empty() && keys.iter().all(|key| key.starts_with("cilium/state/nodes/"))
}

#[test]
fn a_change_of_a_filter_is_seen_at_once_and_disturbs_nobody_else() {
    let world = World::filtering(HIDES_ALL);
    let hub = world.start();
    let (tokyo, revision) = world.keys(&hub, "tokyo");
    assert!(only_nodes(&tokyo), "{tokyo:?}");
    let (all, _) = world.keys(&hub, "remote");
    assert!(all.iter().any(|key| key == CART), "{all:?}");
    let (ok, one) = world.etcdctl(&hub, "tokyo", &["get", CART]);
    assert!(ok && one.is_empty(), "{one}");

    let watch = world.watch(&hub, "tokyo", revision + 1);
    let other = world.watch(&hub, "remote", 2);
    let (filter, since) =
        hub.wait("both to be connected", |hub| shown(hub, "north").and_then(|_| shown(hub, "tokyo")));
    assert_eq!((&filter["namespaces"]["exclude"][0], since), (&Value::from("*"), 2), "{filter:#}");
    hub.wait("the other's events", |_| other.output().contains(CART).then_some(()));

    world.filters(SHOWS_SHOP);
    hub.wait("the end of the watch", |_| watch.was_compacted().then_some(()));
    let (tokyo, later) = world.keys(&hub, "tokyo");
    assert_eq!(tokyo, all, "all there is is in the namespace shop, or has none");
    // What follows comes, to both.
    let watch = world.watch(&hub, "tokyo", later + 1);
    world.manifest(
        "more.yaml",
        "{apiVersion: v1, kind: Service, metadata: {name: late, namespace: shop, annotations: \
                                 {service.cilium.io/global: 'true'}}, spec: {clusterIPs: [10.96.3.3]}}",
    );
    for watch in [&watch, &other] {
        hub.wait("the event", |_| watch.output().contains("services/v1/north/shop/late").then_some(()));
        assert!(!watch.was_compacted(), "{}", watch.output());
    }

    // A file that is no filter changes nothing and is shown.
    world.filters("peers:\n  tokyo:\n    namespace: {include: [shop]}\n");
    let finding = hub.wait("the finding", |hub| {
        let findings = hub.status()["findings"].as_array().cloned().unwrap_or_default();
        findings.into_iter().find(|finding| finding["reason"] == "peer-filters-invalid")
    });
    assert!(finding["found"].as_str().is_some_and(|found| found.contains("line 3")), "{finding:#}");
    assert!(
        hub.page("/metrics").contains("mesh_apiserver_peer_filters_broken 1"),
        "{}",
        hub.page("/metrics")
    );
    assert!(world.keys(&hub, "tokyo").0.iter().any(|key| key == CART));
    world.filters(SHOWS_SHOP);
    hub.wait("no finding", |hub| (hub.status()["findings"].as_array()?.is_empty()).then_some(()));
    assert!(!watch.was_compacted() && !other.was_compacted(), "the filter is the one that it was");
}

#[test]
fn a_filter_that_changed_while_the_hub_was_down_makes_its_peer_list_again() {
    let world = World::filtering(SHOWS_SHOP);
    let mut hub = world.start();
    let (_, revision) = world.keys(&hub, "tokyo");
    hub.child.kill().expect("SIGKILL");
    hub.child.wait().expect("it is gone");
    world.filters(SHOWS_CARTS);
    let mut hub = world.start();
    let tokyo = world.watch(&hub, "tokyo", revision + 1);
    hub.wait("the end of the watch", |_| tokyo.was_compacted().then_some(()));
    let other = world.watch(&hub, "remote", 2);
    hub.wait("the other's events", |_| other.output().contains(CART).then_some(()));

    // The same filter after another restart: tokyo resumes. Without the file it is not filtered, which is a change.
    let (_, revision) = world.keys(&hub, "tokyo");
    hub.child.kill().expect("SIGKILL");
    hub.child.wait().expect("it is gone");
    let mut hub = world.start();
    let tokyo = world.watch(&hub, "tokyo", revision + 1);
    let changed =
        include_str!("../golden/north.yaml").replace("clusterIP: 10.96.252.194", "clusterIP: 10.96.252.195");
    world.manifest("north.yaml", &changed.replace("[10.96.252.194]", "[10.96.252.195]"));
    hub.wait("the event", |_| tokyo.output().contains("10.96.252.195").then_some(()));
    assert!(!tokyo.was_compacted(), "{}", tokyo.output());
    drop(tokyo);
    hub.child.kill().expect("SIGKILL");
    hub.child.wait().expect("it is gone");
    let world = World { arguments: Vec::new(), ..world };
    let hub = world.start();
    let tokyo = world.watch(&hub, "tokyo", revision + 1);
    hub.wait("the end of the watch", |_| tokyo.was_compacted().then_some(()));
    assert_eq!(world.keys(&hub, "tokyo").0, world.keys(&hub, "remote").0);
}

#[test]
fn a_hub_does_not_start_with_a_file_that_is_no_filter() {
    for (text, said) in [
        ("peers:\n  tokyo:\n    namespace: {include: [shop]}\n", "line 3"),
        ("peers:\n  tokyo:\n    services: {include: [shop]}\n", "<namespace>/<name>"),
        ("", "it is empty"),
    ] {
        let world = World::filtering(text);
        let output = world.command("north", 9).stderr(Stdio::piped()).output().expect("it starts");
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && log.contains(said) && log.contains("peers.yaml"), "{log}");
        assert!(!world.path("data").exists(), "a store was made all the same");
    }
}
