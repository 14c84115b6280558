//! The format of deny lists, which other versions read.

use super::*;
use crate::key::PrivateKey;
use crate::signed::{self, DocumentKind};
use rcgen::PublicKeyData;

/// Signed by OpenSSL, with the Ed25519 key of RFC 8032, section 7.1, test 1.
const GOLDEN: &str = include_str!("golden.jsonl");
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";
const PAYLOAD: &str = r#"{"trust_domain":"mesh.example","number":2,"issued_at":"2026-11-22T10:00:00Z","denied":[{"spki_sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","cluster":"tokyo","at":"2026-11-22T09:00:00Z","until":"2027-11-22T09:00:00Z","reason":"key stolen"},{"certificate_sha256":"ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb","cluster":"osaka","at":"2026-11-22T10:00:00Z","until":"2026-12-22T10:00:00Z","reason":""}]}"#;

fn golden_key() -> PrivateKey {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("key");
    std::fs::write(&path, KEY).expect("written");
    PrivateKey::load(&path).expect("a key")
}

#[test]
fn the_first_format_is_written_and_read_for_ever() {
    let key = golden_key();
    let list: DenyList = serde_json::from_str(PAYLOAD).expect("readable");
    assert_eq!(serde_json::to_string(&list).expect("JSON"), PAYLOAD);
    // Ed25519 signs the same bytes the same way.
    assert_eq!(signed::sign(&key, DocumentKind::DenyList, &list).expect("signed"), GOLDEN.trim_end());
    let mut lists = DenyLists::default();
    let document = signed::read(GOLDEN.as_bytes(), DocumentKind::DenyList).expect("a document").remove(0);
    lists.add(&document, &key.pair().subject_public_key_info(), "CN=root").expect("sound");
    let (spki, certificate) = (Fingerprint::of(b""), Fingerprint::of(b"a"));
    let other = Fingerprint::of(b"b");
    let found = lists.find(key.spki(), CertificateId { spki, certificate: other }).expect("by key");
    assert_eq!(found.to_string(), "revoked at 2026-11-22T09:00:00Z (key stolen), deny list 2 of CN=root");
    let found = lists.find(key.spki(), CertificateId { spki: other, certificate }).expect("by certificate");
    assert_eq!(found.to_string(), "revoked at 2026-11-22T10:00:00Z, deny list 2 of CN=root");
    assert_eq!(lists.find(key.spki(), CertificateId { spki: other, certificate: other }), None);
    assert_eq!(lists.find(other, CertificateId { spki, certificate }), None, "of another authority");
}

#[test]
fn fields_that_later_versions_add_are_ignored_and_kinds_they_add_are_not() {
    let added = PAYLOAD.replace("\"number\":2", "\"number\":2,\"later\":true");
    let added = added.replace("\"reason\":\"\"", "\"reason\":\"\",\"later\":{}");
    let list: DenyList = serde_json::from_str(&added).expect("readable");
    assert_eq!(list.denied.len(), 2);
    // An entry that denies something this version does not know must not be passed over in silence.
    let unknown = PAYLOAD.replace("certificate_sha256", "serial");
    assert!(serde_json::from_str::<DenyList>(&unknown).is_err());
}

#[test]
fn a_list_is_bounded() {
    let key = golden_key();
    let mut list: DenyList = serde_json::from_str(PAYLOAD).expect("readable");
    list.denied = vec![list.denied[0].clone(); MAX_DENIED + 1];
    let line = signed::sign(&key, DocumentKind::DenyList, &list).expect("signed");
    let document = signed::read(line.as_bytes(), DocumentKind::DenyList).expect("a document").remove(0);
    let error = DenyLists::default().add(&document, &key.pair().subject_public_key_info(), "CN=root");
    let error = error.expect_err("too many").to_string();
    assert!(error.contains("1025 entries, expected at most 1024"), "{error}");
    // And the largest that is allowed fits into a file.
    list.denied.pop();
    for denied in &mut list.denied {
        denied.reason = "r".repeat(160);
    }
    let line = signed::sign(&key, DocumentKind::DenyList, &list).expect("signed");
    assert!(line.len() < 1 << 20, "{} bytes", line.len());
}
