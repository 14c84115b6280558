//! Deny lists: which certificates and keys no longer count, as their authority says. STABLE FORMAT.
//!
//! The payload of a signed document ([`crate::signed`]):
//!
//! ```text
//! {"trust_domain":"mesh.example","number":2,"issued_at":"2026-11-22T10:00:00Z","denied":[
//!   {"spki_sha256":"…","cluster":"tokyo","at":"…","until":"…","reason":"key stolen"},
//!   {"certificate_sha256":"…","cluster":"tokyo","at":"…","until":"…","reason":"wrong name"}]}
//! ```
//! An entry by key denies every certificate of that key: of a passport with all leaves below it. An entry by certificate
//! denies that one. `until` is when what it denies ends by itself: a later list leaves it out. Of two lists of one authority
//! the one with the higher number counts. A list counts only for what its own authority vouches for, so one owner
//! cannot shut out another's clusters. Lists do not expire: whoever can keep newer ones away keeps the older one in force.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use topology::ClusterName;

use crate::fingerprint::Fingerprint;
use crate::moment::Moment;
use crate::signed::{DocumentKind, Envelope, InvalidDocument};
use crate::spiffe::TrustDomain;

/// Holds what an authority no longer vouches for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenyList {
    /// The mesh.
    pub trust_domain: TrustDomain,
    /// Grows with every revocation; of two lists the higher counts.
    pub number: u64,
    /// When it was signed.
    pub issued_at: Moment,
    /// What it denies.
    pub denied: Vec<Denied>,
}

/// Holds one entry of a list. Also a line of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denied {
    /// What is denied.
    #[serde(flatten)]
    pub target: Target,
    /// The cluster that it belongs to.
    pub cluster: ClusterName,
    /// Since when.
    pub at: Moment,
    /// When the certificates that it denies have ended by themselves.
    pub until: Moment,
    /// Why, for people.
    #[serde(default)]
    pub reason: String,
}

/// What an entry denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Target {
    /// Every certificate of a key (SHA-256 of its `SubjectPublicKeyInfo`).
    #[serde(rename = "spki_sha256")]
    Key(Fingerprint),
    /// One certificate (SHA-256 of its DER).
    #[serde(rename = "certificate_sha256")]
    Certificate(Fingerprint),
}

/// Names a certificate as lists do: its key and itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateId {
    /// SHA-256 of the key.
    pub spki: Fingerprint,
    /// SHA-256 of the certificate.
    pub certificate: Fingerprint,
}

/// The lists that a process goes by, at most one of each authority.
#[derive(Clone, Debug, Default)]
pub(crate) struct DenyLists(BTreeMap<Fingerprint, InForce>);

#[derive(Clone, Debug)]
struct InForce {
    authority: String,
    number: u64,
    denied: BTreeMap<Target, Denied>,
}

/// What was found on a list, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The entry.
    pub denied: Denied,
    /// The list's number.
    pub list: u64,
    /// Who signed it.
    pub authority: String,
}

impl Target {
    /// True if it denies the certificate of this key and fingerprint.
    pub fn names(&self, spki: Fingerprint, certificate: Fingerprint) -> bool {
        match self {
            Self::Key(key) => *key == spki,
            Self::Certificate(denied) => *denied == certificate,
        }
    }
}

impl DenyLists {
    /// Takes a list into force, unless there is a newer one of the same authority.
    pub(crate) fn add(
        &mut self,
        document: &Envelope,
        spki: &[u8],
        authority: &str,
    ) -> Result<(), InvalidDocument> {
        let list: DenyList = document.open(spki, authority)?;
        if list.denied.len() > MAX_DENIED {
            return Err(InvalidDocument::Content {
                kind: DocumentKind::DenyList,
                signer: authority.to_owned(),
                found: format!("{} entries, expected at most {MAX_DENIED}", list.denied.len()),
            });
        }
        let signer = document.signer();
        if self.0.get(&signer).is_none_or(|known| known.number <= list.number) {
            let denied = list.denied.into_iter().map(|denied| (denied.target, denied)).collect();
            self.0.insert(signer, InForce { authority: authority.to_owned(), number: list.number, denied });
        }
        Ok(())
    }

    /// What the list of this authority says about a certificate, by its key first. O(log entries).
    pub(crate) fn find(&self, authority: Fingerprint, id: CertificateId) -> Option<Denial> {
        let list = self.0.get(&authority)?;
        let targets = [Target::Key(id.spki), Target::Certificate(id.certificate)];
        let denied = targets.iter().find_map(|target| list.denied.get(target))?;
        Some(Denial { denied: denied.clone(), list: list.number, authority: list.authority.clone() })
    }

    /// The number of an authority's list.
    pub(crate) fn number(&self, authority: Fingerprint) -> Option<u64> {
        self.0.get(&authority).map(|list| list.number)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Display for Denial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { denied, list, authority } = self;
        write!(f, "revoked at {}", denied.at)?;
        if !denied.reason.is_empty() {
            write!(f, " ({})", crate::certificate::printable(&denied.reason))?;
        }
        write!(f, ", deny list {list} of {authority}")
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key(spki) => write!(f, "key {spki}"),
            Self::Certificate(certificate) => write!(f, "certificate {certificate}"),
        }
    }
}

/// Many times what a mesh revokes in a year; a list of so many is under 1 MiB.
pub(crate) const MAX_DENIED: usize = 1024;

#[cfg(test)]
mod tests;
