//! Records of a peer.

use proptest::test_runner::TestCaseError;
use topology::cluster::{ClusterId, MaxClusters};
use topology::record::config::ClusterConfig;
use topology::record::ip::IpEntry;
use topology::record::node::Node;
use topology::record::service::RemoteService;
use topology::record::slice::SliceValue;
use topology::record::{Origin, identity};

use crate::corpus::{self, Input};

#[test]
fn any_record_is_understood_or_refused() {
    let origin = Origin {
        cluster: "north".parse().expect("a cluster name"),
        id: ClusterId::try_from(9).expect("a cluster id"),
        max: MaxClusters::N255,
    };
    corpus::run("records", |input| read(&origin, input));
}

/// Reads it as what it was, and then as everything else: a peer chooses what it puts where.
fn read(origin: &Origin, input: &Input) -> Result<(), TestCaseError> {
    let end = input.bytes.iter().position(|byte| *byte == b'\n').unwrap_or(input.bytes.len());
    let (key, value) = input.bytes.split_at(end);
    let key = String::from_utf8_lossy(key);
    let value = value.get(1..).unwrap_or_default();
    // A key's end, as whoever follows its prefix sees it.
    let ends = [key.rsplit('/').next(), key.rsplit_once("/north/").map(|(_, end)| end), Some(&*key)];
    let mut understood = Vec::new();
    for suffix in ends.into_iter().flatten() {
        let identity = identity::decode_key(origin, suffix).is_ok();
        for (kind, is_one) in [
            ("identities", identity && identity::decode_value(origin, value).is_ok()),
            ("ip", IpEntry::decode(origin, suffix, value).is_ok()),
            ("nodes", Node::decode(origin, suffix, value).is_ok()),
            ("services", RemoteService::decode(origin, suffix, value).is_ok_and(|service| service.is_some())),
            ("endpointslices", SliceValue::decode_record(origin, suffix, value).is_ok()),
            ("config", ClusterConfig::decode(value, MaxClusters::N255).is_ok()),
        ] {
            understood.extend(is_one.then_some(kind));
        }
    }
    let (kind, _what) = input.name.split_once('-').expect("<kind>-<what>");
    let expected = input.is_changed || understood.contains(&kind);
    proptest::prop_assert!(expected, "the stored input is no sound record: {understood:?}");
    Ok(())
}
