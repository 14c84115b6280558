//! Our own rules over a path that webpki has verified.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::CertificateError;
use rustls::pki_types::CertificateDer;
use webpki::VerifiedPath;
use x509_parser::certificate::X509Certificate;

use super::handshake::Side;
use super::identity::{Accepted, Expected, Role};
use super::refusal::Refusal;
use super::role::{client_role, server_role};
use super::store::judge_store;
use crate::certificate::{self, Unreadable, printable, time_text};
use crate::deny::CertificateId;
use crate::fingerprint::Fingerprint;
use crate::passport::Passport;
use crate::profile::LeafRole;
use crate::spiffe::LeafUri;
use crate::trust::{Anchor, AnchorKind, Trust, Unstated};

/// Why a path is not accepted.
#[derive(Clone, Debug)]
pub(super) enum Finding {
    /// Wrong as a certificate chain: the handshake fails.
    Unsound { sentence: String, alert: CertificateError },
    /// Sound, but against our rules: the handshake completes, the peer gets the reason.
    Refused(Refusal),
}

impl<T: Into<Refusal>> From<T> for Finding {
    fn from(refusal: T) -> Self {
        Self::Refused(refusal.into())
    }
}

/// Judges one candidate path. Everything is read from the path, never from the list that the peer sent.
pub(super) fn judge(
    trust: &Trust,
    side: &Side,
    path: &VerifiedPath<'_>,
    leaf: &CertificateDer<'_>,
    now: SystemTime,
) -> Result<Accepted, Finding> {
    let unknown =
        || unsound("the path ends in no accepted authority".to_owned(), CertificateError::UnknownIssuer);
    let anchor = trust.anchor(path.anchor()).ok_or_else(unknown)?;
    anchor_is_valid(anchor, now)?;
    let x509 = certificate::parse(leaf)?;
    leaf_usage(&x509, side)?;
    let id = leaf_id(leaf, &x509);
    match side {
        Side::Server(Expected::Store) => return judge_store(LeafRole::Etcd, anchor, path, &x509, id),
        Side::StoreClients => return judge_store(LeafRole::Store, anchor, path, &x509, id),
        Side::Clients | Side::Server(_) => {}
    }
    let stock_server = matches!(side, Side::Server(Expected::Unattested));
    if stock_server || matches!(anchor.kind, AnchorKind::Unattested) {
        return unattested(trust, side, anchor, path, &x509, id);
    }
    let (passport, voucher) = passport(trust, anchor, path, now)?;
    not_revoked(trust, voucher, Some(&passport), id)?;
    let uri = leaf_names(&x509, &passport)?;
    let common_name = certificate::common_name(&x509).unwrap_or_default();
    let role = match side {
        Side::Clients | Side::StoreClients => client_role(trust, common_name, &uri, &passport)?,
        Side::Server(expected) => server_role(trust, expected, common_name, &uri, &passport)?,
    };
    let leaf_ends = certificate::time(x509.validity().not_after);
    let expires = leaf_ends.min(passport.not_after).min(anchor.not_after);
    Ok(Accepted { role, passport: Some(passport), expires, anchor: anchor.id(voucher), leaf: id })
}

/// The leaf as deny lists name it.
fn leaf_id(leaf: &CertificateDer<'_>, x509: &X509Certificate<'_>) -> CertificateId {
    CertificateId { spki: Fingerprint::of(x509.public_key().raw), certificate: Fingerprint::of(leaf) }
}

fn not_revoked(
    trust: &Trust,
    voucher: Fingerprint,
    passport: Option<&Passport>,
    leaf: CertificateId,
) -> Result<(), Refusal> {
    let Some(denial) = trust.denied(voucher, passport, leaf) else { return Ok(()) };
    let of_leaf = trust.denied(voucher, None, leaf).is_some_and(|of_leaf| of_leaf == denial);
    let whose = if of_leaf {
        "it was".to_owned()
    } else {
        format!("its passport, that of {}, was", denial.denied.cluster)
    };
    Err(Refusal::Revoked { whose, denial: Box::new(denial) })
}

fn unsound(sentence: String, alert: CertificateError) -> Finding {
    Finding::Unsound { sentence, alert }
}

/// webpki takes an anchor as given; a root's own dates are ours to check.
fn anchor_is_valid(anchor: &Anchor, now: SystemTime) -> Result<(), Finding> {
    let Anchor { subject, not_before, not_after, .. } = anchor;
    if now > *not_after {
        let sentence = format!("the accepted root {subject} ended at {}", time_text(*not_after));
        return Err(unsound(sentence, CertificateError::Expired));
    }
    if now < *not_before {
        let sentence = format!("the accepted root {subject} starts at {}", time_text(*not_before));
        return Err(unsound(sentence, CertificateError::NotValidYet));
    }
    Ok(())
}

/// webpki looks at the extended key usage only if there is one, and never at the key usage.
fn leaf_usage(x509: &X509Certificate<'_>, side: &Side) -> Result<(), Finding> {
    let extended = x509.extended_key_usage().map_err(|_error| malformed("extended key usage"))?;
    let (wanted, present) = match side {
        Side::Clients | Side::StoreClients => {
            ("clientAuth", extended.as_ref().is_some_and(|usage| usage.value.client_auth))
        }
        Side::Server(_) => ("serverAuth", extended.as_ref().is_some_and(|usage| usage.value.server_auth)),
    };
    if !present {
        let found = if extended.is_some() { "another extended key usage" } else { "no extended key usage" };
        return Err(unsound(format!("it has {found}, expected {wanted}"), CertificateError::InvalidPurpose));
    }
    let usage = x509.key_usage().map_err(|_error| malformed("key usage"))?;
    if !usage.is_some_and(|usage| usage.value.digital_signature()) {
        let sentence = "it lacks the key usage digitalSignature".to_owned();
        return Err(unsound(sentence, CertificateError::InvalidPurpose));
    }
    Ok(())
}

fn malformed(extension: &'static str) -> Finding {
    let sentence = Unreadable::Extension { extension }.to_string();
    unsound(sentence, CertificateError::BadEncoding)
}

/// A stock peer: nothing proves its cluster. Clients may only be `remote`, or `remote-<cluster>` as newer charts say.
///
/// A client that takes a server of the mesh for a stock one still goes by the deny list of its root.
fn unattested(
    trust: &Trust,
    side: &Side,
    anchor: &Anchor,
    path: &VerifiedPath<'_>,
    x509: &X509Certificate<'_>,
    leaf: CertificateId,
) -> Result<Accepted, Finding> {
    let between = path.intermediate_certificates().next();
    let passport = between.and_then(|certificate| Passport::read(&certificate.der()).ok());
    not_revoked(trust, anchor.spki, passport.as_ref(), leaf)?;
    let common_name = certificate::common_name(x509).unwrap_or_default();
    let remote = common_name == "remote" || common_name.starts_with("remote-");
    if matches!(side, Side::Clients) && !remote {
        return Err(Refusal::UnknownName { found: printable(common_name) }.into());
    }
    let expires = certificate::time(x509.validity().not_after).min(anchor.not_after);
    let role = Role::Unattested { common_name: printable(common_name) };
    Ok(Accepted { role, passport: None, expires, anchor: anchor.id(anchor.spki), leaf })
}

/// The passport on the path, the one certificate between leaf and root or the anchor itself, and the root that vouches for
/// its addresses.
pub(super) fn passport(
    trust: &Trust,
    anchor: &Anchor,
    path: &VerifiedPath<'_>,
    now: SystemTime,
) -> Result<(Arc<Passport>, Fingerprint), Finding> {
    let between = path.intermediate_certificates().count();
    let shape = || Refusal::Shape { between, anchor: anchor.subject.clone() };
    let mut intermediates = path.intermediate_certificates();
    if let Some(allowed) = anchor.path_length.filter(|allowed| (*allowed as usize) < between) {
        let sentence = format!(
            "{between} authorities below {}, whose path length is {allowed}, expected a root for passports",
            anchor.subject
        );
        return Err(unsound(sentence, CertificateError::UnknownIssuer));
    }
    match (&anchor.kind, intermediates.next(), intermediates.next()) {
        (AnchorKind::Passport(passport), None, _) => Ok((Arc::clone(passport), anchor.spki)),
        (AnchorKind::Root(allowed), Some(certificate), None) => {
            let passport = Passport::read(&certificate.der())?;
            if !allowed.covers(&passport.blocks) {
                let (claimed, allowed) = (passport.blocks.to_string(), allowed.to_string());
                return Err(Refusal::BeyondRoot { claimed, allowed }.into());
            }
            Ok((Arc::new(passport), anchor.spki))
        }
        (AnchorKind::Plain, Some(certificate), None) => {
            let root = anchor.subject.clone();
            let found = trust.stated_passport(&certificate.der(), now);
            found.map_err(|unstated| match unstated {
                Unstated::Nothing => Refusal::RootWithoutBlocks { root }.into(),
                Unstated::Dates { from, until } => Refusal::StatementDates { from, until }.into(),
                Unstated::Another { stated, found } => Refusal::StatementOfAnother { stated, found }.into(),
                Unstated::NotAPassport(error) => error.into(),
            })
        }
        _ => Err(shape().into()),
    }
}

/// The leaf's names, held against the passport: webpki cannot compare URIs, and skips IP addresses where a passport
/// lists none.
pub(super) fn leaf_names(x509: &X509Certificate<'_>, passport: &Passport) -> Result<LeafUri, Finding> {
    let names = certificate::alternative_names(x509)?;
    if let Some(name) = names.dns.iter().find(|name| name.contains('*')) {
        return Err(Refusal::Wildcard { name: printable(name) }.into());
    }
    for bytes in names.addresses {
        let address = address(bytes);
        if !address.is_some_and(|address| passport.permits(address)) {
            let text =
                address.map_or_else(|| format!("of {} bytes", bytes.len()), |address| address.to_string());
            return Err(Refusal::Address { address: text }.into());
        }
    }
    let [uri] = names.uris[..] else { return Err(Refusal::Uris { found: names.uris.len() }.into()) };
    let uri: LeafUri = uri.parse()?;
    if (&uri.trust_domain, &uri.cluster) != (&passport.uri.trust_domain, &passport.uri.cluster) {
        let leaf = format!("{} in {}", uri.cluster, uri.trust_domain);
        let passport = format!("{} in {}", passport.uri.cluster, passport.uri.trust_domain);
        return Err(Refusal::UriOfAnother { leaf, passport }.into());
    }
    Ok(uri)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
