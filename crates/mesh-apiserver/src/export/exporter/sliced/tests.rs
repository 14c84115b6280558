//! Whatever objects and slices say of endpoints, and in whatever order it comes, the records are those of what is there in
//! the end.

use std::collections::BTreeSet;

use proptest::prelude::*;
use topology::cluster::{ClusterId, MaxClusters};

use crate::export::Cluster;
use crate::export::exporter::{Exporter, identity_range};
use crate::identity::{Allocator, Numbering};
use crate::index::Change;
use crate::object::{Body, CiliumEndpoint, CiliumEndpointSlice, Object};

use super::*;

const ADDRESSES: &str = "cilium/state/ip/v1/default/";

fn exporter() -> Exporter {
    let cluster = Cluster {
        name: "north".parse().expect("a name"),
        id: ClusterId::try_from(9).expect("an id"),
        max: MaxClusters::N255,
        global_namespaces: true,
    };
    let range = identity_range(&cluster);
    let mut exporter = Exporter::new(cluster, Allocator::new(range));
    exporter.number_by(Numbering::Cilium);
    exporter.apply([]);
    exporter
}

fn endpoint(space: &str, number: u8, identity: u32) -> CiliumEndpoint {
    CiliumEndpoint {
        namespace: space.into(),
        name: format!("p{number}").into(),
        identity: Some(identity),
        addresses: Box::new([[10, 0, 0, number].into()]),
        ..CiliumEndpoint::default()
    }
}

fn own(number: u8, identity: u32) -> Object {
    let endpoint = endpoint("shop", number, identity);
    Object::try_from(Body::CiliumEndpoint(Arc::new(endpoint))).expect("a sound name")
}

fn slice(name: u8, space: &str, endpoints: &[(u8, u32)]) -> Object {
    let endpoints: BTreeMap<u8, u32> = endpoints.iter().copied().collect();
    let slice = CiliumEndpointSlice {
        name: format!("ces-{name}").into(),
        namespace: space.into(),
        endpoints: endpoints
            .iter()
            .map(|(number, identity)| Arc::new(endpoint(space, *number, *identity)))
            .collect(),
    };
    Object::try_from(Body::CiliumEndpointSlice(Arc::new(slice))).expect("a sound name")
}

fn gone(object: &Object) -> Change {
    Change::Delete(object.reference().clone())
}

/// Address and number of each record.
fn published(exporter: &Exporter) -> BTreeSet<(String, u64)> {
    let addresses = exporter.desired();
    let addresses = addresses.iter().filter_map(|(key, value)| Some((key.strip_prefix(ADDRESSES)?, value)));
    let number = |value: &[u8]| {
        serde_json::from_slice::<serde_json::Value>(value).expect("JSON")["ID"].as_u64().expect("a number")
    };
    addresses.map(|(address, value)| (address.to_owned(), number(value))).collect()
}

fn expected(pairs: &[(u8, u64)]) -> BTreeSet<(String, u64)> {
    pairs.iter().map(|(number, identity)| (format!("10.0.0.{number}"), *identity)).collect()
}

#[test]
fn an_endpoint_in_a_slice_is_published_and_its_own_object_says_it_better() {
    let mut exporter = exporter();
    exporter.apply([Change::Apply(slice(1, "shop", &[(1, 600_001), (2, 600_002)]))]);
    assert_eq!(published(&exporter), expected(&[(1, 600_001), (2, 600_002)]));
    exporter.apply([Change::Apply(own(1, 600_009))]);
    assert_eq!(published(&exporter), expected(&[(1, 600_009), (2, 600_002)]));
    exporter.apply([gone(&own(1, 0))]);
    assert_eq!(published(&exporter), expected(&[(1, 600_001), (2, 600_002)]));
    // It moves to another slice, which comes first or last.
    let delta = exporter.apply([Change::Apply(slice(2, "shop", &[(2, 600_002)]))]);
    assert!(delta.is_empty(), "{delta:?}");
    let delta = exporter.apply([Change::Apply(slice(1, "shop", &[(1, 600_001)]))]);
    assert!(delta.is_empty(), "what did not change is not written: {delta:?}");
    exporter.apply([gone(&slice(2, "shop", &[]))]);
    assert_eq!(published(&exporter), expected(&[(1, 600_001)]));
    // All that is there, without what is gone.
    exporter.reset([slice(3, "shop", &[(4, 600_004)])]);
    assert_eq!(published(&exporter), expected(&[(4, 600_004)]));
    exporter.reset([]);
    assert_eq!(published(&exporter), BTreeSet::new());
    assert_eq!(exporter.index().references().count(), 0);
}

#[derive(Clone, Debug)]
enum Act {
    Own(u8, u32),
    NoOwn(u8),
    Slice(u8, bool, Vec<(u8, u32)>),
    NoSlice(u8),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let numbers = || (1..5u8, 600_000..600_004u32);
    let act = prop_oneof![
        numbers().prop_map(|(number, identity)| Act::Own(number, identity)),
        (1..5u8).prop_map(Act::NoOwn),
        (1..4u8, any::<bool>(), proptest::collection::vec(numbers(), 0..4))
            .prop_map(|(name, moved, endpoints)| Act::Slice(name, moved, endpoints)),
        (1..4u8).prop_map(Act::NoSlice),
    ];
    proptest::collection::vec(act, 1..30)
}

proptest! {
    #[test]
    fn step_by_step_and_at_once_are_the_same(acts in acts()) {
        let mut exporter = exporter();
        let mut objects = BTreeMap::new();
        for act in acts {
            let (object, is_there) = match &act {
                Act::Own(number, identity) => (own(*number, *identity), true),
                Act::NoOwn(number) => (own(*number, 0), false),
                Act::Slice(name, moved, endpoints) => (slice(*name, if *moved { "back" } else { "shop" }, endpoints), true),
                Act::NoSlice(name) => (slice(*name, "shop", &[]), false),
            };
            let reference = object.reference().clone();
            let change = match is_there {
                true => {
                    objects.insert(reference, object.clone());
                    Change::Apply(object)
                }
                false => {
                    objects.remove(&reference);
                    Change::Delete(reference)
                }
            };
            exporter.apply([change]);
        }
        let mut anew = self::exporter();
        anew.reset(objects.into_values());
        prop_assert_eq!(exporter.desired(), anew.desired());
    }
}
