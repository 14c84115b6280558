//! Whom a process trusts: accepted roots, stock authorities without passports, and its own cluster's passport.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::{CertificateDer, TrustAnchor};

use crate::blocks::Blocks;
use crate::certificate::{self, Unreadable};
use crate::fingerprint::Fingerprint;
use crate::passport::{NotAPassport, Passport};
use crate::verifier::{Accepted, Role};

/// An immutable set of trust anchors; replaced whole when files change, and one value serves a connection's whole life.
#[derive(Debug)]
pub struct Trust {
    anchors: Vec<Anchor>,
    /// The same, in the same order, as webpki wants them.
    webpki: Vec<TrustAnchor<'static>>,
    own: Option<Arc<Passport>>,
}

/// An accepted certificate authority, with what webpki's own anchors leave out.
#[derive(Clone, Debug)]
pub(crate) struct Anchor {
    pub(crate) kind: AnchorKind,
    pub(crate) subject: String,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    subject_der: Vec<u8>,
    spki: Fingerprint,
}

/// Names an accepted authority: its key, and what it is accepted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnchorId {
    spki: Fingerprint,
    unattested: bool,
}

/// What an accepted authority may vouch for.
#[derive(Clone, Debug)]
pub(crate) enum AnchorKind {
    /// Passports within these blocks.
    Root(Blocks),
    /// Leaves of one cluster: a passport accepted as it is.
    Passport(Arc<Passport>),
    /// Nothing that our rules could check: an authority without address blocks.
    Plain,
    /// A stock authority that the operator listed as unattested: the client name `remote`, no cluster.
    Unattested,
}

/// Why a list of authorities cannot be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTrust {
    /// A certificate cannot be read.
    #[error("authority {subject}: {cause}; expected a certificate authority")]
    Unreadable {
        /// Subject, issuer and serial.
        subject: String,
        /// What is wrong.
        cause: String,
    },
    /// A certificate may not sign others.
    #[error("authority {subject}: it is no certificate authority with key usage keyCertSign")]
    NotACa {
        /// Its subject.
        subject: String,
    },
    /// Two authorities have one name.
    #[error(
        "two authorities named {subject} with different keys; expected each name once, remove one of them"
    )]
    SameName {
        /// The name.
        subject: String,
    },
    /// None at all.
    #[error("no authority in it; expected at least one")]
    Empty,
    /// Too many.
    #[error("{found} authorities, expected at most {MAX_ANCHORS}")]
    TooMany {
        /// How many.
        found: usize,
    },
}

impl Trust {
    /// Accepts `roots`; of those in `unattested` only stock clients' legacy names. `own` is the passport of the cluster
    /// that this process belongs to, if it has one.
    pub fn new(
        roots: &[CertificateDer<'_>],
        unattested: &[CertificateDer<'_>],
        own: Option<Arc<Passport>>,
    ) -> Result<Self, InvalidTrust> {
        let found = roots.len() + unattested.len();
        if found > MAX_ANCHORS {
            return Err(InvalidTrust::TooMany { found });
        }
        if roots.is_empty() {
            return Err(InvalidTrust::Empty);
        }
        let mut trust = Self { anchors: Vec::new(), webpki: Vec::new(), own };
        for (certificates, listed_unattested) in [(roots, false), (unattested, true)] {
            for der in certificates {
                trust.add(der, listed_unattested)?;
            }
        }
        Ok(trust)
    }

    /// The passport of the own cluster.
    pub fn own(&self) -> Option<&Arc<Passport>> {
        self.own.as_ref()
    }

    /// Whether a peer's authority is among the accepted ones, for the same purpose as when the peer was accepted. A renewed
    /// certificate of it counts. An administrator's passport must still be the own one: whoever replaced a stolen passport
    /// must not keep its holder as administrator until the stolen one ends. Agents may stay and come back with a new
    /// leaf. O(authorities).
    pub fn still_accepts(&self, peer: &Accepted) -> bool {
        if matches!(peer.role, Role::Admin { .. }) {
            let spki = |passport: &Arc<Passport>| passport.spki;
            if self.own.as_ref().map(spki) != peer.passport.as_ref().map(spki) {
                return false;
            }
        }
        self.anchors.iter().any(|anchor| anchor.id() == peer.anchor)
    }

    /// The subjects of all accepted authorities, for messages.
    pub fn subjects(&self) -> Vec<&str> {
        self.anchors.iter().map(|anchor| anchor.subject.as_str()).collect()
    }

    pub(crate) fn webpki(&self) -> &[TrustAnchor<'static>] {
        &self.webpki
    }

    /// The anchor that a verified path ended in.
    pub(crate) fn anchor(&self, found: &TrustAnchor<'_>) -> Option<&Anchor> {
        let at = self.webpki.iter().position(|anchor| {
            anchor.subject == found.subject && anchor.subject_public_key_info == found.subject_public_key_info
        })?;
        self.anchors.get(at)
    }

    fn add(&mut self, der: &CertificateDer<'_>, listed_unattested: bool) -> Result<(), InvalidTrust> {
        let unreadable =
            |cause: String| InvalidTrust::Unreadable { subject: certificate::describe(der), cause };
        let x509 = certificate::parse(der).map_err(|error| unreadable(error.to_string()))?;
        let subject = certificate::name_text(x509.subject());
        let basic = x509.basic_constraints().ok().flatten();
        let usage = x509.key_usage().ok().flatten();
        let is_ca = basic.is_some_and(|extension| extension.value.ca)
            && usage.is_some_and(|extension| extension.value.key_cert_sign());
        if !is_ca {
            return Err(InvalidTrust::NotACa { subject });
        }
        let anchor = Anchor {
            kind: kind(der, &x509, listed_unattested).map_err(|error| unreadable(error.to_string()))?,
            not_before: certificate::time(x509.validity().not_before),
            not_after: certificate::time(x509.validity().not_after),
            subject_der: x509.subject().as_raw().to_vec(),
            spki: Fingerprint::of(x509.public_key().raw),
            subject,
        };
        // Several anchors of one name make path building try each; with many it gives up.
        let known = self.anchors.iter_mut().find(|known| known.subject_der == anchor.subject_der);
        match known {
            Some(known) if known.spki != anchor.spki => {
                return Err(InvalidTrust::SameName { subject: anchor.subject });
            }
            // The same authority with a renewed certificate; one listed as accepted never becomes unattested, nor the
            // other way round.
            Some(known) => {
                let as_before = matches!(known.kind, AnchorKind::Unattested) == listed_unattested;
                if as_before && anchor.not_after > known.not_after {
                    *known = anchor;
                }
                return Ok(());
            }
            None => {}
        }
        let plain = webpki::anchor_from_trusted_cert(der).map_err(|error| unreadable(error.to_string()))?;
        self.webpki.push(plain.to_owned());
        self.anchors.push(anchor);
        Ok(())
    }
}

impl Anchor {
    pub(crate) fn id(&self) -> AnchorId {
        AnchorId { spki: self.spki, unattested: matches!(self.kind, AnchorKind::Unattested) }
    }
}

fn kind(
    der: &CertificateDer<'_>,
    x509: &x509_parser::certificate::X509Certificate<'_>,
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

/// Each accepted root costs at most one signature check a handshake, of the hundred that webpki allows.
const MAX_ANCHORS: usize = 64;

#[cfg(test)]
mod tests {
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
}
