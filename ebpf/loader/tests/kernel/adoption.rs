//! What is left when a process ends, and how the next one takes over.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use aya::maps::{Array, Map, MapData};
use ebpf_loader::types::Protocol::Tcp;
use ebpf_loader::types::{FrontendKey, LAYOUT_VERSION};
use ebpf_loader::{Capacities, DataPlane, LinkError, Maps, OpenError, PinError};

use crate::fixture::{Node, assert_answers, chain, probe, remove_cgroup, tcp_server};

const VIP: &str = "127.96.0.10:80";

/// Sets a flag at the end of a scope, also when it ends with a panic.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A node with one frontend and one backend "a".
fn serving(test: &str) -> Node {
    let mut node = Node::open(test);
    let a = node.backend(tcp_server("127.0.0.1:0", "a"), Tcp);
    node.frontend(VIP, Tcp, &[a]);
    assert_answers(&node.probe("tcp", VIP, 2), VIP, &["a"]);
    node
}

fn refusal(node: &Node) -> OpenError {
    node.try_open().map(|_| ()).expect_err("opening should be refused")
}

#[test]
fn traffic_outlives_the_process() {
    let mut node = serving("outlive");
    node.stop();
    assert_answers(&node.probe("tcp", VIP, 5), VIP, &["a"]);
}

#[test]
fn the_default_capacities_fit_the_kernel() {
    let mut node = Node::closed("capacities");
    node.config.capacities = Capacities::default();
    node.start();
    let maps = node.maps();
    let found =
        (maps.services.capacity(), maps.slots.capacity(), maps.backends.capacity(), maps.ipcache.capacity());
    assert_eq!(found, (65_536, 1_048_576, 1_000_000, 512_000));
    maps.slots.write(1_048_575, &[7]).expect("write the last slot");
}

#[test]
fn a_restart_adopts_the_maps_and_exchanges_the_programs() {
    let mut node = serving("adopt");
    assert!(!node.plane().is_adopted(), "a new data plane has nothing to adopt");
    let before = node.plane().links().to_vec();
    node.start();
    assert!(node.plane().is_adopted());
    let after = node.plane().links().to_vec();
    assert_eq!(before.len(), 8);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!((before.program, before.link_id), (after.program, after.link_id), "the link stays");
        assert_ne!(before.program_id, after.program_id, "the program of {} is a new one", before.program);
    }
    let key = FrontendKey::new(VIP.parse().expect("address"), Tcp);
    assert!(node.maps().services.get(&key).expect("get").is_some(), "the frontend is still there");
    assert_answers(&node.probe("tcp", VIP, 2), VIP, &["a"]);
}

#[test]
fn no_connection_is_missed_while_agents_come_and_go() {
    let mut node = serving("gapless");
    node.stop();
    let done = AtomicBool::new(false);
    let cgroup = node.config.cgroup.clone();
    let seen = thread::scope(|scope| {
        let agents = scope.spawn(|| {
            // Also when an agent does not start: the client would go on for ever.
            let _ended = SetOnDrop(&done);
            for _ in 0..5 {
                node.start();
                node.stop();
            }
        });
        let mut seen = Vec::new();
        while !done.load(Ordering::Relaxed) {
            seen.extend(probe(Some(&cgroup), "tcp", VIP, 200));
        }
        agents.join().expect("every agent starts");
        seen
    });
    assert_answers(&seen, VIP, &["a"]);
}

#[test]
fn maps_of_another_layout_are_refused_and_go_on_serving() {
    let mut node = serving("layout");
    node.stop();
    let path = node.config.pin_dir.join("maps/layout");
    let mut layout: Array<MapData, u32> = Map::from_map_data(MapData::from_pin(&path).expect("open layout"))
        .expect("map")
        .try_into()
        .expect("array");
    layout.set(0, LAYOUT_VERSION + 41, 0).expect("write layout");

    let error = refusal(&node);
    let OpenError::Mismatch(mismatch) = &error else { panic!("{}", chain(&error)) };
    assert_eq!(mismatch.what, "layout version");
    assert_eq!(mismatch.found, (LAYOUT_VERSION + 41).to_string());
    assert_eq!(mismatch.expected, LAYOUT_VERSION.to_string());
    let error = Maps::open_pinned(&node.config.pin_dir).map(|_| ()).expect_err("a reader is refused as well");
    assert!(matches!(error, OpenError::Mismatch(_)), "{}", chain(&error));
    assert_answers(&node.probe("tcp", VIP, 2), VIP, &["a"]);
}

#[test]
fn maps_of_another_capacity_are_refused() {
    let mut node = serving("capacity");
    node.stop();
    node.config.capacities.backends += 1;
    let error = refusal(&node);
    let OpenError::Mismatch(mismatch) = &error else { panic!("{}", chain(&error)) };
    assert_eq!(
        (mismatch.what, mismatch.found.as_str(), mismatch.expected.as_str()),
        ("capacity", "64", "65")
    );
    assert!(mismatch.path.ends_with("maps/backends"), "{}", mismatch.path.display());
}

#[test]
fn maps_of_another_shape_are_refused() {
    let mut node = serving("shape");
    node.stop();
    let path = node.config.pin_dir.join("maps/services");
    fs::remove_file(&path).expect("remove services");
    Array::<MapData, u64>::create(64, 0).expect("create a foreign map").pin(&path).expect("pin it");
    let error = refusal(&node);
    let OpenError::Mismatch(mismatch) = &error else { panic!("{}", chain(&error)) };
    assert_eq!(
        (mismatch.what, mismatch.found.as_str(), mismatch.expected.as_str()),
        ("type", "Array", "Hash")
    );
}

#[test]
fn maps_without_a_layout_version_are_refused() {
    let mut node = serving("no-layout");
    node.stop();
    fs::remove_file(node.config.pin_dir.join("maps/layout")).expect("remove layout");
    let error = refusal(&node);
    let OpenError::Mismatch(mismatch) = &error else { panic!("{}", chain(&error)) };
    assert!(mismatch.found.starts_with("absent"), "{mismatch}");
}

#[test]
fn a_second_agent_is_kept_out_and_a_reader_is_not() {
    let mut node = serving("second");
    let error = refusal(&node);
    assert!(matches!(error, OpenError::Pin(PinError::Locked { .. })), "{}", chain(&error));

    let reader = Maps::open_pinned(&node.config.pin_dir).expect("read beside the agent");
    assert_eq!(reader.services.dump().expect("dump"), node.maps().services.dump().expect("dump"));
    assert_eq!(reader.slots.capacity(), node.config.capacities.slots);
}

#[test]
fn a_directory_that_is_on_no_bpffs_is_refused() {
    let mut node = Node::closed("no-bpffs");
    let pin_dir = std::mem::replace(&mut node.config.pin_dir, "/tmp/isthmus-no-bpffs".into());
    let error = refusal(&node);
    node.config.pin_dir = pin_dir;
    assert!(matches!(error, OpenError::Pin(PinError::NotBpffs { .. })), "{}", chain(&error));
    assert!(chain(&error).contains("mount -t bpf"), "{}", chain(&error));
    assert!(!Path::new("/tmp/isthmus-no-bpffs").exists(), "nothing is made there");
}

#[test]
fn a_directory_that_is_no_cgroup_is_refused() {
    let mut node = Node::closed("no-cgroup");
    let cgroup = std::mem::replace(&mut node.config.cgroup, "/tmp".into());
    let error = refusal(&node);
    node.config.cgroup = cgroup;
    assert!(matches!(error, OpenError::Link(LinkError::NotCgroup { .. })), "{}", chain(&error));
    assert!(!node.config.pin_dir.exists(), "nothing is pinned");
}

#[test]
fn links_move_when_the_cgroup_is_another() {
    let mut node = Node::open("move");
    let translated = node.backend(tcp_server("127.0.0.1:0", "translated"), Tcp);
    let direct = tcp_server("127.96.0.14:0", "direct");
    let vip = node.frontend(&direct.to_string(), Tcp, &[translated]).to_string();
    let old = node.config.cgroup.clone();
    assert_answers(&probe(Some(&old), "tcp", &vip, 2), &vip, &["translated"]);

    let (a, b) = (old.join("a"), old.join("b"));
    for cgroup in [&a, &b] {
        fs::create_dir(cgroup).expect("create a cgroup below");
    }
    node.config.cgroup = a.clone();
    node.start();
    node.config.cgroup = old;
    assert_answers(&probe(Some(&a), "tcp", &vip, 2), &vip, &["translated"]);
    assert_answers(&probe(Some(&b), "tcp", &vip, 2), &vip, &["direct"]);
}

#[test]
fn programs_are_attached_anew_when_their_cgroup_was_removed() {
    let mut node = serving("revive");
    node.stop();
    remove_cgroup(&node.config.cgroup).expect("remove the cgroup");
    fs::create_dir(&node.config.cgroup).expect("make it again");
    node.start();
    assert_eq!(node.plane().links().len(), 8);
    assert_answers(&node.probe("tcp", VIP, 2), VIP, &["a"]);
}

#[test]
fn data_planes_of_two_nodes_do_not_meet() {
    let mut one = Node::open("two-1");
    let mut two = Node::open("two-2");
    let a = one.backend(tcp_server("127.0.0.1:0", "a"), Tcp);
    let b = two.backend(tcp_server("127.0.0.1:0", "b"), Tcp);
    one.frontend(VIP, Tcp, &[a]);
    two.frontend(VIP, Tcp, &[b]);
    assert_answers(&one.probe("tcp", VIP, 5), VIP, &["a"]);
    assert_answers(&two.probe("tcp", VIP, 5), VIP, &["b"]);
    // The type is used across threads by the agent.
    fn assert_send<T: Send>(_: &T) {}
    let plane: &DataPlane = one.plane();
    assert_send(plane);
}
