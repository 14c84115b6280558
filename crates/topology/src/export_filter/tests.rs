//! Each rule on each kind of record.

use proptest::prelude::*;

use super::{ExportFilter, Verdict};
use crate::labels::Labels;
use crate::record::ip::IpValue;
use crate::record::service::ServiceValue;
use crate::record::slice::{MapEntry, SliceValue};

fn filter(json: &str) -> ExportFilter {
    serde_json::from_str(json).expect("a filter")
}

fn service(namespace: &str, name: &str, labels: &[(&str, &str)]) -> (String, Vec<u8>) {
    let value = ServiceValue {
        cluster: "north".to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        ..ServiceValue::default()
    };
    (format!("cilium/state/services/v1/north/{namespace}/{name}"), value.encode())
}

fn slice(namespace: &str, name: &str, labels: &[(&str, &str)]) -> (String, Vec<u8>) {
    let labels = labels.iter().map(|(k, v)| MapEntry { key: (*k).to_owned(), value: (*v).to_owned() });
    let value = SliceValue {
        cluster: "north".to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        labels: labels.collect(),
        ..SliceValue::default()
    };
    (format!("cilium/state/endpointslices/v1/north/{namespace}/{name}"), value.encode())
}

fn identity(labels: &str) -> (String, Vec<u8>) {
    ("cilium/state/identities/v1/id/589825".to_owned(), labels.into())
}

fn ip(namespace: &str) -> (String, Vec<u8>) {
    let value =
        IpValue { ip: "10.9.0.7".to_owned(), k8s_namespace: namespace.to_owned(), ..IpValue::default() };
    ("cilium/state/ip/v1/default/10.9.0.7".to_owned(), value.encode())
}

#[track_caller]
fn check(filter: &ExportFilter, record: &(String, Vec<u8>), expected: Verdict) {
    let (key, value) = record;
    assert_eq!(filter.judge(key.as_bytes(), value), expected, "{key} with {}", value.escape_ascii());
}

use Verdict::{Hidden, Shown, Unreadable};

const SHOP_ONLY: &str = r#"{"namespaces":{"include":["shop","pay-*"],"exclude":["pay-test"]}}"#;

#[test]
fn namespaces_hide_services_slices_identities_and_addresses() {
    let filter = filter(SHOP_ONLY);
    for (namespace, expected) in [("shop", Shown), ("pay-eu", Shown), ("pay-test", Hidden), ("bank", Hidden)]
    {
        check(&filter, &service(namespace, "cart", &[]), expected);
        check(&filter, &slice(namespace, "cart-x", &[]), expected);
        check(&filter, &identity(&format!("k8s:io.kubernetes.pod.namespace={namespace};")), expected);
        check(&filter, &ip(namespace), expected);
    }
}

#[test]
fn an_address_without_a_namespace_is_shown_and_an_identity_is_not() {
    let filter = filter(SHOP_ONLY);
    check(&filter, &ip(""), Shown);
    check(&filter, &identity("k8s:app=cart;"), Hidden);
    let other_source = identity("any:io.kubernetes.pod.namespace=shop;");
    check(&filter, &other_source, Hidden);
}

#[test]
fn services_are_chosen_by_name_and_their_slices_with_them() {
    let filter = filter(r#"{"services":{"include":["shop/*"],"exclude":["*/internal-*"]}}"#);
    for (name, expected) in [("cart", Shown), ("internal-cart", Hidden)] {
        check(&filter, &service("shop", name, &[]), expected);
        check(&filter, &slice("shop", "s1", &[("kubernetes.io/service-name", name)]), expected);
    }
    check(&filter, &service("bank", "cart", &[]), Hidden);
    check(&filter, &slice("shop", "s1", &[]), Hidden);
    // Pods are not services.
    check(&filter, &identity("k8s:io.kubernetes.pod.namespace=bank;"), Shown);
    check(&filter, &ip("bank"), Shown);
}

#[test]
fn labels_choose_services_slices_and_identities() {
    let filter = filter(r#"{"labels":{"matchLabels":{"mesh":"yes"}}}"#);
    for (value, expected) in [("yes", Shown), ("no", Hidden)] {
        check(&filter, &service("shop", "cart", &[("mesh", value)]), expected);
        check(&filter, &slice("shop", "cart-x", &[("mesh", value)]), expected);
        check(&filter, &identity(&format!("k8s:mesh={value};")), expected);
    }
    check(&filter, &service("shop", "cart", &[]), Hidden);
    check(&filter, &identity("any:mesh=yes;"), Hidden);
    check(&filter, &ip("bank"), Shown);
}

#[test]
fn who_a_cluster_is_and_its_nodes_are_always_shown() {
    let nobody = filter(
        r#"{"namespaces":{"exclude":["*"]},"services":{"exclude":["*/*"]},
            "labels":{"matchLabels":{"no":"such"}}}"#,
    );
    for key in [
        "cilium/.heartbeat",
        "cilium/cluster-config/north",
        "cilium/synced/north/cilium/state/nodes/v1",
        "cilium/state/nodes/v1/north/n1",
        "isthmus/v1/shared/digest",
    ] {
        check(&nobody, &(key.to_owned(), b"whatever".to_vec()), Shown);
    }
    check(&nobody, &ip(""), Shown);
    for record in [service("shop", "cart", &[]), slice("shop", "x", &[]), identity("k8s:a=b;"), ip("shop")] {
        check(&nobody, &record, Hidden);
    }
}

#[test]
fn shared_records_that_name_a_service_are_judged_by_its_name() {
    let shared = |rest: &str| (format!("isthmus/v1/shared/{rest}"), Vec::new());
    let by_name = filter(r#"{"services":{"include":["shop/cart"]}}"#);
    check(&by_name, &shared("services/shop/cart"), Shown);
    check(&by_name, &shared("services/shop/cart/health"), Shown);
    check(&by_name, &shared("services/shop/other"), Hidden);
    check(&by_name, &shared("services/shop"), Unreadable);
    check(&filter(r#"{"labels":{"matchLabels":{"a":"b"}}}"#), &shared("services/shop/cart"), Hidden);
}

#[test]
fn what_cannot_be_read_is_not_shown() {
    let all_namespaces = filter(r#"{"namespaces":{"include":["*"]}}"#);
    let (key, sound) = service("shop", "cart", &[]);
    check(&all_namespaces, &(key.clone(), sound), Shown);
    check(&all_namespaces, &(key.clone(), b"no JSON".to_vec()), Unreadable);
    check(&all_namespaces, &(key, service("bank", "cart", &[]).1), Unreadable);
    check(&all_namespaces, &(slice("shop", "x", &[]).0, slice("bank", "x", &[]).1), Unreadable);
    check(&all_namespaces, &(slice("shop", "x", &[]).0, b"no zstd".to_vec()), Unreadable);
    check(&all_namespaces, &identity("no labels"), Unreadable);
    check(&all_namespaces, &(ip("").0, b"[".to_vec()), Unreadable);
    for key in [
        "cilium/state/serviceexports/v1/north/shop/cart",
        "cilium/state/services/v1/north/shop",
        "cilium/state/services/v1/north/shop/cart/more",
        "cilium/state/services/v2/north/shop/cart",
        "isthmus/v1/local/services/shop/cart",
        "anything",
    ] {
        check(&all_namespaces, &(key.to_owned(), b"{}".to_vec()), Unreadable);
    }
    assert_eq!(all_namespaces.judge(b"cilium/state/\xff", b""), Unreadable);
}

#[test]
fn a_member_that_is_not_known_is_an_error() {
    for bad in [
        r#"{"namespace":{}}"#,
        r#"{"namespaces":{"includes":["a"]}}"#,
        r#"{"labels":{"matchLabel":{}}}"#,
        r#"{"services":{"include":["shop"]}}"#,
        r#"{"namespaces":["shop"]}"#,
    ] {
        assert!(serde_json::from_str::<ExportFilter>(bad).is_err(), "{bad}");
    }
}

fn any_filter() -> impl Strategy<Value = ExportFilter> {
    let globs = || prop::collection::btree_set("[ab*?]{1,3}", 0..3);
    let services = || prop::collection::btree_set("[ab*?]{1,2}/[ab*?]{1,2}", 0..3);
    let labels = prop::collection::btree_map("[ab]", "[ab]", 0..2);
    (globs(), globs(), services(), services(), labels).prop_map(|(ni, ne, si, se, labels)| {
        let lists = |include: std::collections::BTreeSet<String>,
                     exclude: std::collections::BTreeSet<String>| {
            match include.is_empty() {
                true => serde_json::json!({ "exclude": exclude }),
                false => serde_json::json!({ "include": include, "exclude": exclude }),
            }
        };
        let json = serde_json::json!({
            "namespaces": lists(ni, ne), "services": lists(si, se), "labels": { "matchLabels": labels },
        });
        serde_json::from_value(json).expect("a filter")
    })
}

proptest! {
    #[test]
    fn json_reads_back_and_is_the_same_for_equal_filters(filter in any_filter()) {
        let json = serde_json::to_string(&filter).expect("JSON");
        let again: ExportFilter = serde_json::from_str(&json).expect("our own JSON");
        prop_assert_eq!(serde_json::to_string(&again).expect("JSON"), json);
        prop_assert_eq!(again, filter);
    }

    /// The three parts narrow independently: all three together show what each of them shows alone.
    #[test]
    fn a_record_is_shown_if_no_part_hides_it(
        filter in any_filter(), namespace in "[ab]{1,2}", name in "[ab]{1,2}", label in "[ab]"
    ) {
        let parts = [
            ExportFilter { namespaces: filter.namespaces.clone(), ..ExportFilter::default() },
            ExportFilter { services: filter.services.clone(), ..ExportFilter::default() },
            ExportFilter { labels: filter.labels.clone(), ..ExportFilter::default() },
        ];
        for (key, value) in [
            service(&namespace, &name, &[("a", &label)]),
            slice(&namespace, "x", &[("kubernetes.io/service-name", &name), ("a", &label)]),
            identity(&format!("k8s:a={label};k8s:io.kubernetes.pod.namespace={namespace};")),
            ip(&namespace),
        ] {
            let shown = parts.iter().all(|part| part.judge(key.as_bytes(), &value) == Shown);
            let expected = if shown { Shown } else { Hidden };
            prop_assert_eq!(filter.judge(key.as_bytes(), &value), expected, "{}", key);
        }
    }

    #[test]
    fn rubbish_is_judged_without_a_panic(
        filter in any_filter(), kind in 0usize..8, rest in prop::collection::vec(any::<u8>(), 0..12),
        value in prop::collection::vec(any::<u8>(), 0..40)
    ) {
        let prefixes = [
            "cilium/state/services/v1/", "cilium/state/endpointslices/v1/c/", "cilium/state/identities/v1/id/",
            "cilium/state/ip/v1/default/", "isthmus/v1/shared/services/", "cilium/state/", "", "cilium/state/services/v1/c/a/",
        ];
        let key = [prefixes[kind].as_bytes(), &rest].concat();
        filter.judge(&key, &value);
    }

    #[test]
    fn labels_of_other_sources_do_not_count(text in "[ab]") {
        let filter = filter(&format!(r#"{{"labels":{{"matchLabels":{{"a":"{text}"}}}}}}"#));
        let mut labels = Labels::default();
        labels.insert_k8s("a", &text);
        check(&filter, &identity(&labels.to_string()), Shown);
        check(&filter, &identity(&labels.to_string().replace("k8s:", "cni:")), Hidden);
    }
}
