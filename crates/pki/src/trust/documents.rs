//! What accepted roots have signed beside certificates: deny lists and block statements.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;

use super::{Anchor, AnchorKind, Trust};
use crate::blocks::Blocks;
use crate::certificate::time_text;
use crate::deny::{CertificateId, Denial};
use crate::fingerprint::Fingerprint;
use crate::passport::{NotAPassport, Passport};
use crate::signed::{self, DocumentKind, Envelope, InvalidDocument};
use crate::verifier::Accepted;

impl Trust {
    /// Takes the deny lists of accepted roots into force; each line is one. A list of an authority that is not accepted, or
    /// carries no blocks itself, counts for nothing ([`Self::notes`]).
    ///
    /// Fails if a line is no document, or was not signed by the root that it names.
    pub fn with_deny_lists(mut self, lines: &[u8]) -> Result<Self, InvalidDocument> {
        for document in signed::read(lines, DocumentKind::DenyList)? {
            match self.signer(&document) {
                Some((root, _)) => self.deny.add(&document, &root.spki_der, &root.subject)?,
                None => self.note_unknown(DocumentKind::DenyList, &document),
            }
        }
        Ok(self)
    }

    /// Takes the block statements of accepted roots into force; each line is one.
    ///
    /// Fails if a line is no document, was not signed by the root that it names, or states blocks that this root does not
    /// have.
    pub fn with_statements(mut self, lines: &[u8]) -> Result<Self, InvalidDocument> {
        for document in signed::read(lines, DocumentKind::BlockStatement)? {
            match self.signer(&document) {
                Some((root, allowed)) => {
                    self.statements.add(&document, &root.spki_der, &root.subject, &allowed)?;
                }
                None => self.note_unknown(DocumentKind::BlockStatement, &document),
            }
        }
        Ok(self)
    }

    /// Reads the passport of the own chain, with the blocks that are stated for it if it has none.
    pub fn read_passport(&self, der: &CertificateDer<'_>) -> Result<Passport, NotAPassport> {
        match Passport::read(der) {
            Err(NotAPassport::NoBlocks) => {
                let spki = crate::certificate::spki(der)?;
                let stated = self.statements.get(spki).ok_or(NotAPassport::NoBlocks)?;
                Passport::read_with_blocks(der, stated.blocks.clone())
            }
            read => read,
        }
    }

    /// The number of the deny list of this root, if there is one.
    pub(crate) fn list_number(&self, root: Fingerprint) -> Option<u64> {
        self.deny.number(root)
    }

    /// What was left aside when the documents were read, for the operator.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What a deny list says about an accepted peer: about its passport first, then about its leaf. O(log entries).
    pub fn denial(&self, peer: &Accepted) -> Option<Denial> {
        self.denied(peer.anchor.voucher, peer.passport.as_deref(), peer.leaf)
    }

    /// What the list of any accepted root says about the own passport or leaf.
    pub(crate) fn own_denial(&self, leaf: CertificateId) -> Option<Denial> {
        self.anchors.iter().find_map(|anchor| self.denied(anchor.spki, self.own.as_deref(), leaf))
    }

    pub(crate) fn denied(
        &self,
        voucher: Fingerprint,
        passport: Option<&Passport>,
        leaf: CertificateId,
    ) -> Option<Denial> {
        if self.deny.is_empty() {
            return None;
        }
        let passport = passport.and_then(|passport| self.deny.find(voucher, passport.id()));
        passport.or_else(|| self.deny.find(voucher, leaf))
    }

    /// The passport below an authority without blocks, with those that a root has stated for its key, and who that is.
    pub(crate) fn stated_passport(
        &self,
        der: &CertificateDer<'_>,
        now: SystemTime,
    ) -> Result<(Arc<Passport>, Fingerprint), Unstated> {
        let spki = crate::certificate::spki(der).map_err(NotAPassport::from)?;
        let stated = self.statements.get(spki).ok_or(Unstated::Nothing)?;
        let signer = self.anchors.iter().find(|anchor| anchor.spki == stated.signer);
        if !signer.is_some_and(|signer| signer.is_valid_at(now)) {
            return Err(Unstated::Nothing);
        }
        if !(stated.not_before..=stated.not_after).contains(&now) {
            let (from, until) = (time_text(stated.not_before), time_text(stated.not_after));
            return Err(Unstated::Dates { from, until });
        }
        let mut passport = Passport::read_with_blocks(der, stated.blocks.clone())?;
        if passport.uri != stated.uri {
            return Err(Unstated::Another {
                stated: stated.uri.to_string(),
                found: passport.uri.to_string(),
            });
        }
        passport.not_after = passport.not_after.min(stated.not_after);
        Ok((Arc::new(passport), stated.signer))
    }

    /// Whether who vouched for an accepted peer's addresses still does.
    pub(super) fn still_vouches(&self, peer: &Accepted) -> bool {
        let by_certificate = peer.anchor.voucher == peer.anchor.spki;
        by_certificate || {
            let spki = peer.passport.as_ref().map(|passport| passport.spki);
            let stated = spki.and_then(|spki| self.statements.get(spki));
            stated.is_some_and(|stated| stated.signer == peer.anchor.voucher)
        }
    }

    /// The accepted root that a document names as its signer, and what it may vouch for.
    fn signer(&self, document: &Envelope) -> Option<(Anchor, Blocks)> {
        self.anchors.iter().find(|anchor| anchor.spki == document.signer()).and_then(|anchor| {
            match &anchor.kind {
                AnchorKind::Root(blocks) => Some((anchor.clone(), blocks.clone())),
                AnchorKind::Passport(_) | AnchorKind::Plain | AnchorKind::Unattested => None,
            }
        })
    }

    fn note_unknown(&mut self, kind: DocumentKind, document: &Envelope) {
        self.notes.push(format!(
            "a {kind} of the key {} counts for nothing: no accepted root has this key",
            document.signer().short()
        ));
    }
}

/// Why nothing is stated about a passport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unstated {
    /// There is no statement about its key by an accepted root in its dates.
    Nothing,
    /// There is one, for another time.
    Dates { from: String, until: String },
    /// There is one, for another cluster.
    Another { stated: String, found: String },
    /// It is no passport otherwise.
    NotAPassport(NotAPassport),
}

impl From<NotAPassport> for Unstated {
    fn from(error: NotAPassport) -> Self {
        Self::NotAPassport(error)
    }
}
