use std::sync::Arc;

use serde_json::json;

use super::super::following::enforced;
use super::*;

const END: &str = "https://hub.example:2379";

fn name(text: &str) -> ClusterName {
    text.parse().expect("a name")
}

fn seen<K: super::super::raw::Custom>(objects: &[(&str, u8, Value)]) -> Seen<K> {
    let object = |(name, second, spec): &(&str, u8, Value)| {
        let metadata = json!({"name": name, "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")});
        let raw: Raw<K> =
            serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("an object");
        ((None, (*name).to_owned()), raw)
    };
    Seen { objects: Some(Arc::new(objects.iter().map(object).collect())), trouble: None }
}

fn decided(peers: &[(&str, u8, Value)], in_file: &[&str]) -> Decision {
    let own = Own { name: name("paris"), id: ClusterId::try_from(1).expect("an id") };
    decide(&seen(peers), &Seen::default(), &in_file.iter().map(|text| name(text)).collect(), &own)
}

#[track_caller]
fn accepted(decision: &Decision, object: &str) -> (bool, &'static str, String) {
    let said =
        decision.peers[object].statements.iter().find(|said| said.kind == ACCEPTED).expect("it is said");
    (said.holds, said.reason, said.message.clone())
}

#[test]
fn a_sound_peer_is_accepted_and_followed() {
    let shop = json!({"namespaces": {"include": ["shop"]}});
    let decision = decided(&[("tokyo", 1, json!({"endpoints": [END], "export": shop}))], &[]);
    assert!(accepted(&decision, "tokyo").0);
    assert!(matches!(decision.followed[&name("tokyo")].1, Followed::Anew(_)));
    let filter = serde_json::from_value(shop).expect("a filter");
    assert_eq!(decision.filters.filters, [(name("tokyo"), filter)].into());
    assert_eq!(decision.findings(), []);
}

#[test]
fn the_older_one_of_two_that_claim_a_name_or_an_id_counts() {
    let peer = |cluster: &str, id: u16| json!({"endpoints": [END], "cluster": {"name": cluster, "id": id}});
    let objects = [
        ("a", 9, peer("tokyo", 2)),
        ("b", 1, peer("tokyo", 3)),
        ("c", 5, peer("lima", 3)),
        ("d", 6, peer("oslo", 1)),
    ];
    let decision = decided(&objects, &[]);
    assert_eq!(accepted(&decision, "b").1, "Accepted");
    for (object, said) in [("a", "ClusterPeer b"), ("c", "ClusterPeer b"), ("d", "cluster that it is in")] {
        let (holds, reason, message) = accepted(&decision, object);
        assert!(!holds && reason == "Conflict" && message.contains(said), "{object}: {message}");
    }
    assert_eq!(decision.followed.keys().collect::<Vec<_>>(), [&name("tokyo")]);
    assert_eq!(decision.followed[&name("tokyo")].0, "b");
    assert_eq!(decision.findings().len(), 3);
    let own = decided(&[("paris", 1, json!({"endpoints": [END]}))], &[]);
    assert_eq!(accepted(&own, "paris").1, "Conflict");
}

#[test]
fn the_file_counts_before_an_object_and_a_pause_before_both() {
    let shop = json!({"endpoints": [END], "export": {"namespaces": {"include": ["shop"]}}});
    let mut paused = shop.clone();
    paused["paused"] = json!(true);
    let plain = json!({"endpoints": [END]});
    let objects = [("tokyo", 1, shop), ("lima", 1, paused), ("oslo", 1, plain)];
    let decision = decided(&objects, &["tokyo", "oslo"]);
    assert_eq!(accepted(&decision, "tokyo").1, "Conflict");
    assert!(decision.followed.contains_key(&name("tokyo")), "the conflict is about what it is shown");
    assert_eq!(accepted(&decision, "oslo").1, "Accepted");
    assert_eq!(decision.filters.paused, [name("lima")].into());
    assert_eq!(decision.paused, [(name("lima"), "lima".to_owned())].into());
    assert!(!decision.followed.contains_key(&name("lima")));
    assert!(decision.peers["lima"].statements.iter().any(|said| said.kind == PAUSED && said.holds));
}

#[test]
fn what_has_no_meaning_leaves_in_force_what_was() {
    let export = json!({"endpoints": [END], "export": {"services": {"include": ["shop"]}}});
    let decision = decided(
        &[
            ("tokyo", 1, json!({"endpoints": ["https://a:0"]})),
            ("lima", 1, export),
            ("oslo", 1, json!({"endpoints": 1})),
        ],
        &[],
    );
    assert_eq!(accepted(&decision, "tokyo").1, "BadEndpoint");
    assert_eq!(accepted(&decision, "lima").1, "BadExport");
    assert_eq!(accepted(&decision, "oslo").1, "Invalid");
    assert_eq!(decision.filters.held, [name("lima"), name("oslo")].into());
    assert!(decision.followed.values().all(|(_, followed)| *followed == Followed::AsBefore), "{decision:?}");
    assert_eq!(decision.followed.len(), 3);
}

#[test]
fn what_bounds_a_peer_is_in_force_with_those_who_follow_it() {
    use mesh_resources::condition::{ENFORCED, FOLLOWED, PUBLISHED};

    let spec = json!({"endpoints": [END], "import": {"preset": "Nothing"}, "trust": {"unattested": {"cidrs": ["10.0.0.0/8"]}}});
    let decision = decided(&[("tokyo", 1, spec), ("lima", 1, json!({"endpoints": [END]}))], &[]);
    assert!(decision.peers["lima"].bounds.is_empty());
    let said = |statements: &[(&'static str, bool, &'static str)]| {
        let mut judged = decision.peers["tokyo"].clone();
        let statements =
            statements.iter().map(|(kind, holds, reason)| Statement::new(kind, *holds, reason, ""));
        judged.statements.extend(statements);
        let said = enforced(&judged, Some("mesh/peers")).expect("it is said");
        assert_eq!(said.kind, ENFORCED);
        assert!(said.message.starts_with("spec.import, spec.trust.unattested: "), "{}", said.message);
        (said.holds, said.reason)
    };
    assert_eq!(said(&[]), (false, "NotFollowed"));
    let (fresh, published) = ((FOLLOWED, true, "Fresh"), (PUBLISHED, true, "Published"));
    assert_eq!(said(&[fresh]), (true, "Enforced"));
    assert_eq!(said(&[(FOLLOWED, false, "Stale"), published]), (true, "Enforced"));
    assert_eq!(said(&[(FOLLOWED, false, "Conflict"), published]), (false, "InPart"));
    assert_eq!(said(&[fresh, (PUBLISHED, false, "NotWritten")]), (false, "InPart"));
    assert_eq!(said(&[(FOLLOWED, false, "Conflict")]), (false, "NotEnforced"));
}

#[test]
fn before_a_list_nothing_is_known() {
    let own = Own { name: name("paris"), id: ClusterId::try_from(1).expect("an id") };
    let decision = decide(&Seen::default(), &Seen::default(), &BTreeSet::new(), &own);
    assert!(!decision.filters.is_known);
}

#[test]
fn policies_are_checked_and_the_older_one_counts() {
    let tiers = json!([{"to": "Any"}]);
    let of = |services: Value| json!({"services": services, "tiers": tiers});
    let policies = seen::<FailoverPolicy>(&[
        ("a", 1, json!({"tiers": tiers})),
        ("b", 2, json!({"tiers": tiers})),
        ("c", 3, of(json!({"names": ["cart"]}))),
        ("d", 4, of(json!({"names": ["mail", "cart"]}))),
        ("e", 5, json!({"tiers": [{"to": "Clusters"}]})),
    ]);
    let own = Own { name: name("paris"), id: ClusterId::try_from(1).expect("an id") };
    let decision = decide(&Seen::default(), &policies, &BTreeSet::new(), &own);
    let reasons: Vec<&str> = decision.policies.values().map(|judged| judged.statements[0].reason).collect();
    assert_eq!(reasons, ["Accepted", "Conflict", "Accepted", "Conflict", "Invalid"]);
    assert!(decision.policies.values().all(|judged| judged.statements[1].kind == PROGRAMMED));
}
