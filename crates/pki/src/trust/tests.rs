//! Which lists of authorities can be trusted.

use std::time::SystemTime;

use super::*;
use crate::key::{KeyKind, PrivateKey};
use crate::profile::{issue_root, life};
use std::time::Duration;

fn root(key: &PrivateKey, life: Duration) -> CertificateDer<'static> {
    issue_root(key, SystemTime::now(), life).expect("a root")
}

#[test]
fn a_renewed_root_replaces_the_older_one() {
    let key = PrivateKey::generate(KeyKind::P256).expect("a key");
    let (old, new) = (root(&key, life::CLIENT), root(&key, life::ROOT));
    for order in [[old.clone(), new.clone()], [new, old]] {
        let trust = Trust::new(&order, &[], None).expect("sound");
        assert_eq!((trust.anchors.len(), trust.webpki.len()), (1, 1));
        assert!(trust.anchors[0].not_after > SystemTime::now() + life::PASSPORT);
    }
}

#[test]
fn what_cannot_be_an_authority_is_told() {
    assert_eq!(Trust::new(&[], &[], None).map(|_| ()), Err(InvalidTrust::Empty));
    let key = PrivateKey::generate(KeyKind::P256).expect("a key");
    let many = vec![root(&key, life::ROOT); MAX_ANCHORS + 1];
    assert_eq!(
        Trust::new(&many, &[], None).map(|_| ()),
        Err(InvalidTrust::TooMany { found: MAX_ANCHORS + 1 })
    );
    let junk = CertificateDer::from(vec![0x30, 0]);
    let error = Trust::new(&[junk], &[], None).expect_err("no certificate").to_string();
    assert!(error.contains("not a DER certificate"), "{error}");
}

/// Two roots of one name and different keys: what a careless copy of another mesh's files would give.
#[test]
fn one_name_means_one_key() {
    let named = || {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        let key = rcgen::KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("signed").der().clone()
    };
    let error = Trust::new(&[named(), named()], &[], None).expect_err("ambiguous").to_string();
    assert!(error.contains("with different keys; expected each name once"), "{error}");
}
