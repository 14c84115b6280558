//! Which claims meet: by example, and against a model that knows single addresses only.

use super::*;
use ipnet::{Ipv4Net, Ipv6Net};
use proptest::prelude::*;
use topology::block::parse_block;

fn request(cluster: &str, id: u32, blocks: [&[&str]; 4]) -> EnrolRequest {
    let [pod_cidrs, node_cidrs, shared_node_cidrs, service_cidrs] =
        blocks.map(|texts| texts.iter().map(|text| parse_block(text).expect("a block")).collect());
    EnrolRequest {
        cluster: cluster.parse().expect("a name"),
        id: id.try_into().expect("an id"),
        pod_cidrs,
        node_cidrs,
        shared_node_cidrs,
        service_cidrs,
        hub_addresses: Vec::new(),
    }
}

fn refusals(wanted: &EnrolRequest, present: &EnrolRequest) -> Vec<String> {
    compare(wanted, present).refusals.iter().map(ToString::to_string).collect()
}

#[test]
fn refusals_name_parties_kinds_and_prefixes() {
    let paris = request("paris", 1, [&["10.1.0.0/17"], &["192.168.1.0/24"], &[], &["10.96.0.0/12"]]);
    let tokyo = request("tokyo", 2, [&["10.1.0.0/16"], &["192.168.2.0/24"], &[], &["10.96.0.0/12"]]);
    let found = compare(&tokyo, &paris);
    let texts: Vec<String> = found.refusals.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "cluster tokyo's pod block 10.1.0.0/16 overlaps cluster paris's pod block 10.1.0.0/17 (shared part 10.1.0.0/17); \
          give tokyo a pod block that does not contain 10.1.0.0/17, or renumber paris"
        ]
    );
    let notes: Vec<String> = found.notes.iter().map(ToString::to_string).collect();
    assert_eq!(
        notes,
        ["cluster tokyo's service block 10.96.0.0/12 overlaps cluster paris's service block 10.96.0.0/12 \
          (shared part 10.96.0.0/12)"]
    );
}

#[test]
fn every_pair_of_kinds() {
    let kinds = [BlockKind::Pod, BlockKind::Node, BlockKind::SharedNode, BlockKind::Service];
    for (i, ours) in kinds.into_iter().enumerate() {
        for (j, theirs) in kinds.into_iter().enumerate() {
            let mut blocks: [[&[&str]; 4]; 2] = [[&[]; 4]; 2];
            blocks[0][i] = &["fd00:1::/48"];
            blocks[1][j] = &["fd00:1:0:7::/64"];
            let [a, b] = [request("a", 1, blocks[0]), request("b", 2, blocks[1])];
            let refused = !compare(&a, &b).refusals.is_empty();
            assert_eq!(refused, !compare(&b, &a).refusals.is_empty(), "{ours} {theirs} both ways");
            let same = ours == theirs && matches!(ours, BlockKind::Service | BlockKind::SharedNode);
            assert_eq!(refused, !same, "{ours} against {theirs}");
        }
    }
}

#[test]
fn names_and_ids_are_unique_and_a_renewal_is_not_a_collision() {
    let paris = request("paris", 1, [&["10.1.0.0/16"], &[], &[], &[]]);
    assert_eq!(compare(&paris, &paris), Findings::default());
    let wider = request("paris", 1, [&["10.0.0.0/8"], &[], &[], &[]]);
    assert_eq!(compare(&wider, &paris), Findings::default());
    let other_id = request("paris", 3, [&["10.3.0.0/16"], &[], &[], &[]]);
    assert_eq!(refusals(&other_id, &paris).len(), 1);
    assert!(refusals(&other_id, &paris)[0].contains("already enrolled with id 1, not 3"));
    let same_id = request("tokyo", 1, [&["10.2.0.0/16"], &[], &[], &[]]);
    assert!(refusals(&same_id, &paris)[0].starts_with("id 1 wanted by cluster tokyo is cluster paris's"));
}

#[test]
fn hub_names_stand_for_all_below_them() {
    let hub = |cluster: &str, id, names: &[&str]| EnrolRequest {
        hub_addresses: names.iter().map(|name| name.parse().expect("a hub address")).collect(),
        ..request(cluster, id, [&[], &[], &[], &[]])
    };
    let paris = hub("paris", 1, &["hub.example.com", "192.0.2.1"]);
    for (name, meets) in [
        ("hub.example.com", true),
        ("a.hub.example.com", true),
        ("example.com", true),
        ("bhub.example.com", false),
        ("192.0.2.1", true),
        ("::ffff:192.0.2.1", true),
        ("192.0.2.2", false),
    ] {
        assert_eq!(!refusals(&hub("tokyo", 2, &[name]), &paris).is_empty(), meets, "{name}");
    }
}

/// A block of a small space, in one of the forms in which it can be written: 32 addresses of IPv4, also as IPv4-mapped, and
/// 32 of IPv6.
fn net() -> impl Strategy<Value = IpNet> {
    let v4 = (0_u32..32, 27_u8..=32)
        .prop_map(|(host, len)| IpNet::V4(Ipv4Net::new((V4 | host).into(), len).expect("at most 32")));
    let mapped = (0_u32..32, 27_u8..=32).prop_map(|(host, len)| {
        let address = std::net::Ipv4Addr::from(V4 | host).to_ipv6_mapped();
        IpNet::V6(Ipv6Net::new(address, 96 + len).expect("at most 128"))
    });
    let v6 = (0_u128..32, 123_u8..=128)
        .prop_map(|(host, len)| IpNet::V6(Ipv6Net::new((V6 | host).into(), len).expect("at most 128")));
    prop_oneof![2 => v4, 1 => mapped, 1 => v6]
}

fn nets() -> impl Strategy<Value = Vec<IpNet>> {
    proptest::collection::vec(net(), 0..2)
}

/// Every address of the two spaces.
fn addresses() -> impl Iterator<Item = IpAddr> {
    let v4 = (0..32).map(|host| IpAddr::V4((V4 | host).into()));
    v4.chain((0..32).map(|host| IpAddr::V6((V6 | host).into())))
}

/// The model: for each address, who holds it for what. No prefix, no order, no interval.
#[derive(Default)]
struct Model(Vec<(IpAddr, usize, BlockKind)>);

impl Model {
    fn holdings(cluster: usize, blocks: &[Vec<IpNet>; 4]) -> Vec<(IpAddr, usize, BlockKind)> {
        let mut held = Vec::new();
        for address in addresses() {
            // The same address in either form.
            let forms = [
                address,
                match address {
                    IpAddr::V4(v4) => IpAddr::V6(v4.to_ipv6_mapped()),
                    v6 => v6,
                },
            ];
            for (kind, nets) in KINDS.into_iter().zip(blocks) {
                if nets.iter().any(|net| forms.iter().any(|form| net.contains(form))) {
                    held.push((address, cluster, kind));
                }
            }
        }
        held
    }

    /// Whether the claim is refused, and whether something is reported.
    fn judge(&self, claim: &[(IpAddr, usize, BlockKind)]) -> (bool, bool) {
        let (mut refused, mut reported) = (false, false);
        for (address, cluster, kind) in claim {
            for (other, holder, theirs) in &self.0 {
                if address == other && cluster != holder {
                    let harmless =
                        kind == theirs && matches!(kind, BlockKind::SharedNode | BlockKind::Service);
                    refused |= !harmless;
                    reported |= harmless;
                }
            }
        }
        (refused, reported)
    }
}

proptest! {
    /// A mesh that grows claim by claim, over 64 addresses: refused exactly if some address would be held twice for kinds that
    /// must not meet, reported exactly if twice for kinds that may. Accepted claims stay, renewals replace their own.
    #[test]
    fn a_growing_mesh_equals_brute_force(
        claims in proptest::collection::vec((0_usize..4, [nets(), nets(), nets(), nets()]), 1..7)
    ) {
        let mut present: Vec<(usize, EnrolRequest)> = Vec::new();
        let mut model = Model::default();
        for (cluster, blocks) in claims {
            let [pod_cidrs, node_cidrs, shared_node_cidrs, service_cidrs] = blocks.clone();
            let id = u32::try_from(cluster).expect("small") + 1;
            let wanted = EnrolRequest {
                pod_cidrs, node_cidrs, shared_node_cidrs, service_cidrs,
                ..request(&format!("c{cluster}"), id, [&[], &[], &[], &[]])
            };
            let wanted = match wanted.canonical() {
                Ok(wanted) => wanted,
                Err(error) => {
                    prop_assert!(wanted.pod_cidrs.is_empty(), "{error}");
                    continue;
                }
            };
            let holdings = Model::holdings(cluster, &blocks);
            let (refused, reported) = model.judge(&holdings);
            let found = compare_all(&wanted, present.iter().map(|(_, present)| present));
            prop_assert_eq!(!found.refusals.is_empty(), refused, "{:?}", found);
            prop_assert_eq!(!found.notes.is_empty(), reported, "{:?}", found);
            // Either way round it is the same.
            for (_, other) in &present {
                let (there, back) = (compare(&wanted, other), compare(other, &wanted));
                prop_assert_eq!(there.refusals.len(), back.refusals.len());
                prop_assert_eq!(there.notes.len(), back.notes.len());
            }
            if !refused {
                present.retain(|(known, _)| *known != cluster);
                model.0.retain(|(_, holder, _)| *holder != cluster);
                present.push((cluster, wanted));
                model.0.extend(holdings);
            }
        }
    }

    /// What a refusal names is what the two share, and nothing else.
    #[test]
    fn the_shared_part_is_exact(a in net(), b in net()) {
        let canonical = |net: IpNet| parse_block(&net.to_string()).expect("a block");
        let (a, b) = (canonical(a), canonical(b));
        let blocks = |cluster, id, block| EnrolRequest {
            pod_cidrs: vec![block], ..request(cluster, id, [&[], &[], &[], &[]])
        };
        let found = compare(&blocks("a", 1, a), &blocks("b", 2, b));
        let shared: Vec<IpAddr> = addresses().filter(|at| a.contains(at) && b.contains(at)).collect();
        match &found.refusals[..] {
            [] => prop_assert!(shared.is_empty()),
            [Conflict::Blocks { overlap }] => {
                let named: Vec<IpAddr> = addresses().filter(|at| overlap.shared.contains(at)).collect();
                prop_assert_eq!(named, shared);
            }
            other => prop_assert!(false, "one refusal, not {:?}", other),
        }
    }
}

const V4: u32 = 0x0a00_0000;
const V6: u128 = 0xfd00 << 112;
const KINDS: [BlockKind; 4] = [BlockKind::Pod, BlockKind::Node, BlockKind::SharedNode, BlockKind::Service];
