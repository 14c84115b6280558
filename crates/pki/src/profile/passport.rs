//! The passport: a cluster's certificate authority, bound to its name, id, names and addresses.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, GeneralSubtree, IsCa, Issuer, KeyUsagePurpose,
    NameConstraints, SanType,
};
use rustls::pki_types::CertificateDer;

use super::{IssueError, base, blocks_extension};
use crate::blocks::Blocks;
use crate::certificate;
use crate::key::{PrivateKey, SigningRequest};
use crate::spiffe::ClusterUri;

/// Holds what a passport binds together.
#[derive(Clone, Debug)]
pub struct PassportSpec {
    /// Trust domain, cluster name and id.
    pub uri: ClusterUri,
    /// Pod and node CIDRs.
    pub blocks: Blocks,
    /// DNS names, beside the cluster's own, under which its hub is reached.
    pub dns_names: Vec<String>,
    /// Addresses under which its hub is reached.
    pub addresses: Vec<IpAddr>,
    /// How long it is valid.
    pub life: Duration,
}

/// Signs a passport with the root; it never outlives the root. Of the request only the public key is used.
///
/// The name constraints always list addresses of both families: with none of a family, every address of that family
/// would be permitted (measured with webpki, Go and OpenSSL). There are no URI or directory name constraints, because
/// webpki refuses such chains.
pub fn issue_passport(
    root: &CertificateDer<'_>,
    root_key: &PrivateKey,
    spec: &PassportSpec,
    request: &SigningRequest,
    now: SystemTime,
) -> Result<CertificateDer<'static>, IssueError> {
    let sign_error = |source| IssueError::Sign { issuer: certificate::describe(root), source };
    let spec = PassportSpec { life: spec.life.min(left(root, now)?), ..spec.clone() };
    let params = passport_params(&spec, now)?;
    let issuer = Issuer::from_ca_cert_der(root, root_key.pair()).map_err(sign_error)?;
    let certificate = params.signed_by(request.public_key(), &issuer).map_err(sign_error)?;
    Ok(certificate.der().clone())
}

/// How long an issuer is still valid: nothing below it can be valid for longer.
fn left(issuer: &CertificateDer<'_>, now: SystemTime) -> Result<Duration, IssueError> {
    let ends = certificate::parse(issuer).map(|x509| certificate::time(x509.validity().not_after));
    let ends = ends.map_err(|error| IssueError::Unsound {
        subject: certificate::describe(issuer),
        found: error.to_string(),
    })?;
    ends.duration_since(now).map_err(|_ended| IssueError::IssuerEnds {
        ends: jiff::Timestamp::try_from(ends).unwrap_or(jiff::Timestamp::MAX),
    })
}

/// What the certificate is to say; tests change it before signing.
pub(crate) fn passport_params(spec: &PassportSpec, now: SystemTime) -> Result<CertificateParams, IssueError> {
    let subject = format!("isthmus cluster {}", spec.uri.cluster);
    let mut params = base(&subject, now, spec.life)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let uri = spec.uri.to_string();
    let name = uri.clone().try_into().map_err(|_error: rcgen::Error| IssueError::Name { name: uri })?;
    params.subject_alt_names = vec![SanType::URI(name)];
    params.name_constraints =
        Some(NameConstraints { permitted_subtrees: permitted(spec), excluded_subtrees: Vec::new() });
    params.custom_extensions = vec![blocks_extension(&spec.blocks)];
    Ok(params)
}

/// The DNS names that every passport of `cluster` permits, beside those listed at enrolment and those of [`SHARED_NAMES`].
pub(crate) fn own_names(cluster: &topology::ClusterName) -> [String; 2] {
    [format!("{cluster}.{MESH_SUFFIX}"), format!("{cluster}.{HUBBLE_SUFFIX}")]
}

fn permitted(spec: &PassportSpec) -> Vec<GeneralSubtree> {
    let listed = spec.dns_names.iter().cloned();
    let shared = SHARED_NAMES.into_iter().map(str::to_owned);
    let names = own_names(&spec.uri.cluster).into_iter().chain(listed).chain(shared);
    let loopback = [IpAddr::from([127, 0, 0, 1]), IpAddr::from(std::net::Ipv6Addr::LOCALHOST)];
    let addresses = loopback.into_iter().chain(spec.addresses.iter().copied()).map(|address| {
        let width = if address.is_ipv4() { 32 } else { 128 };
        GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(address, width))
    });
    names.map(GeneralSubtree::DnsName).chain(addresses).collect()
}

/// Under this every cluster's hub has a name, as in Cilium's charts.
pub(crate) const MESH_SUFFIX: &str = "mesh.cilium.io";
/// Under this every cluster's Hubble relay has its names.
pub(crate) const HUBBLE_SUFFIX: &str = "hubble-grpc.cilium.io";
/// Names that mean something else in every cluster, so every passport permits them; whoever dials its own hub by
/// such a name pins the own passport.
pub(crate) const SHARED_NAMES: [&str; 2] = ["svc", "cluster.local"];
