//! Taking everything away, and nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, SystemTime};

use aya::maps::{Array, MapData, MapInfo, loaded_maps};
use aya::programs::{loaded_links, loaded_programs};
use ebpf_loader::types::Protocol::Tcp;
use ebpf_loader::{CleanupError, HOOKS, PinError, cleanup};

use crate::fixture::{Node, assert_answers, chain, tcp_server};

#[test]
fn cleanup_detaches_and_removes_all() {
    let mut node = Node::open("cleanup");
    let translated = node.backend(tcp_server("127.0.0.1:0", "translated"), Tcp);
    let direct = tcp_server("127.96.0.15:0", "direct");
    let vip = node.frontend(&direct.to_string(), Tcp, &[translated]).to_string();
    assert_answers(&node.probe("tcp", &vip, 2), &vip, &["translated"]);

    let error = cleanup(&node.config.pin_dir).expect_err("an agent holds the directory");
    assert!(matches!(error, CleanupError::Pin(PinError::Locked { .. })), "{}", chain(&error));
    node.stop();
    cleanup(&node.config.pin_dir).expect("cleanup");
    assert!(!node.config.pin_dir.exists(), "the directory is gone");
    assert_answers(&node.probe("tcp", &vip, 2), &vip, &["direct"]);
    cleanup(&node.config.pin_dir).expect("cleaning up what is absent succeeds");
}

/// What is in the kernel, by the kernel's numbers, which it gives once: no traffic has to be asked.
#[test]
fn cleanup_leaves_nothing_in_the_kernel() {
    let mut node = Node::open("kernel");
    let links: BTreeSet<u32> = node.plane().links().iter().map(|link| link.link_id).collect();
    let programs: BTreeSet<u32> = node.plane().links().iter().map(|link| link.program_id).collect();
    let maps: BTreeSet<u32> = fs::read_dir(node.config.pin_dir.join("maps"))
        .expect("maps")
        .map(|entry| {
            let path = entry.expect("an entry").path();
            MapInfo::from_pin(path).expect("a map").id()
        })
        .collect();
    assert!(links.len() == HOOKS.len() && maps.len() > 5, "links {links:?}, maps {maps:?}");
    let left = || {
        let links =
            loaded_links().filter_map(|link| Some(link.ok()?.id())).filter(|id| links.contains(id)).count();
        let programs = loaded_programs()
            .filter_map(|program| Some(program.ok()?.id()))
            .filter(|id| programs.contains(id))
            .count();
        let maps =
            loaded_maps().filter_map(|map| Some(map.ok()?.id())).filter(|id| maps.contains(id)).count();
        (links, programs, maps)
    };
    node.stop();
    assert_eq!(left(), (links.len(), programs.len(), maps.len()), "what is pinned outlives its process");
    cleanup(&node.config.pin_dir).expect("cleanup");
    // The kernel frees what nobody holds in its own time.
    let begun = SystemTime::now();
    while left() != (0, 0, 0) {
        let waited = begun.elapsed().unwrap_or_default();
        assert!(waited < Duration::from_secs(20), "links, programs, maps left: {:?}", left());
        thread::park_timeout(Duration::from_millis(10));
    }
}

#[test]
fn cleanup_leaves_what_is_not_ours() {
    let mut node = Node::open("foreign");
    node.stop();
    let foreign = node.config.pin_dir.join("maps/somebody-elses");
    Array::<MapData, u64>::create(1, 0).expect("create a map").pin(&foreign).expect("pin it");
    cleanup(&node.config.pin_dir).expect("cleanup");
    assert!(foreign.exists(), "it stays");
    assert!(!node.config.pin_dir.join("maps/services").exists(), "ours is gone");
    assert!(!node.config.pin_dir.join("links").exists(), "links are gone");
    fs::remove_file(foreign).expect("remove it");
}
