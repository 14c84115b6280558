use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::Identity;
use crate::record::Protocol;
use crate::record::service::RemoteBackend;

fn service(name: &str, backends: &[&str]) -> RemoteService {
    let backend = |address: &&str| RemoteBackend {
        address: address.parse().expect("an address"),
        port: 80,
        protocol: Protocol::Tcp,
        port_names: Vec::new(),
        zone: None,
        hostname: None,
    };
    RemoteService { name: name.parse().expect("a service"), backends: backends.iter().map(backend).collect() }
}

fn entry(block: &str, identity: u32, host: Option<&str>, namespace: Option<&str>) -> IpEntry {
    IpEntry {
        block: block.parse().expect("a block"),
        identity: Identity(identity),
        host: host.map(|text| text.parse().expect("an address")),
        pod: namespace.map(|namespace| (namespace.to_owned(), "pod".to_owned())),
    }
}

fn admission(blocks: &[&str], grant: &str) -> Admission {
    let blocks = blocks.iter().map(|text| text.parse::<IpNet>().expect("a block"));
    Admission { space: Some(blocks.collect()), grant: serde_json::from_str(grant).expect("a grant") }
}

/// What is taken of an address: `-` for nothing, else its host.
fn taken(admission: &Admission, entry: &IpEntry) -> String {
    let host = |entry: &IpEntry| entry.host.map_or_else(String::new, |host| host.to_string());
    match admission.address(entry) {
        Judgement::Whole => host(entry),
        Judgement::Part(part, _) => host(&part),
        Judgement::Nothing(_) => "-".to_owned(),
    }
}

#[test]
fn a_service_is_granted_or_not_and_backends_of_others_are_left_out() {
    let admission = admission(&["10.2.0.0/16"], r#"{"namespaces":{"include":["shop"]}}"#);
    assert_eq!(admission.service(&service("shop/cart", &["10.2.0.1", "10.2.9.9"])), Judgement::Whole);
    let Judgement::Part(part, denied) =
        admission.service(&service("shop/cart", &["10.2.0.1", "10.3.0.1", "fd00::1"]))
    else {
        panic!("a part of it is the peer's");
    };
    assert_eq!(part, service("shop/cart", &["10.2.0.1"]));
    assert_eq!(denied.to_string(), "backends: 10.3.0.1 and 1 more, expected addresses in 10.2.0.0/16");
    assert!(!denied.is_by_grant());
    let Judgement::Nothing(denied) = admission.service(&service("bank/cart", &["10.2.0.1"])) else {
        panic!("it is not granted");
    };
    assert_eq!(denied.to_string(), "service bank/cart is not in the peer's import grant");
    assert!(denied.is_by_grant());
}

#[test]
fn an_address_is_inside_and_its_namespace_granted() {
    let admission =
        admission(&["10.2.0.0/16", "172.20.2.0/24"], r#"{"identityNamespaces":{"include":["shop"]}}"#);
    let host = Some("172.20.2.1");
    for (block, identity, host, namespace, expected) in [
        ("10.2.0.1/32", 70_000, host, Some("shop"), "172.20.2.1"),
        ("10.2.0.1/32", 70_000, host, Some("bank"), "-"),
        // Who names no namespace cannot be held against a list of them; a node has none.
        ("10.2.0.1/32", 70_000, host, None, "-"),
        ("172.20.2.1/32", 6, host, None, "172.20.2.1"),
        ("10.3.0.1/32", 70_000, host, Some("shop"), "-"),
        ("10.0.0.0/8", 6, None, None, "-"),
        ("10.2.0.1/32", 70_000, Some("172.20.3.1"), Some("shop"), ""),
    ] {
        let found = taken(&admission, &entry(block, identity, host, namespace));
        assert_eq!(found, expected, "{block} {identity} {host:?} {namespace:?}");
    }
}

#[test]
fn an_identity_carries_a_namespace_that_is_granted() {
    let admission = admission(&[], r#"{"identityNamespaces":{"exclude":["bank"]}}"#);
    let judged = |labels: &str| admission.identity(&labels.parse().expect("labels")) == Judgement::Whole;
    assert!(judged("k8s:io.kubernetes.pod.namespace=shop;"));
    assert!(!judged("k8s:io.kubernetes.pod.namespace=bank;"));
    assert!(!judged("any:io.kubernetes.pod.namespace=shop;"), "a label of another source says nothing");
    assert!(!judged("k8s:app=cart;"));
}

#[test]
fn a_node_keeps_what_is_its_clusters() {
    let node = Node {
        name: "n1".parse().expect("a name"),
        addresses: ["172.20.2.1", "172.20.3.1"].map(|text| text.parse().expect("an address")).to_vec(),
        pod_blocks: ["10.2.1.0/24", "10.3.1.0/24"].map(|text| text.parse().expect("a block")).to_vec(),
        zone: None,
        region: None,
    };
    let Judgement::Part(part, _) = admission(&["10.2.0.0/16", "172.20.2.0/24"], "{}").node(&node) else {
        panic!("a part of it");
    };
    assert_eq!((part.addresses.len(), part.pod_blocks.len()), (1, 1));
    assert_eq!(Admission::default().node(&node), Judgement::Whole);
}

#[test]
fn what_is_known_is_narrowed() {
    let mut member = Member::unknown("tokyo".parse().expect("a name"));
    for name in ["shop/cart", "bank/cash"] {
        let service = service(name, &["10.2.0.1", "10.3.0.1"]);
        member.services.insert(service.name.clone(), Arc::new(service));
    }
    let admission = admission(&["10.2.0.0/16"], r#"{"services":{"include":["shop/*"]}}"#);
    let (narrowed, dropped) = admission.narrow(&member).expect("something is dropped");
    let left: Vec<String> = narrowed.services.values().map(|service| format!("{service:?}")).collect();
    assert_eq!(left, [format!("{:?}", service("shop/cart", &["10.2.0.1"]))]);
    assert_eq!(
        dropped.iter().map(|(kind, key, _)| format!("{kind} {key}")).collect::<Vec<_>>(),
        ["services bank/cash", "services shop/cart"]
    );
    assert!(admission.narrow(&narrowed).is_none(), "what is left is taken as it is");
    assert!(Admission::default().narrow(&member).is_none());
}

proptest! {
    /// What is taken in part is taken whole the next time, and nothing outside is in it.
    #[test]
    fn what_is_left_is_admitted(addresses in prop::collection::btree_set(0u32..64, 0..16), from in 0u32..64, length in 26u8..=32) {
        let address = |host: u32| IpAddr::from((0x0a00_0000 | host).to_be_bytes());
        let texts: Vec<String> = addresses.into_iter().map(|host| address(host).to_string()).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let block = IpNet::new(address(from), length).expect("a length").trunc();
        let admission = Admission { space: Some([block].into_iter().collect()), ..Admission::default() };
        let offered = service("shop/cart", &texts);
        let taken = match admission.service(&offered) {
            Judgement::Whole => offered.clone(),
            Judgement::Part(part, _) => part,
            Judgement::Nothing(denied) => panic!("{denied}"),
        };
        prop_assert_eq!(admission.service(&taken), Judgement::Whole);
        let inside: Vec<_> = offered.backends.iter().filter(|b| block.contains(&b.address)).cloned().collect();
        prop_assert_eq!(taken.backends, inside);
    }
}
