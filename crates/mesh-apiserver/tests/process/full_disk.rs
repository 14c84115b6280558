//! A hub whose disk is full: everybody is served and told of changes, what must be durable is refused, and all is there
//! once there is room. The test runs as a child of itself in a mount namespace of its own; needs root.

use std::process::Command;

use serde_json::Value;

use super::{Hub, World};

const INSIDE: &str = "MESH_APISERVER_TEST_MOUNTS";
const NAME: &str = "full_disk::everything_but_durable_writes_goes_on";

#[test]
fn everything_but_durable_writes_goes_on() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    let child = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--"])
        .arg(std::env::current_exe().expect("own path"))
        .args(["--exact", NAME, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("start unshare");
    let output =
        [child.stdout, child.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(child.status.success() && output.contains("1 passed"), "{}: {output}", child.status);
}

fn inside() {
    let world = World::new("north", 9);
    let data = world.path("data");
    std::fs::create_dir(&data).expect("a folder");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=24m,mode=700", "tmpfs"])
        .arg(&data)
        .status()
        .expect("start mount");
    assert!(mounted.success(), "mount: {mounted}");
    let hub = world.start();
    let store = hub.status()["store"]["clusterId"].clone();
    assert!(store.is_string(), "{:#}", hub.status());

    let filler = data.join("filler");
    assert!(std::fs::write(&filler, vec![1; 32 << 20]).is_err(), "the disk is not full");
    let refused = refused_put(&world, &hub);
    assert!(refused.contains("database space exceeded"), "{refused}");
    let failure = hub.status()["store"]["diskFailure"].clone();
    assert!(failure["reason"].is_string() && failure["since"].is_string(), "{failure}");
    assert!(hub.page("/metrics").contains("mesh_apiserver_store_disk_failed 1"), "{}", hub.page("/metrics"));

    // A pod of a known identity is published from memory; one of a new identity waits for the disk.
    world.manifest(
        "more.yaml",
        &format!("{}---\n{}", pod("cart-b", "cart", "10.9.0.6"), pod("new", "new", "10.9.0.7")),
    );
    hub.wait("the pod of a known identity", |hub| has_address(&world, hub, "10.9.0.6").then_some(()));
    assert!(!has_address(&world, &hub, "10.9.0.7"), "published with an identity that is not on disk");
    let new_identity = "k8s:app=new;";
    let (ok, identities) = world.etcdctl(&hub, "remote", &["get", "--prefix", "cilium/state/identities/v1/"]);
    assert!(ok && !identities.contains(new_identity), "{identities}");

    std::fs::remove_file(&filler).expect("make room");
    hub.wait("the disk to be back", |hub| hub.status()["store"]["diskFailure"].is_null().then_some(()));
    hub.wait("the pod of the new identity", |hub| has_address(&world, hub, "10.9.0.7").then_some(()));
    let (ok, text) = world.etcdctl(&hub, "admin", &["put", "test/after", "1"]);
    assert!(ok, "{text}");
    let (ok, before) = world.etcdctl(&hub, "remote", &["get", "--prefix", "cilium/state/"]);
    assert!(ok && before.contains(new_identity), "{before}");
    assert_eq!(hub.status()["store"]["clusterId"], store);

    // Killed: `Hub` sends SIGKILL.
    drop(hub);
    let hub = world.start();
    assert_eq!(hub.status()["store"]["clusterId"], store, "the files were whole");
    let (_, after) = world.etcdctl(&hub, "remote", &["get", "--prefix", "cilium/state/"]);
    assert_eq!(after, before);
    let (ok, text) = world.etcdctl(&hub, "admin", &["get", "test/after"]);
    assert!(ok && text == "test/after\n1\n", "{text}");
}

/// Puts until one is refused, and returns what was said. A few may still find room in what is allocated.
fn refused_put(world: &World, hub: &Hub) -> String {
    let value = "x".repeat(20_000);
    for n in 0..100 {
        let (ok, text) = world.etcdctl(hub, "admin", &["put", &format!("test/{n}"), &value]);
        if !ok {
            return text;
        }
    }
    panic!("100 puts on a full disk succeeded; status: {:#}", hub.status())
}

fn has_address(world: &World, hub: &Hub, address: &str) -> bool {
    let key = format!("cilium/state/ip/v1/default/{address}");
    let (ok, text) = world.etcdctl(hub, "remote", &["get", &key]);
    assert!(ok, "reading fails while the disk does: {text}");
    text.lines().nth(1).is_some_and(|line| serde_json::from_str::<Value>(line).is_ok())
}

fn pod(name: &str, app: &str, ip: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: {app}}}}}\n\
         spec: {{nodeName: n9, containers: []}}\nstatus: {{phase: Running, podIPs: [{{ip: {ip}}}]}}\n"
    )
}
