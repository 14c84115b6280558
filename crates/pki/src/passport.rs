//! The passport as a reader sees it: a certificate that says which cluster may use which names and addresses.

use std::net::IpAddr;
use std::time::SystemTime;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use crate::blocks::Blocks;
use crate::certificate::{self, Unreadable};
use crate::deny::CertificateId;
use crate::fingerprint::Fingerprint;
use crate::profile::{SHARED_NAMES, own_names};
use crate::spiffe::{ClusterUri, InvalidUri};

/// A passport that has the right shape. Whether it is genuine is the verifier's business.
#[derive(Clone, Debug)]
pub struct Passport {
    /// Trust domain, cluster name and id.
    pub uri: ClusterUri,
    /// The addresses that the cluster's pods and nodes may have.
    pub blocks: Blocks,
    /// The DNS names that its leaves may carry: each name stands for itself and all names below it.
    pub dns_names: Vec<String>,
    /// The addresses that its leaves may carry.
    pub addresses: Vec<IpNet>,
    /// The key (SHA-256 of the whole `SubjectPublicKeyInfo`).
    pub spki: Fingerprint,
    /// The certificate (SHA-256 of its DER).
    pub fingerprint: Fingerprint,
    /// Start of validity.
    pub not_before: SystemTime,
    /// End of validity.
    pub not_after: SystemTime,
    /// The certificate itself.
    pub der: CertificateDer<'static>,
}

/// Why a certificate is no passport.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAPassport {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// It may not sign certificates.
    #[error("it is no certificate authority with key usage keyCertSign")]
    NotACa,
    /// It could sign further authorities.
    #[error("its path length is {}, expected 0", found.map_or_else(|| "not limited".to_owned(), |n| n.to_string()))]
    PathLength {
        /// The limit found.
        found: Option<u32>,
    },
    /// It has no URI, or several.
    #[error("it has {found} URIs, expected exactly one, spiffe://<trust-domain>/cluster/<name>/id/<id>")]
    Uris {
        /// How many.
        found: usize,
    },
    /// Its URI is not a cluster's.
    #[error(transparent)]
    Uri(#[from] InvalidUri),
    /// It says nothing about addresses.
    #[error("it carries no address blocks (RFC 3779)")]
    NoBlocks,
    /// Its IPv6 blocks hide IPv4 ones.
    #[error("its address blocks reach into ::ffff:0:0/96, expected IPv4 blocks to be written as IPv4")]
    Mapped,
    /// Its leaves could carry any name or address.
    #[error(
        "it does not limit {missing}, expected name constraints with permitted DNS names, IPv4 and IPv6 addresses"
    )]
    Unconstrained {
        /// What it leaves open.
        missing: &'static str,
    },
}

impl Passport {
    /// Reads a certificate as a passport.
    ///
    /// Fails unless it is a CA with keyCertSign and path length 0, has exactly one URI (that of a cluster), canonical
    /// address blocks outside the IPv4-mapped range, and name constraints for DNS and both address families.
    pub fn read(der: &CertificateDer<'_>) -> Result<Self, NotAPassport> {
        let x509 = certificate::parse(der)?;
        let blocks = certificate::blocks(&x509)?.filter(|blocks| !blocks.is_empty());
        Self::from_parts(der, &x509, blocks)
    }

    /// Reads a certificate whose authority cannot write address blocks as a passport with these. Blocks of its own, which
    /// nobody vouches for, do not count.
    ///
    /// Fails as [`Self::read`] does.
    pub fn read_with_blocks(der: &CertificateDer<'_>, blocks: Blocks) -> Result<Self, NotAPassport> {
        Self::from_parts(der, &certificate::parse(der)?, Some(blocks))
    }

    fn from_parts(
        der: &CertificateDer<'_>,
        x509: &X509Certificate<'_>,
        blocks: Option<Blocks>,
    ) -> Result<Self, NotAPassport> {
        path_length_is_zero(x509)?;
        let uris = certificate::alternative_names(x509)?.uris;
        let [uri] = uris[..] else { return Err(NotAPassport::Uris { found: uris.len() }) };
        let uri: ClusterUri = uri.parse()?;
        let blocks = blocks.ok_or(NotAPassport::NoBlocks)?;
        if blocks.reaches_mapped() {
            return Err(NotAPassport::Mapped);
        }
        let (dns_names, addresses) = permitted(x509)?;
        Ok(Self {
            uri,
            blocks,
            dns_names,
            addresses,
            spki: Fingerprint::of(x509.public_key().raw),
            fingerprint: Fingerprint::of(der),
            not_before: certificate::time(x509.validity().not_before),
            not_after: certificate::time(x509.validity().not_after),
            der: der.clone().into_owned(),
        })
    }

    /// Its key and itself, as deny lists name certificates.
    pub fn id(&self) -> CertificateId {
        CertificateId { spki: self.spki, certificate: self.fingerprint }
    }

    /// The DNS names that were listed at enrolment: all permitted ones but those that every passport has.
    pub fn listed_names(&self) -> impl Iterator<Item = &str> {
        let usual = own_names(&self.uri.cluster);
        self.dns_names
            .iter()
            .map(String::as_str)
            .filter(move |name| !usual.iter().any(|own| own == name) && !SHARED_NAMES.contains(name))
    }

    /// The single addresses that were listed at enrolment: all permitted ones but loopback.
    pub fn listed_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let single = self.addresses.iter().filter(|net| net.prefix_len() == net.max_prefix_len());
        single.map(IpNet::addr).filter(|address| !address.is_loopback())
    }

    /// True if a leaf may carry `address`: loopback, an address listed at enrolment, or one of the cluster's own.
    pub(crate) fn permits(&self, address: IpAddr) -> bool {
        address.is_loopback()
            || topology::block::contains(&self.addresses, address)
            || self.blocks.contains(address)
    }
}

fn path_length_is_zero(x509: &X509Certificate<'_>) -> Result<(), NotAPassport> {
    let unreadable = |extension| NotAPassport::Unreadable(Unreadable::Extension { extension });
    let basic = x509.basic_constraints().map_err(|_error| unreadable("basic constraints"))?;
    let usage = x509.key_usage().map_err(|_error| unreadable("key usage"))?;
    let basic =
        basic.map(|extension| extension.value).filter(|basic| basic.ca).ok_or(NotAPassport::NotACa)?;
    if !usage.is_some_and(|extension| extension.value.key_cert_sign()) {
        return Err(NotAPassport::NotACa);
    }
    match basic.path_len_constraint {
        Some(0) => Ok(()),
        found => Err(NotAPassport::PathLength { found }),
    }
}

/// The permitted DNS names and addresses.
fn permitted(x509: &X509Certificate<'_>) -> Result<(Vec<String>, Vec<IpNet>), NotAPassport> {
    let unreadable = || NotAPassport::Unreadable(Unreadable::Extension { extension: "name constraints" });
    let constraints = x509.name_constraints().map_err(|_error| unreadable())?;
    let subtrees = constraints.and_then(|extension| extension.value.permitted_subtrees.as_ref());
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    for subtree in subtrees.into_iter().flatten() {
        match &subtree.base {
            GeneralName::DNSName(name) => names.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => addresses.push(subnet(bytes).ok_or_else(unreadable)?),
            _ => {}
        }
    }
    for (missing, present) in [
        ("DNS names", !names.is_empty()),
        ("IPv4 addresses", addresses.iter().any(|net| matches!(net, IpNet::V4(_)))),
        ("IPv6 addresses", addresses.iter().any(|net| matches!(net, IpNet::V6(_)))),
    ] {
        if !present {
            return Err(NotAPassport::Unconstrained { missing });
        }
    }
    Ok((names, addresses))
}

/// Address and mask, as a name constraint writes them.
fn subnet(bytes: &[u8]) -> Option<IpNet> {
    if let Ok([a, b, c, d, mask @ ..]) = <[u8; 8]>::try_from(bytes) {
        return Ipv4Net::with_netmask([a, b, c, d].into(), mask.into()).ok().map(IpNet::V4);
    }
    let (address, mask) = bytes.split_at_checked(16)?;
    let address = <[u8; 16]>::try_from(address).ok()?;
    let mask = <[u8; 16]>::try_from(mask).ok()?;
    Ipv6Net::with_netmask(address.into(), mask.into()).ok().map(IpNet::V6)
}
