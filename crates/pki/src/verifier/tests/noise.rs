//! Changed bytes in every place a peer's bytes reach: never a panic, never an acceptance.

use std::sync::Arc;

use base64::Engine;
use proptest::prelude::*;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;

use crate::files::provider;
use crate::key::{KeyKind, PrivateKey, SigningRequest};
use crate::passport::Passport;
use crate::profile::LeafRole;
use crate::trust::Trust;
use crate::verifier::fixture::Root;
use crate::verifier::{PeerVerifier, Side};

fn changed(der: &CertificateDer<'_>, changes: &[(prop::sample::Index, u8)]) -> CertificateDer<'static> {
    let mut bytes = der.to_vec();
    for (at, byte) in changes {
        let at = at.index(bytes.len());
        bytes[at] = *byte;
    }
    CertificateDer::from(bytes)
}

fn changes() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)
}

#[test]
fn changed_certificates_are_never_accepted() {
    let root = Root::new(KeyKind::P256);
    let paris = root.member("paris", 1);
    let own = Arc::new(Passport::read(&paris.der).expect("a passport"));
    let trust = Arc::new(Trust::new(std::slice::from_ref(&root.der), &[], Some(own)).expect("sound"));
    let holder = paris.holder(LeafRole::Admin);
    proptest!(|(leaf_changes in changes(), passport_changes in changes())| {
        let leaf = changed(&holder.chain[0], &leaf_changes);
        let passport = changed(&holder.chain[1], &passport_changes);
        let untouched = leaf == holder.chain[0] && passport == holder.chain[1];
        let verifier = PeerVerifier::new(Arc::clone(&trust), Side::Clients, provider());
        let outcome = verifier.verify_client_cert(&leaf, std::slice::from_ref(&passport), UnixTime::now());
        let accepted = outcome.is_ok() && verifier.identity().is_some_and(|identity| identity.accepted().is_some());
        prop_assert_eq!(accepted, untouched);
        // Whoever reads one alone must not fall over either.
        drop(Passport::read(&passport));
        drop(Trust::new(&[passport, leaf], &[], None));
    });
}

/// Outside of what is signed a byte may change without meaning (the padding count of the signature); the key never.
#[test]
fn a_changed_request_never_yields_another_key() {
    let key = PrivateKey::generate(KeyKind::P256).expect("a key");
    let request = key.request().expect("a request");
    let body: String = request.lines().filter(|line| !line.starts_with('-')).collect();
    let der = base64::engine::general_purpose::STANDARD.decode(body).expect("base64");
    proptest!(|(at in any::<prop::sample::Index>(), byte in any::<u8>())| {
        let mut bytes = der.clone();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        let body = base64::engine::general_purpose::STANDARD.encode(&bytes);
        let pem = format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n");
        if let Ok(request) = SigningRequest::from_pem(&pem) {
            prop_assert_eq!(request.spki(), key.spki());
        }
    });
}
