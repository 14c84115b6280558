//! What a client sees.

use std::fs;

use ebpf_loader::types::Counter;
use ebpf_loader::types::Protocol::{Tcp, Udp};

use crate::fixture::{Node, assert_answers, probe, tcp_server, udp_server};

#[test]
fn tcp4_reaches_every_backend_and_shows_the_frontend() {
    let mut node = Node::open("tcp4");
    let a = node.backend(tcp_server("127.0.0.1:0", "a"), Tcp);
    let b = node.backend(tcp_server("127.0.0.2:0", "b"), Tcp);
    node.frontend("127.96.0.10:80", Tcp, &[a, b]);
    assert_answers(&node.probe("tcp", "127.96.0.10:80", 60), "127.96.0.10:80", &["a", "b"]);

    let counters = node.maps().counters().expect("read counters");
    assert_eq!(counters.get(Counter::TranslatedTcp), 60, "{counters:?}");
    assert_eq!(counters.get(Counter::ReverseTranslated), 60, "{counters:?}");
}

#[test]
fn tcp4_is_spread_evenly() {
    let mut node = Node::open("tcp4-even");
    let a = node.backend(tcp_server("127.0.0.1:0", "a"), Tcp);
    let b = node.backend(tcp_server("127.0.0.1:0", "b"), Tcp);
    // Three slots for a, one for b: a weighted service.
    node.frontend("127.96.0.10:80", Tcp, &[a, a, b, a]);
    let seen = node.probe("tcp", "127.96.0.10:80", 800);
    let of_a = seen.iter().filter(|line| line.ends_with(" a")).count();
    // 600 expected, standard deviation 12.2: outside of 6 deviations once in 500 million runs.
    assert!((527..=673).contains(&of_a), "{of_a} of {} went to a", seen.len());
}

#[test]
fn tcp6_reaches_a_backend_and_shows_the_frontend() {
    let mut node = Node::open("tcp6");
    let a = node.backend(tcp_server("[::1]:0", "a"), Tcp);
    node.frontend("[fd00::10]:80", Tcp, &[a]);
    assert_answers(&node.probe("tcp", "[fd00::10]:80", 3), "[fd00::10]:80", &["a"]);
}

#[test]
fn tcp_to_a_mapped_address_on_an_ip6_socket() {
    let mut node = Node::open("tcp-mapped");
    let a = node.backend(tcp_server("127.0.0.1:0", "a"), Tcp);
    node.frontend("127.96.0.10:80", Tcp, &[a]);
    let vip = "[::ffff:127.96.0.10]:80";
    assert_answers(&node.probe("tcp", vip, 3), vip, &["a"]);
}

#[test]
fn udp_connected_shows_the_frontend_in_both_families() {
    let mut node = Node::open("udp-connected");
    let four = node.backend(udp_server("127.0.0.1:0", "four"), Udp);
    let six = node.backend(udp_server("[::1]:0", "six"), Udp);
    node.frontend("127.96.0.10:53", Udp, &[four]);
    node.frontend("[fd00::10]:53", Udp, &[six]);
    for (vip, name) in
        [("127.96.0.10:53", "four"), ("[::ffff:127.96.0.10]:53", "four"), ("[fd00::10]:53", "six")]
    {
        assert_answers(&node.probe("udp-connected", vip, 3), vip, &[name]);
    }
}

#[test]
fn udp_unconnected_is_answered_by_the_frontend_in_both_families() {
    let mut node = Node::open("udp");
    let four = node.backend(udp_server("127.0.0.1:0", "four"), Udp);
    let six = node.backend(udp_server("[::1]:0", "six"), Udp);
    node.frontend("127.96.0.10:53", Udp, &[four]);
    node.frontend("[fd00::10]:53", Udp, &[six]);
    for (vip, name) in
        [("127.96.0.10:53", "four"), ("[::ffff:127.96.0.10]:53", "four"), ("[fd00::10]:53", "six")]
    {
        assert_answers(&node.probe("udp", vip, 3), vip, &[name]);
    }
    let reverse = node.maps().reverse.dump().expect("dump reverse");
    assert_eq!(reverse.len(), 3, "one entry a socket, not one a datagram: {reverse:?}");
}

#[test]
fn udp_stays_with_one_backend_a_socket_and_spreads_over_sockets() {
    let mut node = Node::open("udp-sticky");
    let a = node.backend(udp_server("127.0.0.1:0", "a"), Udp);
    let b = node.backend(udp_server("127.0.0.1:0", "b"), Udp);
    node.frontend("127.96.0.10:53", Udp, &[a, b]);
    let one_socket = node.probe("udp", "127.96.0.10:53", 20);
    assert!(one_socket.iter().all(|line| *line == one_socket[0]), "{one_socket:?}");
    assert_answers(&node.probe("udp-connected", "127.96.0.10:53", 60), "127.96.0.10:53", &["a", "b"]);
}

#[test]
fn without_a_backend_the_client_is_refused_at_once() {
    let mut node = Node::open("no-backend");
    // Something listens at the very address: only the program can refuse.
    let tcp = tcp_server("127.96.0.11:0", "must not be reached");
    let udp = udp_server("127.96.0.11:0", "must not be reached");
    node.frontend(&tcp.to_string(), Tcp, &[]);
    node.frontend(&udp.to_string(), Udp, &[]);
    node.frontend("[fd00::11]:80", Tcp, &[]);
    node.frontend("[fd00::11]:53", Udp, &[]);
    for (way, vip) in [
        ("tcp", tcp.to_string()),
        ("tcp", format!("[::ffff:127.96.0.11]:{}", tcp.port())),
        ("tcp", "[fd00::11]:80".to_owned()),
        ("udp", udp.to_string()),
        ("udp", format!("[::ffff:127.96.0.11]:{}", udp.port())),
        ("udp", "[fd00::11]:53".to_owned()),
        ("udp-connected", udp.to_string()),
        ("udp-connected", "[fd00::11]:53".to_owned()),
    ] {
        assert_eq!(node.probe(way, &vip, 1), ["error ConnectionRefused"], "{way} {vip}");
    }
    let counters = node.maps().counters().expect("read counters");
    assert_eq!(counters.get(Counter::NoBackend), 8, "{counters:?}");
}

#[test]
fn a_stale_slot_is_passed_over() {
    let mut node = Node::open("stale");
    let a = node.backend(tcp_server("127.0.0.1:0", "a"), Tcp);
    let gone = 60;
    node.frontend("127.96.0.10:80", Tcp, &[gone, a, 0]);
    assert_answers(&node.probe("tcp", "127.96.0.10:80", 30), "127.96.0.10:80", &["a"]);
    let counters = node.maps().counters().expect("read counters");
    assert!(counters.get(Counter::StaleSlot) > 0, "{counters:?}");

    node.maps().backends.remove(&a).expect("remove backend");
    assert_eq!(node.probe("tcp", "127.96.0.10:80", 1), ["error ConnectionRefused"]);
}

#[test]
fn a_backend_of_the_other_family_is_never_chosen() {
    let mut node = Node::open("family");
    let four = node.backend(tcp_server("127.0.0.1:0", "four"), Tcp);
    let six = node.backend(tcp_server("[::1]:0", "six"), Tcp);
    node.frontend("127.96.0.10:80", Tcp, &[six, four]);
    node.frontend("[fd00::10]:80", Tcp, &[four]);
    assert_answers(&node.probe("tcp", "127.96.0.10:80", 20), "127.96.0.10:80", &["four"]);
    assert_eq!(node.probe("tcp", "[fd00::10]:80", 1), ["error ConnectionRefused"]);
    let counters = node.maps().counters().expect("read counters");
    assert!(counters.get(Counter::FamilyMismatch) > 0, "{counters:?}");
}

#[test]
fn what_is_no_frontend_is_not_touched() {
    let mut node = Node::open("untouched");
    let translated = node.backend(tcp_server("127.0.0.1:0", "translated"), Tcp);
    let direct = tcp_server("127.96.0.12:0", "direct");
    let datagrams = udp_server(&direct.to_string(), "datagrams");
    // Another port of the address, and the same address and port under the other protocol.
    let other_port = if direct.port() == 80 { 81 } else { 80 };
    node.frontend(&format!("127.96.0.12:{other_port}"), Tcp, &[translated]);
    let (tcp, udp) = (direct.to_string(), datagrams.to_string());
    assert_answers(&node.probe("tcp", &tcp, 2), &tcp, &["direct"]);
    node.frontend(&tcp, Tcp, &[translated]);
    assert_answers(&node.probe("tcp", &tcp, 2), &tcp, &["translated"]);
    assert_answers(&node.probe("udp", &udp, 2), &udp, &["datagrams"]);
    assert_answers(&node.probe("udp-connected", &udp, 2), &udp, &["datagrams"]);
}

#[test]
fn only_processes_in_the_cgroup_and_below_are_translated() {
    let mut node = Node::open("scope");
    let translated = node.backend(tcp_server("127.0.0.1:0", "translated"), Tcp);
    let direct = tcp_server("127.96.0.13:0", "direct");
    let vip = node.frontend(&direct.to_string(), Tcp, &[translated]).to_string();

    let below = node.config.cgroup.join("pod");
    fs::create_dir(&below).expect("create a cgroup below");
    assert_answers(&probe(Some(&below), "tcp", &vip, 2), &vip, &["translated"]);
    assert_answers(&node.probe("tcp", &vip, 2), &vip, &["translated"]);
    assert_answers(&probe(None, "tcp", &vip, 2), &vip, &["direct"]);
}

#[test]
fn a_changed_service_counts_for_the_next_connection() {
    let mut node = Node::open("change");
    let a = node.backend(tcp_server("127.0.0.1:0", "a"), Tcp);
    let b = node.backend(tcp_server("127.0.0.1:0", "b"), Tcp);
    let vip = "127.96.0.10:80";
    for (backends, name) in [(&[a], "a"), (&[b], "b"), (&[a], "a")] {
        node.frontend(vip, Tcp, backends);
        assert_answers(&node.probe("tcp", vip, 5), vip, &[name]);
    }
}
