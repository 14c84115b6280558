//! What a hub says about the etcd that it dials for its store.

use crate::client::ConnectError;
use crate::key::KeyKind;
use crate::profile::LeafRole;
use crate::verifier::fixture::{Holder, Member, Root, connect, now};
use crate::verifier::{Expected, Role};
use rcgen::{ExtendedKeyUsagePurpose, SanType};
use rustls::pki_types::CertificateDer;

/// An etcd of this cluster under a name of its own.
fn etcd(member: &Member, role: LeafRole) -> Holder {
    member.holder_with(role, now(), |params| {
        let name = "etcd-0.isthmus.svc".try_into().expect("ASCII");
        params.subject_alt_names.push(SanType::DnsName(name));
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    })
}

/// Dials `server` as a hub whose `ca.crt` is `anchor`; returns what it is, or the sentence.
async fn dial(
    server: &Holder,
    paris: &Member,
    anchor: &CertificateDer<'static>,
    name: &str,
) -> Result<Role, String> {
    let anchor = std::slice::from_ref(anchor);
    // The server side is our own acceptor, which accepts this client as a hub; only the client's side is looked at.
    let client = paris.holder(LeafRole::Hub).credentials_accepting(anchor, &[]);
    let (_, connecting) = connect(&server.credentials(), &client, Expected::Store, name).await;
    match connecting {
        Ok((_, identity)) => Ok(identity.accepted().expect("accepted").role.clone()),
        Err(ConnectError::Certificate { sentence }) => Err(sentence),
        Err(other) => panic!("a certificate error, not {other:?}"),
    }
}

#[tokio::test]
async fn the_store_is_an_etcd_of_the_own_cluster_by_its_name() {
    let root = Root::new(KeyKind::P256);
    let (paris, tokyo) = (root.member("paris", 1), root.member("tokyo", 2));
    let store = Role::Store { common_name: "isthmus etcd".to_owned() };
    let own = etcd(&paris, LeafRole::Etcd);
    for name in ["etcd-0.isthmus.svc", "127.0.0.1", "::1"] {
        assert_eq!(dial(&own, &paris, &paris.der, name).await.as_ref(), Ok(&store), "{name}");
    }
    let refused = async |server: &Holder, anchor: &CertificateDer<'static>, name: &str, part: &str| {
        let sentence = dial(server, &paris, anchor, name).await.expect_err(part);
        assert!(sentence.contains(part), "{part:?} expected in: {sentence}");
    };
    refused(&own, &paris.der, "etcd-1.isthmus.svc", "it is not valid for").await;
    refused(&own, &paris.der, "paris.mesh.cilium.io", "it is not valid for").await;
    // Permitted to everyone, so another member can have the name.
    let other = etcd(&tokyo, LeafRole::Etcd);
    refused(&other, &paris.der, "etcd-0.isthmus.svc", "no path to an accepted root").await;
    // A leaf of this cluster for something else, however it came by the name.
    for role in [LeafRole::Hub, LeafRole::Local, LeafRole::Store] {
        refused(&etcd(&paris, role), &paris.der, "etcd-0.isthmus.svc", "expected one of the role etcd").await;
    }
    // Whoever puts the mesh root into ca.crt is told why not.
    refused(&own, &root.der, "etcd-0.isthmus.svc", "every member of the mesh could be the store").await;
    // An authority that the operator keeps for this etcd.
    let foreign = Root::foreign("etcd authority");
    let theirs = etcd(&foreign.member("paris", 1), LeafRole::Etcd);
    assert_eq!(dial(&theirs, &paris, &foreign.der, "etcd-0.isthmus.svc").await, Ok(store));
}

#[tokio::test]
async fn certificates_of_the_store_are_nobodys_at_a_hub() {
    let root = Root::new(KeyKind::P256);
    let paris = root.member("paris", 1);
    let hub = paris.holder(LeafRole::Hub).credentials();
    for role in [LeafRole::Etcd, LeafRole::Store] {
        let client = paris.holder(role).credentials();
        let (accepting, _) = connect(&hub, &client, Expected::OwnHub, "paris.mesh.cilium.io").await;
        let (_, identity) = accepting.expect("a complete handshake");
        let refusal = identity.refusal().expect("refused").to_string();
        assert!(
            refusal.contains(&format!("common name isthmus {role}, expected remote-<cluster>")),
            "{refusal}"
        );
    }
    // And an etcd cannot pass for the hub.
    let etcd = paris.holder(LeafRole::Etcd);
    let client = paris.holder(LeafRole::Local).credentials();
    let (_, connecting) = connect(&etcd.credentials(), &client, Expected::OwnHub, "127.0.0.1").await;
    let Err(error) = connecting else { panic!("an etcd passes for the hub") };
    let error = error.to_string();
    assert!(error.contains("is not that of the role etcd in its URI"), "{error}");
}
