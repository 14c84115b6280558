//! What a hub says about those who dial it. The hub is paris's; tokyo and osaka are members.

use std::time::Duration;

use rcgen::{BasicConstraints, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};

use crate::blocks;
use crate::files::LiveCredentials;
use crate::key::KeyKind;
use crate::profile::{LeafRole, life};
use crate::server::{AcceptError, Acceptor};
use crate::verifier::Role;
use crate::verifier::careless::careless_client;
use crate::verifier::fixture::{Accepting, Holder, Member, Root, ago, now, set_common_name, set_uri, space};

struct Stage {
    root: Root,
    paris: Member,
    tokyo: Member,
    hub: LiveCredentials,
}

fn stage_of(kind: KeyKind) -> Stage {
    let root = Root::new(kind);
    let (paris, tokyo) = (root.member("paris", 1), root.member("tokyo", 2));
    let hub = paris.holder(LeafRole::Hub).credentials();
    Stage { root, paris, tokyo, hub }
}

fn stage() -> Stage {
    stage_of(KeyKind::P256)
}

/// The hub's result; the client does not look at the server.
async fn accept(hub: &LiveCredentials, client: &Holder) -> Accepting {
    let (near, far) = tokio::io::duplex(1 << 16);
    let (acceptor, connector) = (Acceptor::new(hub.clone()), careless_client(client));
    let name = "paris.mesh.cilium.io".try_into().expect("a name");
    let (accepting, _connecting) = tokio::join!(acceptor.accept(far), connector.connect(name, near));
    accepting
}

async fn role(hub: &LiveCredentials, client: &Holder) -> Role {
    let (_, identity) = accept(hub, client).await.expect("a complete handshake");
    identity.accepted().unwrap_or_else(|| panic!("accepted, not {identity}")).role.clone()
}

/// The line that our own log gets for a refused client.
async fn refusal(hub: &LiveCredentials, client: &Holder) -> String {
    let (_, identity) = accept(hub, client).await.expect("a complete handshake");
    assert!(identity.refusal().is_some(), "refused, not {identity}");
    identity.to_string()
}

/// The line that our own log gets for a failed handshake.
async fn failure(hub: &LiveCredentials, client: &Holder) -> String {
    match accept(hub, client).await {
        Err(AcceptError::Certificate { sentence }) => sentence,
        Err(other) => panic!("a certificate error, not {other:?}"),
        Ok((_, identity)) => panic!("a failed handshake, not {identity}"),
    }
}

fn holds(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} expected in: {text}");
    }
}

#[tokio::test]
async fn honest_clients_get_their_roles() {
    for kind in [KeyKind::P256, KeyKind::Ed25519] {
        let Stage { paris, tokyo, hub, .. } = stage_of(kind);
        let node = || "n1".parse().expect("a node");
        let (tokyo_name, id) = ("tokyo".parse().expect("a name"), 2.try_into().expect("an id"));
        assert_eq!(role(&hub, &paris.holder(LeafRole::Local)).await, Role::Local { node: node() });
        assert_eq!(role(&hub, &paris.holder(LeafRole::Admin)).await, Role::Admin { node: node() });
        let remote = role(&hub, &tokyo.holder(LeafRole::Remote)).await;
        assert_eq!(remote, Role::Remote { peer: tokyo_name, id, node: node() });
        let cluster = "tokyo".parse().expect("a name");
        assert_eq!(role(&hub, &tokyo.holder(LeafRole::Hub)).await, Role::Hub { cluster, id, node: node() });
    }
}

#[tokio::test]
async fn an_accepted_client_brings_its_passport() {
    let Stage { tokyo, hub, .. } = stage();
    let (_, identity) = accept(&hub, &tokyo.holder(LeafRole::Remote)).await.expect("a complete handshake");
    let accepted = identity.accepted().expect("accepted");
    let passport = accepted.passport.as_ref().expect("a passport");
    assert_eq!(passport.blocks, space(&["10.2.0.0/16", "fd00:10:2::/48"]));
    assert_eq!(passport.spki, tokyo.key.spki());
    assert!(accepted.expires <= now() + life::CLIENT);
}

#[tokio::test]
async fn a_certificate_of_another_root_fails() {
    let Stage { hub, .. } = stage();
    let other = Root::new(KeyKind::P256).member("tokyo", 2);
    let text = failure(&hub, &other.holder(LeafRole::Remote)).await;
    holds(
        &text,
        &["client presented certificate CN=remote-tokyo", "no path to an accepted root", "CN=isthmus root"],
    );
}

#[tokio::test]
async fn a_leaf_without_its_passport_fails() {
    let Stage { tokyo, hub, .. } = stage();
    let mut alone = tokyo.holder(LeafRole::Remote);
    alone.chain.truncate(1);
    holds(&failure(&hub, &alone).await, &["no path to an accepted root", "leaf, then its passport"]);
}

#[tokio::test]
async fn a_common_name_counts_only_under_the_right_passport() {
    let Stage { tokyo, hub, .. } = stage();
    for (name, named) in [
        ("remote-osaka", "osaka"),
        ("remote-paris", "paris"),
        ("admin-paris", "paris"),
        ("local-paris", "paris"),
    ] {
        for role in [LeafRole::Remote, LeafRole::Local, LeafRole::Admin] {
            let hostile = tokyo.holder_with(role, now(), |params| set_common_name(params, name));
            let text = refusal(&hub, &hostile).await;
            let expected = format!("certificate CN={name} issued by CN=isthmus cluster tokyo, serial ");
            holds(&text, &[&expected, &format!("common name names {named}, passport is tokyo's")]);
        }
    }
}

#[tokio::test]
async fn a_uri_of_another_cluster_is_refused() {
    let Stage { tokyo, hub, .. } = stage();
    for (uri, part) in [
        ("spiffe://mesh.example/cluster/paris/node/n1/admin", "its URI names paris in mesh.example"),
        ("spiffe://other.example/cluster/tokyo/node/n1/admin", "its URI names tokyo in other.example"),
        ("spiffe://mesh.example/cluster/tokyo/node/n1/root", "expected spiffe://<trust-domain>/cluster/"),
    ] {
        let hostile = tokyo.holder_with(LeafRole::Admin, now(), |params| {
            set_common_name(params, "admin-paris");
            set_uri(params, uri);
        });
        holds(&refusal(&hub, &hostile).await, &[part]);
    }
    let none = tokyo.holder_with(LeafRole::Remote, now(), |params| params.subject_alt_names.clear());
    holds(&refusal(&hub, &none).await, &["the leaf has 0 URIs"]);
}

#[tokio::test]
async fn another_clusters_own_people_are_not_ours() {
    let Stage { tokyo, hub, .. } = stage();
    for (role, name) in [(LeafRole::Admin, "admin-tokyo"), (LeafRole::Local, "local-tokyo")] {
        let text = refusal(&hub, &tokyo.holder(role)).await;
        holds(&text, &[name, "counts only under this cluster's own passport, presented was that of tokyo"]);
    }
}

#[tokio::test]
async fn names_that_no_rule_knows_are_refused() {
    let Stage { tokyo, paris, hub, .. } = stage();
    for name in ["root", "remote", "remote-", "Remote-tokyo", "hub-tokyo", ""] {
        for member in [&tokyo, &paris] {
            let odd = member.holder_with(LeafRole::Remote, now(), |params| set_common_name(params, name));
            holds(&refusal(&hub, &odd).await, &["expected remote-<cluster>, local-<cluster>"]);
        }
    }
    let mixed = paris.holder_with(LeafRole::Local, now(), |params| set_common_name(params, "admin-paris"));
    holds(&refusal(&hub, &mixed).await, &["common name admin-paris is not that of the role local"]);
}

#[tokio::test]
async fn our_own_name_or_id_under_another_key_is_refused() {
    let Stage { root, hub, .. } = stage();
    let twin = root.member("paris", 7);
    holds(&refusal(&hub, &twin.holder(LeafRole::Remote)).await, &["bears this cluster's own name paris"]);
    holds(
        &refusal(&hub, &twin.holder(LeafRole::Admin)).await,
        &["counts only under this cluster's own passport"],
    );
    let same_id = root.member("tokyo", 1);
    holds(
        &refusal(&hub, &same_id.holder(LeafRole::Remote)).await,
        &["gives cluster tokyo this cluster's own id 1"],
    );
}

#[tokio::test]
async fn dates_are_checked_along_the_whole_chain() {
    let Stage { root, tokyo, hub, .. } = stage();
    let expired = tokyo.holder_with(LeafRole::Remote, ago(2), |_| {});
    holds(&failure(&hub, &expired).await, &["a certificate of its chain ended at ", "Z, now 2"]);
    let later = now() + Duration::from_secs(3600);
    let future = tokyo.holder_with(LeafRole::Remote, later, |_| {});
    holds(&failure(&hub, &future).await, &["a certificate of its chain starts at "]);
    let lapsed = root.member_with("tokyo", 2, ago(800), |_| {});
    let leaf = lapsed.holder_with(LeafRole::Remote, ago(800), |params| {
        params.not_after += life::ROOT;
    });
    holds(&failure(&hub, &leaf).await, &["a certificate of its chain ended at "]);
}

#[tokio::test]
async fn an_ended_root_counts_for_nothing() {
    let root = Root::valid_for(KeyKind::P256, ago(30), Duration::from_secs(86_400));
    let hub = root.member("paris", 1).holder(LeafRole::Hub).credentials();
    let text = failure(&hub, &root.member("tokyo", 2).holder(LeafRole::Remote)).await;
    holds(&text, &["the accepted root CN=isthmus root", "ended at"]);
}

#[tokio::test]
async fn a_leaf_must_be_made_for_clients() {
    let Stage { tokyo, hub, .. } = stage();
    let no_eku = tokyo.holder_with(LeafRole::Remote, now(), |params| params.extended_key_usages.clear());
    holds(&failure(&hub, &no_eku).await, &["it has no extended key usage, expected clientAuth"]);
    let server_only = tokyo.holder_with(LeafRole::Remote, now(), |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    holds(&failure(&hub, &server_only).await, &["its extended key usage does not list clientAuth"]);
    let agreement = tokyo.holder_with(LeafRole::Remote, now(), |params| {
        params.key_usages = vec![KeyUsagePurpose::KeyAgreement];
    });
    holds(&failure(&hub, &agreement).await, &["it lacks the key usage digitalSignature"]);
}

#[tokio::test]
async fn leaves_are_no_authorities() {
    let Stage { root, tokyo, hub, .. } = stage();
    let minted = tokyo.holder(LeafRole::Remote).mint_below();
    holds(&failure(&hub, &minted).await, &["signed by a leaf, expected a passport as issuer"]);
    let sub_ca = tokyo.holder_with(LeafRole::Remote, now(), |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages.push(KeyUsagePurpose::KeyCertSign);
    });
    let below = sub_ca.mint_below();
    holds(&failure(&hub, &below).await, &["an authority below a passport"]);
    let long = root.member_with("tokyo", 2, now(), |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    });
    holds(&refusal(&hub, &long.holder(LeafRole::Remote)).await, &["path length is not limited, expected 0"]);
}

#[tokio::test]
async fn names_and_addresses_stay_inside_the_passport() {
    let Stage { tokyo, hub, .. } = stage();
    let dns = |name: &str| SanType::DnsName(name.try_into().expect("ASCII"));
    for name in ["paris.mesh.cilium.io", "eviltokyo.mesh.cilium.io", "*.mesh.cilium.io", "example.com"] {
        let leaf =
            tokyo.holder_with(LeafRole::Remote, now(), |params| params.subject_alt_names.push(dns(name)));
        holds(&failure(&hub, &leaf).await, &["a name or address that its passport does not permit"]);
    }
    for address in ["192.0.2.9", "8.8.8.8", "2001:db8::1"] {
        let address = SanType::IpAddress(address.parse().expect("an address"));
        let leaf =
            tokyo.holder_with(LeafRole::Remote, now(), |params| params.subject_alt_names.push(address));
        holds(&failure(&hub, &leaf).await, &["a name or address that its passport does not permit"]);
    }
    // webpki lets a wildcard below the permitted name pass; we do not.
    let wild = tokyo.holder_with(LeafRole::Remote, now(), |params| {
        params.subject_alt_names.push(dns("*.tokyo.mesh.cilium.io"));
    });
    holds(&refusal(&hub, &wild).await, &["wildcard name *.tokyo.mesh.cilium.io"]);
}

#[tokio::test]
async fn a_passport_must_be_one() {
    let Stage { root, hub, .. } = stage();
    let extension = |der: &[u8]| CustomExtension::from_oid_content(blocks::OID, der.to_vec());
    let inherit = [0x30, 8, 0x30, 6, 4, 2, 0, 1, 5, 0];
    let unmerged =
        [0x30, 0x18, 0x30, 0x16, 4, 2, 0, 1, 0x30, 0x10, 3, 5, 7, 10, 2, 0, 0, 3, 5, 7, 10, 2, 0, 0x80, 5, 0];
    let mapped = space(&["10.2.0.0/16", "::/0"]).to_der();
    let twice = space(&["10.2.0.0/16"]).to_der();
    type Change = Box<dyn FnOnce(&mut rcgen::CertificateParams)>;
    let cases: Vec<(&str, Change)> = vec![
        ("carries no address blocks", Box::new(|params| params.custom_extensions.clear())),
        ("found inherit", Box::new(move |params| params.custom_extensions = vec![extension(&inherit)])),
        ("malformed DER", Box::new(move |params| params.custom_extensions = vec![extension(&unmerged)])),
        ("::ffff:0:0/96", Box::new(move |params| params.custom_extensions = vec![extension(&mapped)])),
        (
            "malformed or there twice",
            Box::new(move |params| params.custom_extensions.push(extension(&twice))),
        ),
        ("it has 0 URIs", Box::new(|params| params.subject_alt_names.clear())),
        (
            "cluster/<name>/id/",
            Box::new(|params| set_uri(params, "spiffe://mesh.example/cluster/tokyo/id/0")),
        ),
        (
            "it has 2 URIs",
            Box::new(|params| {
                let second = "spiffe://mesh.example/cluster/paris/id/1".try_into().expect("ASCII");
                params.subject_alt_names.push(SanType::URI(second));
            }),
        ),
        ("does not limit DNS names", Box::new(|params| params.name_constraints = None)),
        (
            "no certificate authority with key usage",
            Box::new(|params| params.key_usages = vec![KeyUsagePurpose::CrlSign]),
        ),
    ];
    for (part, change) in cases {
        let member = root.member_with("tokyo", 2, now(), change);
        holds(&refusal(&hub, &member.holder(LeafRole::Remote)).await, &["its issuer is no passport", part]);
    }
}

#[tokio::test]
async fn other_certificates_in_the_list_change_nothing() {
    let Stage { root, tokyo, hub, .. } = stage();
    let mut padded = tokyo.holder(LeafRole::Remote);
    let osaka = root.member("osaka", 3);
    padded.chain.insert(1, osaka.der.clone());
    padded.chain.push(root.der.clone());
    assert!(matches!(role(&hub, &padded).await, Role::Remote { peer, .. } if peer.as_str() == "tokyo"));
    padded.chain.extend(std::iter::repeat_n(osaka.der.clone(), 9));
    holds(&failure(&hub, &padded).await, &["it sent 13 certificates, expected at most 8"]);
}

#[tokio::test]
async fn a_root_without_blocks_vouches_for_nothing() {
    let Stage { hub, paris, .. } = stage();
    let root = Root::foreign("some organisation");
    let tokyo = root.member("tokyo", 2);
    let both = [paris.root().clone(), root.der.clone()];
    let hub_with_both = paris.holder(LeafRole::Hub).credentials_accepting(&both, &[]);
    let text = refusal(&hub_with_both, &tokyo.holder(LeafRole::Remote)).await;
    holds(&text, &["the accepted root CN=some organisation carries no address blocks"]);
    holds(&failure(&hub, &tokyo.holder(LeafRole::Remote)).await, &["no path to an accepted root"]);
}

#[tokio::test]
async fn listed_stock_authorities_give_the_legacy_name_only() {
    let Stage { paris, .. } = stage();
    let stock = Root::foreign("Cilium CA");
    let hub = paris
        .holder(LeafRole::Hub)
        .credentials_accepting(std::slice::from_ref(paris.root()), std::slice::from_ref(&stock.der));
    for (name, accepted) in
        [("remote", true), ("remote-berlin", true), ("admin-paris", false), ("root", false)]
    {
        let client = stock.leaf(name);
        let (_, identity) = accept(&hub, &client).await.expect("a complete handshake");
        match identity.accepted() {
            Some(found) => {
                assert!(accepted, "{identity}");
                assert_eq!(found.role, Role::Unattested { common_name: name.to_owned() });
                assert!(found.passport.is_none());
            }
            None => assert!(!accepted, "{identity}"),
        }
    }
}
