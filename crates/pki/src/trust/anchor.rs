//! One accepted certificate authority.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;

use super::InvalidTrust;
use crate::blocks::Blocks;
use crate::certificate::{self, Unreadable};
use crate::fingerprint::Fingerprint;
use crate::passport::{NotAPassport, Passport};

/// An accepted certificate authority, with what webpki's own anchors leave out.
#[derive(Clone, Debug)]
pub(crate) struct Anchor {
    pub(crate) kind: AnchorKind,
    pub(crate) subject: String,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    /// How many authorities may follow below it; webpki does not look at an anchor's.
    pub(crate) path_length: Option<u32>,
    pub(crate) spki: Fingerprint,
    pub(super) spki_der: Vec<u8>,
    pub(super) subject_der: Vec<u8>,
}

/// Names an accepted authority: its key, what it is accepted for, and who vouches for the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnchorId {
    pub(super) spki: Fingerprint,
    pub(super) unattested: bool,
    /// Whose deny list counts: the authority itself, or the signer of the statement about the passport's blocks.
    pub(super) voucher: Fingerprint,
}

/// What an accepted authority may vouch for.
#[derive(Clone, Debug)]
pub(crate) enum AnchorKind {
    /// Passports within these blocks.
    Root(Blocks),
    /// Leaves of one cluster: a passport accepted as it is.
    Passport(Arc<Passport>),
    /// An authority without address blocks. Of its passports those count about which an accepted root has signed a
    /// statement.
    Plain,
    /// A stock authority that the operator listed as unattested: the client name `remote`, no cluster.
    Unattested,
}

impl Anchor {
    /// Reads an authority. Fails unless it is a CA with keyCertSign.
    pub(super) fn read(der: &CertificateDer<'_>, listed_unattested: bool) -> Result<Self, InvalidTrust> {
        let unreadable =
            |cause: String| InvalidTrust::Unreadable { subject: certificate::describe(der), cause };
        let x509 = certificate::parse(der).map_err(|error| unreadable(error.to_string()))?;
        let subject = certificate::name_text(x509.subject());
        let basic = x509.basic_constraints().ok().flatten();
        let usage = x509.key_usage().ok().flatten();
        let is_ca = basic.as_ref().is_some_and(|extension| extension.value.ca)
            && usage.is_some_and(|extension| extension.value.key_cert_sign());
        if !is_ca {
            return Err(InvalidTrust::NotACa { subject });
        }
        Ok(Self {
            kind: kind(der, &x509, listed_unattested).map_err(|error| unreadable(error.to_string()))?,
            not_before: certificate::time(x509.validity().not_before),
            not_after: certificate::time(x509.validity().not_after),
            path_length: basic.and_then(|extension| extension.value.path_len_constraint),
            spki: Fingerprint::of(x509.public_key().raw),
            spki_der: x509.public_key().raw.to_vec(),
            subject_der: x509.subject().as_raw().to_vec(),
            subject,
        })
    }

    /// How a path that ends here is named later. `voucher` is who vouches for the passport's addresses.
    pub(crate) fn id(&self, voucher: Fingerprint) -> AnchorId {
        AnchorId { spki: self.spki, unattested: self.is_unattested(), voucher }
    }

    pub(super) fn is_unattested(&self) -> bool {
        matches!(self.kind, AnchorKind::Unattested)
    }

    pub(super) fn is_valid_at(&self, now: SystemTime) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }
}

fn kind(
    der: &CertificateDer<'_>,
    x509: &X509Certificate<'_>,
    listed_unattested: bool,
) -> Result<AnchorKind, Unreadable> {
    if listed_unattested {
        return Ok(AnchorKind::Unattested);
    }
    match Passport::read(der) {
        Ok(passport) => return Ok(AnchorKind::Passport(Arc::new(passport))),
        Err(NotAPassport::Unreadable(error)) => return Err(error),
        Err(_) => {}
    }
    Ok(certificate::blocks(x509)?.map_or(AnchorKind::Plain, AnchorKind::Root))
}
