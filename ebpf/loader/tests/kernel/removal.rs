//! Taking everything away, and nothing else.

use std::fs;

use aya::maps::{Array, MapData};
use ebpf_loader::types::Protocol::Tcp;
use ebpf_loader::{CleanupError, PinError, cleanup};

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
