//! Leaves: one for each node and role, short-lived.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, SanType};
use rustls::pki_types::CertificateDer;
use topology::{ClusterName, NodeName};

use super::passport::MESH_SUFFIX;
use super::{IssueError, base, life};
use crate::certificate;
use crate::key::{PrivateKey, SigningRequest};
use crate::passport::Passport;
use crate::spiffe::LeafUri;

/// What the holder of a leaf is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LeafRole {
    /// The cluster's hub: serves, and may call other hubs.
    Hub,
    /// A client of other clusters' hubs: `remote-<cluster>`.
    Remote,
    /// A client of the own hub: `local-<cluster>`.
    Local,
    /// An administrator of the own hub: `admin-<cluster>`.
    Admin,
    /// A member of the etcd behind the own hub's store: serves, and calls its fellows and itself.
    Etcd,
    /// The hub as a client of that etcd.
    Store,
}

/// Holds what a leaf is to say.
#[derive(Clone, Debug)]
pub struct LeafSpec {
    /// What the holder is.
    pub role: LeafRole,
    /// The node or machine that holds the key.
    pub node: NodeName,
    /// Further DNS names of a hub or an etcd, such as its service name; ignored for clients.
    pub dns_names: Vec<String>,
    /// Further addresses of a hub or an etcd; ignored for clients.
    pub addresses: Vec<IpAddr>,
    /// How long it is valid, never longer than the passport.
    pub life: Duration,
}

/// Why a text is not a [`LeafRole`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("role {found:?}: expected hub, remote, local, admin, etcd or store")]
pub struct UnknownRole {
    found: String,
}

impl LeafRole {
    /// All roles.
    pub const ALL: [Self; 6] = [Self::Hub, Self::Remote, Self::Local, Self::Admin, Self::Etcd, Self::Store];

    /// The role's word, in URIs and on command lines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hub => "hub",
            Self::Remote => "remote",
            Self::Local => "local",
            Self::Admin => "admin",
            Self::Etcd => "etcd",
            Self::Store => "store",
        }
    }

    /// The common name of a leaf of this role in `cluster`; the client names are Cilium's.
    pub fn common_name(self, cluster: &ClusterName) -> String {
        match self {
            Self::Hub | Self::Etcd | Self::Store => format!("isthmus {self}"),
            client => format!("{client}-{cluster}"),
        }
    }
}

impl LeafSpec {
    /// A leaf with the usual names and life for its role.
    pub fn new(role: LeafRole, node: NodeName) -> Self {
        let life = match role {
            LeafRole::Hub | LeafRole::Etcd | LeafRole::Store => life::HUB,
            LeafRole::Remote | LeafRole::Local | LeafRole::Admin => life::CLIENT,
        };
        Self { role, node, dns_names: Vec::new(), addresses: Vec::new(), life }
    }
}

impl fmt::Display for LeafRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for LeafRole {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|role| role.as_str() == text);
        known.ok_or_else(|| UnknownRole { found: text.chars().take(80).collect() })
    }
}

/// Signs a leaf with a passport's key. Of the request only the public key is used.
///
/// A hub's leaf gets the cluster's mesh name, loopback, and whatever names and addresses the passport lists beside
/// those that all passports have.
pub fn issue_leaf(
    passport: &Passport,
    passport_key: &PrivateKey,
    spec: &LeafSpec,
    request: &SigningRequest,
    now: SystemTime,
) -> Result<CertificateDer<'static>, IssueError> {
    if passport.not_after <= now {
        let ends = jiff::Timestamp::try_from(passport.not_after).unwrap_or(jiff::Timestamp::MAX);
        return Err(IssueError::IssuerEnds { ends });
    }
    names_each_attribute_once(passport)?;
    let params = leaf_params(passport, spec, now)?;
    sign(passport, passport_key, &params, request)
}

/// The library keeps an issuer's name as a map: of `DC=com, DC=example` one would be left, and the leaf would name an issuer
/// that does not exist (measured with rcgen 0.14).
fn names_each_attribute_once(passport: &Passport) -> Result<(), IssueError> {
    let Ok(x509) = certificate::parse(&passport.der) else { return Ok(()) };
    let mut seen = std::collections::BTreeSet::new();
    let mut attributes = x509.subject().iter_attributes();
    if attributes.all(|attribute| seen.insert(attribute.attr_type().to_id_string())) {
        return Ok(());
    }
    Err(IssueError::RepeatedAttribute { name: certificate::name_text(x509.subject()) })
}

fn sign(
    passport: &Passport,
    passport_key: &PrivateKey,
    params: &CertificateParams,
    request: &SigningRequest,
) -> Result<CertificateDer<'static>, IssueError> {
    let sign_error = |source| IssueError::Sign { issuer: passport.uri.to_string(), source };
    let issuer = Issuer::from_ca_cert_der(&passport.der, passport_key.pair()).map_err(sign_error)?;
    let certificate = params.signed_by(request.public_key(), &issuer).map_err(sign_error)?;
    Ok(certificate.der().clone())
}

/// What the certificate is to say; tests change it before signing.
pub(crate) fn leaf_params(
    passport: &Passport,
    spec: &LeafSpec,
    now: SystemTime,
) -> Result<CertificateParams, IssueError> {
    let cluster = &passport.uri.cluster;
    let subject = spec.role.common_name(cluster);
    let left = passport.not_after.duration_since(now).unwrap_or_default();
    let mut params = base(&subject, now, spec.life.min(left))?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = match spec.role {
        LeafRole::Hub | LeafRole::Etcd => {
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
        }
        LeafRole::Remote | LeafRole::Local | LeafRole::Admin | LeafRole::Store => {
            vec![ExtendedKeyUsagePurpose::ClientAuth]
        }
    };
    let uri = LeafUri {
        trust_domain: passport.uri.trust_domain.clone(),
        cluster: cluster.clone(),
        node: spec.node.clone(),
        role: spec.role,
    };
    let ascii =
        |name: String| name.clone().try_into().map_err(|_error: rcgen::Error| IssueError::Name { name });
    let mut names = vec![SanType::URI(ascii(uri.to_string())?)];
    let (dns_names, addresses) = match spec.role {
        LeafRole::Hub => (hub_names(passport, spec), hub_addresses(passport, spec)),
        // None of the hub's own names: it must not pass for the hub.
        LeafRole::Etcd => (spec.dns_names.clone(), etcd_addresses(spec)),
        LeafRole::Store => (vec![store_name(cluster)], Vec::new()),
        LeafRole::Remote | LeafRole::Local | LeafRole::Admin => (Vec::new(), Vec::new()),
    };
    for name in dns_names {
        names.push(SanType::DnsName(ascii(name)?));
    }
    names.extend(addresses.into_iter().map(SanType::IpAddress));
    params.subject_alt_names = names;
    Ok(params)
}

fn hub_names(passport: &Passport, spec: &LeafSpec) -> Vec<String> {
    let mesh_name = format!("{}.{MESH_SUFFIX}", passport.uri.cluster);
    let listed = passport.listed_names().map(str::to_owned);
    let mut names: Vec<String> =
        std::iter::once(mesh_name).chain(listed).chain(spec.dns_names.clone()).collect();
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

/// The DNS name in the leaf of a hub as client of its etcd. No other client's leaf has one, so an etcd can insist on it
/// (`--client-cert-allowed-hostname`).
pub fn store_name(cluster: &ClusterName) -> String {
    format!("store.{cluster}.{MESH_SUFFIX}")
}

fn etcd_addresses(spec: &LeafSpec) -> Vec<IpAddr> {
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let mut addresses: Vec<IpAddr> = loopback.into_iter().chain(spec.addresses.clone()).collect();
    let mut seen = std::collections::BTreeSet::new();
    addresses.retain(|address| seen.insert(*address));
    addresses
}

fn hub_addresses(passport: &Passport, spec: &LeafSpec) -> Vec<IpAddr> {
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let mut addresses: Vec<IpAddr> =
        loopback.into_iter().chain(passport.listed_addresses()).chain(spec.addresses.clone()).collect();
    let mut seen = std::collections::BTreeSet::new();
    addresses.retain(|address| seen.insert(*address));
    addresses
}
