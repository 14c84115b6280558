//! Whom a process trusts: accepted roots, stock authorities without passports, and its own cluster's passport.

mod anchor;
mod documents;

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, TrustAnchor};

use crate::certificate;
use crate::deny::DenyLists;
use crate::passport::Passport;
use crate::statement::Statements;
use crate::verifier::{Accepted, Role};

pub use anchor::AnchorId;
pub(crate) use anchor::{Anchor, AnchorKind};
pub(crate) use documents::Unstated;

/// An immutable set of trust anchors; replaced whole when files change, and one value serves a connection's whole life.
#[derive(Debug)]
pub struct Trust {
    anchors: Vec<Anchor>,
    /// The same, in the same order, as webpki wants them.
    webpki: Vec<TrustAnchor<'static>>,
    own: Option<Arc<Passport>>,
    deny: DenyLists,
    statements: Statements,
    notes: Vec<String>,
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
        let mut trust = Self { own, ..Self::empty() };
        for (certificates, listed_unattested) in [(roots, false), (unattested, true)] {
            for der in certificates {
                trust.add(der, listed_unattested)?;
            }
        }
        Ok(trust)
    }

    /// Accepts the leaves of one passport, which is also the own one.
    pub(crate) fn of_passport(passport: &Passport) -> Result<Self, InvalidTrust> {
        let own = Arc::new(passport.clone());
        let mut anchor = Anchor::read(&passport.der, false)?;
        // Its blocks may have come by a statement, so they are not read again.
        anchor.kind = AnchorKind::Passport(Arc::clone(&own));
        let mut trust = Self { own: Some(own), ..Self::empty() };
        trust.accept(anchor, &passport.der)?;
        Ok(trust)
    }

    /// Sets the passport of the own cluster.
    #[must_use]
    pub fn with_own(self, own: Option<Arc<Passport>>) -> Self {
        Self { own, ..self }
    }

    fn empty() -> Self {
        Self {
            anchors: Vec::new(),
            webpki: Vec::new(),
            own: None,
            deny: DenyLists::default(),
            statements: Statements::default(),
            notes: Vec::new(),
        }
    }

    /// The passport of the own cluster.
    pub fn own(&self) -> Option<&Arc<Passport>> {
        self.own.as_ref()
    }

    /// Whether a peer's authority is among the accepted ones, for the same purpose as when the peer was accepted, and neither its
    /// passport nor its leaf is on a deny list. A renewed certificate of the authority counts. An administrator's passport must still be the own one: whoever replaced a stolen passport
    /// must not keep its holder as administrator until the stolen one ends. Agents may stay and come back with a new
    /// leaf. O(authorities).
    pub fn still_accepts(&self, peer: &Accepted) -> bool {
        if matches!(peer.role, Role::Admin { .. }) {
            let spki = |passport: &Arc<Passport>| passport.spki;
            if self.own.as_ref().map(spki) != peer.passport.as_ref().map(spki) {
                return false;
            }
        }
        let named = |anchor: &Anchor| {
            anchor.spki == peer.anchor.spki && anchor.is_unattested() == peer.anchor.unattested
        };
        self.anchors.iter().any(named) && self.still_vouches(peer) && self.denial(peer).is_none()
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
        let anchor = Anchor::read(der, listed_unattested)?;
        // Several anchors of one name make path building try each; with many it gives up.
        let known = self.anchors.iter().position(|known| known.subject_der == anchor.subject_der);
        let Some((at, known)) = known.and_then(|at| Some((at, self.anchors.get(at)?))) else {
            return self.accept(anchor, der);
        };
        if known.spki != anchor.spki {
            return Err(InvalidTrust::SameName { subject: anchor.subject });
        }
        // The same authority with a renewed certificate; one listed as accepted never becomes unattested, nor the
        // other way round.
        if known.is_unattested() == listed_unattested && anchor.not_after > known.not_after {
            self.anchors.remove(at);
            self.webpki.remove(at);
            return self.accept(anchor, der);
        }
        Ok(())
    }

    fn accept(&mut self, anchor: Anchor, der: &CertificateDer<'_>) -> Result<(), InvalidTrust> {
        let plain = webpki::anchor_from_trusted_cert(der).map_err(|error| InvalidTrust::Unreadable {
            subject: certificate::describe(der),
            cause: error.to_string(),
        })?;
        self.webpki.push(plain.to_owned());
        self.anchors.push(anchor);
        Ok(())
    }
}

/// Each accepted root costs at most one signature check a handshake, of the hundred that webpki allows.
const MAX_ANCHORS: usize = 64;

#[cfg(test)]
mod tests;
