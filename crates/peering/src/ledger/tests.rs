//! Records in, a cluster's state out.

use super::*;
use topology::cluster::{ClusterId, MaxClusters};

const SERVICES: Feed = Feed::Records(Kind::Services);

fn ledger() -> Ledger {
    let origin = Origin {
        cluster: "north".parse().expect("a name"),
        id: ClusterId::try_from(9).expect("an id"),
        max: MaxClusters::N255,
    };
    Ledger::new(origin, false)
}

fn service(name: &str, backend: &str) -> (Vec<u8>, Vec<u8>) {
    let value = format!(
        r#"{{"cluster":"north","namespace":"shop","name":"{name}","frontends":{{}},"backends":{{"{backend}":{{"":{{"Protocol":"TCP","Port":80}}}}}},"labels":{{}},"selector":{{}},"includeExternal":true,"shared":true,"clusterID":9}}"#
    );
    (format!("cilium/state/services/v1/north/shop/{name}").into_bytes(), value.into_bytes())
}

fn entry(pair: &(Vec<u8>, Vec<u8>)) -> Entry<'_> {
    Entry { key: &pair.0, value: Some(&pair.1) }
}

#[test]
fn a_complete_list_takes_away_what_is_not_in_it() {
    let (a, b) = (service("a", "10.9.0.1"), service("b", "10.9.0.2"));
    let mut ledger = ledger();
    ledger.reset(SERVICES, [entry(&a), entry(&b)]);
    assert_eq!(ledger.member().services.len(), 2);
    ledger.reset(SERVICES, [entry(&b)]);
    let names: Vec<String> = ledger.member().services.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["shop/b"]);
    assert!(ledger.is_synced(&[SERVICES]));
    assert!(!ledger.is_synced(&[SERVICES, Feed::LocalServices]));
}

#[test]
fn a_refused_value_keeps_the_one_before_also_in_a_list() {
    let good = service("a", "10.9.0.1");
    let bad = (good.0.clone(), b"not json".to_vec());
    let mut ledger = ledger();
    ledger.apply(SERVICES, entry(&good));
    ledger.apply(SERVICES, entry(&bad));
    ledger.reset(SERVICES, [entry(&bad)]);
    assert_eq!(ledger.member().services.len(), 1);
    let rejections = ledger.rejections();
    assert_eq!(rejections.count.get("services"), Some(&2));
    let last = rejections.last.back().expect("it is kept in full");
    assert_eq!(last.key, "cilium/state/services/v1/north/shop/a");
    assert!(last.reason.starts_with("value is not the expected JSON: expected"), "{}", last.reason);
}

#[test]
fn blocks_and_addresses_have_keys() {
    let north = |suffix: &str| format!("cilium/state/ip/v1/default/{suffix}").into_bytes();
    let value = br#"{"IP":"fd00:9::5","Mask":null,"HostIP":"","ID":589825,"Key":0,"Metadata":""}"#;
    let mut ledger = ledger();
    let feed = Feed::Records(Kind::Ip);
    let key = north("fd00:9::5");
    ledger.apply(feed, Entry { key: &key, value: Some(value) });
    assert_eq!(ledger.member().addresses.len(), 1);
    ledger.apply(feed, Entry { key: &key, value: None });
    ledger.apply(feed, Entry { key: &north("10.9.0.0/24"), value: None });
    ledger.apply(feed, Entry { key: &north("nonsense"), value: None });
    assert_eq!((ledger.member().addresses.len(), ledger.rejections()), (0, &Rejections::default()));
}

#[test]
fn a_peer_cannot_make_a_rejection_long() {
    let key = format!("cilium/state/nodes/v1/north/{}", "n".repeat(1 << 20)).into_bytes();
    let value = format!(r#"{{"Cluster":"é{}"}}"#, "é".repeat(1 << 20));
    let mut ledger = ledger();
    ledger.apply(Feed::Records(Kind::Nodes), Entry { key: &key, value: Some(value.as_bytes()) });
    let last = ledger.rejections().last.back().expect("it is kept");
    assert!(last.key.len() < 1024 && last.reason.len() < 1024, "{} {}", last.key.len(), last.reason.len());
    assert!(last.key.ends_with('…') && last.reason.starts_with("Cluster is"), "{last:?}");
}

#[test]
fn an_address_with_its_length_survives_a_list() {
    let key = b"cilium/state/ip/v1/default/10.9.0.1/32";
    let value = br#"{"IP":"10.9.0.1","Mask":"/////w==","HostIP":"","ID":589825,"Key":0,"Metadata":""}"#;
    let mut ledger = ledger();
    ledger.reset(Feed::Records(Kind::Ip), [Entry { key, value: Some(value) }]);
    assert_eq!(ledger.member().addresses.len(), 1, "{:?}", ledger.rejections());
}

#[test]
fn a_cluster_that_exports_no_services_any_more_offers_none() {
    let mut ledger = ledger();
    ledger.reset(SERVICES, [entry(&service("a", "10.9.0.1"))]);
    ledger.without_services("slices only");
    assert!(ledger.member().services.is_empty() && ledger.is_synced(&[SERVICES]));
    assert_eq!(ledger.rejections().last.back().map(|r| r.reason.as_str()), Some("slices only"));
}

#[test]
fn rejections_are_kept_in_full_only_for_the_last() {
    let mut ledger = ledger();
    for n in 0..100 {
        let key = format!("cilium/state/nodes/v1/north/n{n}").into_bytes();
        ledger.apply(Feed::Records(Kind::Nodes), Entry { key: &key, value: Some(b"{}") });
    }
    assert_eq!(ledger.rejections().count.get("nodes"), Some(&100));
    assert_eq!(ledger.rejections().last.len(), 20);
}

/// What was admitted and no longer is goes, while a value that cannot be read takes nothing away.
#[test]
fn what_is_not_admitted_is_taken_out_and_counted() {
    let grant =
        topology::ImportGrant { services: Some(only("shop/cart")), ..topology::ImportGrant::default() };
    let space = ["10.9.0.0/16".parse().expect("a block")].into_iter().collect();
    let mut ledger = ledger().with_admission(Admission { space: Some(space), grant });
    let (cart, cash) = (service("cart", "10.9.0.1"), service("cash", "10.9.0.1"));
    ledger.reset(SERVICES, [entry(&cart), entry(&cash)]);
    let names: Vec<&str> = ledger.member().services.keys().map(|name| name.name()).collect();
    assert_eq!(names, ["cart"]);
    assert_eq!(ledger.rejections().count["services"], 1);
    ledger.apply(SERVICES, entry(&service("cart", "10.8.0.1")));
    let left = ledger.member().services.values().map(|service| service.backends.len()).sum::<usize>();
    assert_eq!((left, ledger.rejections().count["services"]), (0, 2));
}

fn only(service: &str) -> topology::export_filter::Patterns<topology::export_filter::ServiceGlob> {
    serde_yaml_ng::from_str(&format!("include: [\"{service}\"]")).expect("patterns")
}
