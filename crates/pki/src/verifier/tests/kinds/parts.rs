//! What the kinds are made of.

use std::time::Duration;

use rcgen::{
    CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyUsagePurpose,
    NameConstraints, SanType,
};
use rustls::pki_types::CertificateDer;

use crate::blocks;
use crate::key::{KeyKind, PrivateKey};
use crate::profile::{life, root_params, set_validity};
use crate::verifier::fixture::{ago, now, set_common_name, set_uri};
use crate::verifier::tests::chains::Made;

/// A client's leaf as the passport would sign it, to be signed by others.
pub(super) fn leaf() -> CertificateParams {
    let mut params = CertificateParams::default();
    set_common_name(&mut params, "remote-tokyo");
    set_validity(&mut params, ago(1), now() + life::CLIENT);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    set_uri(&mut params, "spiffe://mesh.example/cluster/tokyo/node/n1/remote");
    params
}

pub(super) fn other_root() -> CertificateDer<'static> {
    let key = PrivateKey::generate(KeyKind::P256).expect("a key");
    let params = root_params(&key, now(), life::ROOT).expect("parameters");
    params.self_signed(key.pair()).expect("signed").der().clone()
}

/// A root with the name of the accepted one and another key.
pub(super) fn namesake(made: &Made) -> CertificateDer<'static> {
    let key = PrivateKey::generate(KeyKind::P256).expect("a key");
    let params = root_params(&made.keys[0], now(), life::ROOT).expect("parameters");
    params.self_signed(key.pair()).expect("signed").der().clone()
}

/// The last byte is of the signature.
pub(super) fn changed_signature(der: &CertificateDer<'_>) -> CertificateDer<'static> {
    let mut bytes = der.to_vec();
    *bytes.last_mut().expect("a certificate") ^= 1;
    bytes.into()
}

/// A bit of the key is another: what it signed no longer verifies.
pub(super) fn changed_key(der: &CertificateDer<'_>) -> CertificateDer<'static> {
    let spki = crate::certificate::parse(der).expect("a certificate").public_key().raw.to_vec();
    let at = der.windows(spki.len()).position(|window| window == spki).expect("its key") + spki.len() - 1;
    let mut bytes = der.to_vec();
    bytes[at] ^= 1;
    bytes.into()
}

pub(super) fn set_blocks(params: &mut CertificateParams, der: &[u8]) {
    params.custom_extensions = vec![CustomExtension::from_oid_content(blocks::OID, der.to_vec())];
}

pub(super) fn unknown_critical() -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
    extension.set_criticality(true);
    extension
}

pub(super) fn permit(params: &mut CertificateParams, keep: impl Fn(&GeneralSubtree) -> bool) {
    let NameConstraints { permitted_subtrees, .. } = params.name_constraints.as_mut().expect("constraints");
    permitted_subtrees.retain(keep);
}

pub(super) fn add_uri(params: &mut CertificateParams, uri: &str) {
    params.subject_alt_names.push(SanType::URI(uri.try_into().expect("ASCII")));
}

pub(super) fn add_dns(params: &mut CertificateParams, name: &str) {
    params.subject_alt_names.push(SanType::DnsName(name.try_into().expect("ASCII")));
}

pub(super) fn add_address(params: &mut CertificateParams, address: &str) {
    params.subject_alt_names.push(SanType::IpAddress(address.parse().expect("an address")));
}

pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const NOT_PERMITTED: &str = "a name or address that its passport does not permit";
pub(super) const OUR_DOCUMENT: &str = "it is on our deny list, a document that OpenSSL does not read";
/// IPv4 and IPv6, both inherited.
pub(super) const INHERIT: [u8; 18] = [0x30, 16, 0x30, 6, 4, 2, 0, 1, 5, 0, 0x30, 6, 4, 2, 0, 2, 5, 0];
/// 10.0.0.0/8 for unicast.
pub(super) const SAFI: [u8; 15] = [0x30, 13, 0x30, 11, 4, 3, 0, 1, 1, 0x30, 4, 3, 2, 0, 10];
/// 10.2.0.0/25 and 10.2.0.128/25.
pub(super) const UNMERGED: [u8; 24] =
    [0x30, 22, 0x30, 20, 4, 2, 0, 1, 0x30, 14, 3, 5, 7, 10, 2, 0, 0, 3, 5, 7, 10, 2, 0, 0x80];
/// 10.9.0.0/16 before 10.1.0.0/16.
pub(super) const UNSORTED: [u8; 20] =
    [0x30, 18, 0x30, 16, 4, 2, 0, 1, 0x30, 10, 3, 3, 0, 10, 9, 3, 3, 0, 10, 1];
/// OpenSSL has no such rule: it is one of this mesh.
pub(super) const OUR_RULE: &str = "a rule of the mesh, which no general verifier has";
pub(super) const USAGE: &str =
    "OpenSSL asks for usages only if the extension is there, and takes keyAgreement for a client";
/// RFC 3779 in OpenSSL.
pub(super) const NO_BLOCKS: &str =
    "blocks are compared where a certificate has some; none, or inherited ones, are allowed";
