//! What a client says about the server it dialled.

use crate::client::ConnectError;
use crate::files::LiveCredentials;
use crate::key::KeyKind;
use crate::profile::LeafRole;
use crate::server::AcceptError;
use crate::verifier::fixture::{Connecting, Member, Root, connect, now, set_common_name};
use crate::verifier::{Expected, Role};
use rcgen::{ExtendedKeyUsagePurpose, SanType};

fn peer(name: &str) -> Expected {
    Expected::Peer(name.parse().expect("a name"))
}

fn hub(member: &Member) -> LiveCredentials {
    member.holder(LeafRole::Hub).credentials()
}

fn refused(outcome: Connecting, parts: &[&str]) {
    match outcome {
        Err(ConnectError::Certificate { sentence }) => {
            for part in parts {
                assert!(sentence.contains(part), "{part:?} expected in: {sentence}");
            }
        }
        Err(other) => panic!("a certificate error, not {other:?}"),
        Ok((_, identity)) => panic!("a refusal, not {identity}"),
    }
}

#[tokio::test]
async fn the_hub_that_was_meant_is_accepted_by_each_of_its_names() {
    for kind in [KeyKind::P256, KeyKind::Ed25519] {
        let root = Root::new(kind);
        let (paris, tokyo) = (root.member("paris", 1), root.member("tokyo", 2));
        let client = paris.holder(LeafRole::Remote).credentials();
        for name in ["tokyo.mesh.cilium.io", "hub.tokyo.example", "127.0.0.1", "::1", "192.0.2.2"] {
            let (accepting, connecting) = connect(&hub(&tokyo), &client, peer("tokyo"), name).await;
            let (stream, identity) = connecting.expect(name);
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            let role = &identity.accepted().expect("accepted").role;
            assert!(matches!(role, Role::Hub { cluster, .. } if cluster.as_str() == "tokyo"), "{identity}");
            let (_, client) = accepting.expect("accepted");
            assert!(
                matches!(&client.accepted().expect("accepted").role, Role::Remote { peer, .. } if peer.as_str() == "paris")
            );
        }
    }
}

#[tokio::test]
async fn another_server_is_refused() {
    let root = Root::new(KeyKind::P256);
    let (paris, tokyo, osaka) = (root.member("paris", 1), root.member("tokyo", 2), root.member("osaka", 3));
    let client = paris.holder(LeafRole::Remote).credentials();
    // Permitted to everyone, and so no proof of anything.
    let service = osaka.holder_with(LeafRole::Hub, now(), |params| {
        let name = "hub.isthmus.svc".try_into().expect("ASCII");
        params.subject_alt_names.push(SanType::DnsName(name));
    });
    let (accepting, connecting) =
        connect(&service.credentials(), &client, peer("tokyo"), "hub.isthmus.svc").await;
    refused(
        connecting,
        &["server presented certificate CN=isthmus hub", "the server is cluster osaka's, expected tokyo's"],
    );
    assert!(matches!(accepting, Err(AcceptError::Tls(_))), "{accepting:?}");

    let (_, connecting) = connect(&hub(&tokyo), &client, peer("tokyo"), "osaka.mesh.cilium.io").await;
    refused(connecting, &["it is not valid for osaka.mesh.cilium.io, it names ", "tokyo.mesh.cilium.io"]);

    let other_root = Root::new(KeyKind::P256).member("tokyo", 2);
    let (_, connecting) = connect(&hub(&other_root), &client, peer("tokyo"), "tokyo.mesh.cilium.io").await;
    refused(connecting, &["no path to an accepted root"]);
}

#[tokio::test]
async fn the_own_hub_is_pinned_by_key() {
    let root = Root::new(KeyKind::P256);
    let (paris, twin, tokyo) = (root.member("paris", 1), root.member("paris", 1), root.member("tokyo", 2));
    let agent = paris.holder(LeafRole::Local).credentials();
    let (_, connecting) = connect(&hub(&paris), &agent, Expected::OwnHub, "paris.mesh.cilium.io").await;
    connecting.expect("the own hub");
    for (impostor, name) in [(&twin, "paris.mesh.cilium.io"), (&tokyo, "tokyo.mesh.cilium.io")] {
        let (_, connecting) = connect(&hub(impostor), &agent, Expected::OwnHub, name).await;
        refused(connecting, &["is not this cluster's own"]);
    }
    let mut without_passport = paris.holder(LeafRole::Local);
    without_passport.chain.truncate(1);
    let (_, connecting) =
        connect(&hub(&paris), &without_passport.credentials(), Expected::OwnHub, "paris.mesh.cilium.io")
            .await;
    refused(connecting, &["the own certificate file has no passport after the leaf"]);
}

#[tokio::test]
async fn a_client_leaf_cannot_serve() {
    let root = Root::new(KeyKind::P256);
    let (paris, tokyo) = (root.member("paris", 1), root.member("tokyo", 2));
    let client = paris.holder(LeafRole::Remote).credentials();
    let name = || SanType::DnsName("tokyo.mesh.cilium.io".try_into().expect("ASCII"));
    let plain = tokyo.holder_with(LeafRole::Remote, now(), |params| params.subject_alt_names.push(name()));
    let (_, connecting) = connect(&plain.credentials(), &client, peer("tokyo"), "tokyo.mesh.cilium.io").await;
    refused(connecting, &["its extended key usage does not list serverAuth"]);
    // Even with the usage, the URI says that it is no hub.
    let stretched = tokyo.holder_with(LeafRole::Remote, now(), |params| {
        params.subject_alt_names.push(name());
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        set_common_name(params, "isthmus hub");
    });
    let (_, connecting) =
        connect(&stretched.credentials(), &client, peer("tokyo"), "tokyo.mesh.cilium.io").await;
    refused(connecting, &["is not that of the role remote in its URI"]);
}

/// `trusted-ca-file` may hold the peer's passport instead of the root: then nobody else's passport counts.
#[tokio::test]
async fn a_peers_passport_can_be_the_accepted_authority() {
    let root = Root::new(KeyKind::P256);
    let (paris, tokyo, osaka) = (root.member("paris", 1), root.member("tokyo", 2), root.member("osaka", 3));
    let pinned = paris.holder(LeafRole::Remote).credentials_accepting(std::slice::from_ref(&tokyo.der), &[]);
    let (_, connecting) = connect(&hub(&tokyo), &pinned, peer("tokyo"), "tokyo.mesh.cilium.io").await;
    connecting.expect("the pinned hub");
    let (_, connecting) = connect(&hub(&osaka), &pinned, peer("osaka"), "osaka.mesh.cilium.io").await;
    refused(connecting, &["no path to an accepted root; accepted: CN=isthmus cluster tokyo"]);
}

#[tokio::test]
async fn a_stock_server_is_checked_for_chain_and_name() {
    let root = Root::new(KeyKind::P256);
    let paris = root.member("paris", 1);
    let client = paris.holder(LeafRole::Remote).credentials();
    let (_, connecting) =
        connect(&hub(&root.member("tokyo", 2)), &client, Expected::Unattested, "tokyo.mesh.cilium.io").await;
    let (_, identity) = connecting.expect("chain and name are right");
    let accepted = identity.accepted().expect("accepted");
    assert!(matches!(&accepted.role, Role::Unattested { common_name } if common_name == "isthmus hub"));
    let (_, connecting) =
        connect(&hub(&root.member("tokyo", 2)), &client, Expected::Unattested, "berlin.mesh.cilium.io").await;
    refused(connecting, &["it is not valid for berlin.mesh.cilium.io"]);
}
