//! The typed maps against the kernel.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ebpf_loader::MapError;
use ebpf_loader::types::{Backend, FrontendKey, IpcacheEntry, IpcacheKey, Protocol, ServiceEntry};
use proptest::prelude::*;

use crate::fixture::{CAPACITIES, Node, chain, ip};

#[test]
fn a_table_keeps_what_it_is_given() {
    let mut node = Node::open("table");
    let services = &mut node.maps().services;
    let key = |port| FrontendKey::new((Ipv4Addr::new(127, 96, 0, 1), port).into(), Protocol::Tcp);
    let entry = |count| ServiceEntry { slots_offset: 7, slots_count: count, service_id: 9, flags: 0 };

    assert_eq!(services.get(&key(1)).expect("get"), None);
    assert!(!services.remove(&key(1)).expect("removing the absent succeeds"));
    services.insert(&key(1), &entry(1)).expect("insert");
    services.insert(&key(2), &entry(2)).expect("insert");
    services.insert(&key(1), &entry(3)).expect("replace");
    assert_eq!(services.get(&key(1)).expect("get"), Some(entry(3)));
    let dump: BTreeMap<_, _> = services.dump().expect("dump").into_iter().collect();
    assert_eq!(dump, BTreeMap::from([(key(1), entry(3)), (key(2), entry(2))]));
    assert!(services.remove(&key(1)).expect("remove"));
    assert_eq!(services.dump().expect("dump"), [(key(2), entry(2))]);
}

#[test]
fn a_full_map_says_so() {
    let mut node = Node::open("full");
    let backends = &mut node.maps().backends;
    let backend = Backend::new((Ipv6Addr::LOCALHOST, 1).into(), Protocol::Udp, 3);
    for id in 1..=CAPACITIES.backends {
        backends.insert(&id, &backend).expect("there is room");
    }
    let error = backends.insert(&1000, &backend).expect_err("there is none");
    assert!(matches!(error, MapError::Full { map: "backends", capacity: 64, .. }), "{}", chain(&error));
    assert!(error.to_string().contains("1000"), "{error}");
    backends.insert(&1, &backend).expect("replacing needs no room");

    let ipcache = &mut node.maps().ipcache;
    for host in 0..64 {
        let key = IpcacheKey::host(Ipv4Addr::new(10, 0, 0, host).into());
        ipcache.insert(&key, &IpcacheEntry::new(1, 1, None)).expect("there is room");
    }
    let key = IpcacheKey::host(ip("10.0.1.1"));
    let error = ipcache.insert(&key, &IpcacheEntry::new(1, 1, None)).expect_err("there is none");
    assert!(matches!(error, MapError::Full { map: "ipcache", .. }), "{}", chain(&error));
}

#[test]
fn slots_are_written_and_read_in_ranges() {
    let mut node = Node::open("slots");
    let slots = &mut node.maps().slots;
    slots.write(250, &[1, 2, 3, 4, 5, 6]).expect("write to the end");
    assert_eq!(slots.read(249, 4).expect("read"), [0, 1, 2, 3]);
    let error = slots.write(250, &[9; 7]).expect_err("beyond the end");
    assert!(matches!(error, MapError::OutOfRange { index: 257, capacity: 256, .. }), "{}", chain(&error));
    assert_eq!(slots.read(250, 6).expect("read"), [1, 2, 3, 4, 5, 6], "nothing of it was written");
    assert!(slots.read(u32::MAX, 1).is_err());
    slots.write(256, &[]).expect("nothing at the end is within the range");
}

#[test]
fn the_longest_prefix_wins() {
    let mut node = Node::open("ipcache");
    let ipcache = &mut node.maps().ipcache;
    let key = |text, len| IpcacheKey::new(ip(text), len).expect("prefix");
    for (identity, key) in [
        (1, key("0.0.0.0", 0)),
        (2, key("10.1.0.0", 16)),
        (3, key("10.1.2.3", 32)),
        (4, key("fd00:1::", 32)),
        (5, key("fd00:1::7", 128)),
    ] {
        ipcache.insert(&key, &IpcacheEntry::new(identity, 2, Some(ip("192.0.2.1")))).expect("insert");
    }
    let identity = |ipcache: &ebpf_loader::Ipcache, text| {
        ipcache.lookup(ip(text)).expect("lookup").map(|entry| entry.identity)
    };
    for (text, expected) in [
        ("10.1.2.3", Some(3)),
        ("10.1.2.4", Some(2)),
        ("192.0.2.9", Some(1)),
        ("fd00:1::7", Some(5)),
        ("fd00:1::8", Some(4)),
        ("fd00:2::1", None),
    ] {
        assert_eq!(identity(ipcache, text), expected, "{text}");
    }
    assert_eq!(ipcache.dump().expect("dump").len(), 5);
    assert!(ipcache.remove(&key("10.1.2.3", 32)).expect("remove"));
    assert!(!ipcache.remove(&key("10.1.2.3", 32)).expect("removing the absent succeeds"));
    assert_eq!(identity(ipcache, "10.1.2.3"), Some(2));
}

/// Addresses and prefixes from a small space, so that prefixes nest and lookups hit.
fn near() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0..4_u8, 0..4_u8).prop_map(|(a, b)| IpAddr::from([10, 0, a, b])),
        (0..4_u16, 0..4_u16).prop_map(|(a, b)| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, a, b])),
    ]
}

fn near_prefix() -> impl Strategy<Value = IpcacheKey> {
    (near(), 0..=128_u8).prop_filter_map("length beyond the family", |(ip, len)| IpcacheKey::new(ip, len))
}

#[test]
fn the_trie_agrees_with_a_model() {
    let node = RefCell::new(Node::open("trie-model"));
    let steps = proptest::collection::vec((near_prefix(), any::<bool>()), 1..40);
    let config = ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(steps in steps, queries in proptest::collection::vec(near(), 1..20))| {
        let mut node = node.borrow_mut();
        let ipcache = &mut node.maps().ipcache;
        for (key, _) in ipcache.dump().expect("dump what the last case left") {
            ipcache.remove(&key).expect("remove it");
        }
        let mut model = BTreeMap::new();
        for (n, (key, insert)) in steps.into_iter().enumerate() {
            let entry = IpcacheEntry::new(n as u32, 1, None);
            if insert {
                ipcache.insert(&key, &entry).expect("insert");
                model.insert(key, entry);
            } else {
                prop_assert_eq!(ipcache.remove(&key).expect("remove"), model.remove(&key).is_some());
            }
        }
        for query in queries {
            let longest = model
                .iter()
                .filter(|(key, _)| mask(query, key.prefix_len) == mask_of(key))
                .max_by_key(|(key, _)| key.prefix_len)
                .map(|(_, entry)| *entry);
            prop_assert_eq!(ipcache.lookup(query).expect("lookup"), longest, "{}", query);
        }
        let dump: BTreeMap<_, _> = ipcache.dump().expect("dump").into_iter().collect();
        prop_assert_eq!(&dump, &model);
    });
}

fn mask(ip: IpAddr, prefix_len: u32) -> u128 {
    let bits = u128::from_be_bytes(IpcacheKey::host(ip).address.octets());
    bits & u128::MAX.checked_shl(128 - prefix_len).unwrap_or(0)
}

fn mask_of(key: &IpcacheKey) -> u128 {
    u128::from_be_bytes(key.address.octets())
}
