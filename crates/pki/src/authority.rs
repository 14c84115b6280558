//! The authority of a mesh: the root key, and the ledger of what it has signed.
//!
//! ```text
//! AUTHORITY_DIR/       0700
//!   root.key           0600  the root's private key (PKCS #8)
//!   root.crt                 the root
//!   ledger.jsonl       0600  one line an event, append-only, flushed before a certificate leaves
//!   lock               0600  held while the ledger is read and extended
//! ```

mod claim;
mod enrolment;
mod ledger;
mod lock;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;

use crate::durable::{self, Access};
use crate::files::{FileError, certificates, certificates_pem, read_bounded};
use crate::fingerprint::Fingerprint;
use crate::key::{KeyError, KeyKind, PrivateKey, SigningRequest};
use crate::passport::{NotAPassport, Passport};
use crate::profile::{IssueError, PassportSpec, issue_passport, issue_root, life};
use crate::spiffe::{ClusterUri, TrustDomain};

pub use claim::{BlockKind, BlockRef, Conflict, Overlap};
pub use enrolment::{EnrolRequest, HubAddress, InvalidHubAddress, InvalidRequest};
pub use ledger::{Enrolment, Ledger, LedgerError, Moment};
pub use lock::LockError;

use lock::Lock;

/// A mesh's root with its ledger, in a directory.
#[derive(Debug)]
pub struct Authority {
    dir: PathBuf,
    root: CertificateDer<'static>,
    key: PrivateKey,
    trust_domain: TrustDomain,
    passport_life: Duration,
}

/// Holds what an enrolment gave.
#[derive(Clone, Debug)]
pub struct Enrolled {
    /// The passport.
    pub passport: Passport,
    /// The root that signed it.
    pub root: CertificateDer<'static>,
    /// True if the cluster was enrolled before and this replaces its passport.
    pub renewed: bool,
    /// Overlaps that are allowed, for the operator to know: equal service blocks are normal.
    pub notes: Vec<Overlap>,
}

/// Why an authority cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// There is one already.
    #[error("{} already holds an authority ({found}); expected an empty or new directory; a second root would make every passport void", dir.display())]
    Exists {
        /// The directory.
        dir: PathBuf,
        /// The file found.
        found: &'static str,
    },
    /// A file could not be written.
    #[error("write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file could not be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// A key could not be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The ledger could not be used.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Another process works on the same directory.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A certificate could not be made.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// Key, certificate and ledger are not of one authority.
    #[error("{}: {what}", dir.display())]
    Inconsistent {
        /// The directory.
        dir: PathBuf,
        /// What does not fit what.
        what: &'static str,
    },
    /// The request cannot be granted to anyone.
    #[error(transparent)]
    Request(#[from] InvalidRequest),
    /// The request collides with what others have; nothing was signed.
    #[error("{}", refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Refused {
        /// Each collision, one line each.
        refusals: Vec<Conflict>,
    },
    /// The passport came out wrong.
    #[error("the new passport is not sound; nothing was issued")]
    Unsound(#[from] NotAPassport),
}

impl Authority {
    /// Makes a new root, key and ledger in `dir`, which is created with mode 0700.
    pub fn init(dir: &Path, trust_domain: TrustDomain, kind: KeyKind) -> Result<Self, AuthorityError> {
        let write = |path: PathBuf| move |source| AuthorityError::Write { path, source };
        durable::private_dir(dir).map_err(write(dir.to_owned()))?;
        let _lock = Lock::take(dir)?;
        for found in [LEDGER, ROOT_KEY, ROOT] {
            if dir.join(found).exists() {
                return Err(AuthorityError::Exists { dir: dir.to_owned(), found });
            }
        }
        let key = PrivateKey::generate(kind)?;
        let now = SystemTime::now();
        let root = issue_root(&key, now, life::ROOT)?;
        key.write(&dir.join(ROOT_KEY))?;
        let path = dir.join(ROOT);
        durable::write(&path, certificates_pem([&root]).as_bytes(), Access::Everyone).map_err(write(path))?;
        // Last, so that a directory with a ledger is a complete authority.
        Ledger::create(&dir.join(LEDGER), &trust_domain, key.spki(), now)?;
        Ok(Self { dir: dir.to_owned(), root, key, trust_domain, passport_life: life::PASSPORT })
    }

    /// Opens an authority made by [`Self::init`].
    pub fn open(dir: &Path) -> Result<Self, AuthorityError> {
        let inconsistent = |what| AuthorityError::Inconsistent { dir: dir.to_owned(), what };
        let ledger = Ledger::read(&dir.join(LEDGER))?;
        let path = dir.join(ROOT);
        let mut roots = certificates(&path, &read_bounded(&path)?)?.into_iter();
        let (Some(root), None) = (roots.next(), roots.next()) else {
            return Err(inconsistent("root.crt holds several certificates, expected exactly the root"));
        };
        let key = PrivateKey::load(&dir.join(ROOT_KEY))?;
        let certified =
            crate::certificate::parse(&root).ok().map(|x509| Fingerprint::of(x509.public_key().raw));
        if certified != Some(key.spki()) {
            return Err(inconsistent("root.key is not the key of root.crt"));
        }
        if ledger.root() != key.spki() {
            return Err(inconsistent("ledger.jsonl is the ledger of another root"));
        }
        let trust_domain = ledger.trust_domain().clone();
        Ok(Self { dir: dir.to_owned(), root, key, trust_domain, passport_life: life::PASSPORT })
    }

    /// Replaces the year that a new passport is valid.
    #[must_use]
    pub fn with_passport_life(self, passport_life: Duration) -> Self {
        Self { passport_life, ..self }
    }

    /// The root.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// The trust domain of all its passports.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The ledger as it is now.
    pub fn ledger(&self) -> Result<Ledger, AuthorityError> {
        Ok(Ledger::read(&self.dir.join(LEDGER))?)
    }

    /// Signs a passport, unless the request collides with what another cluster has.
    ///
    /// A cluster that is enrolled with the same name and id gets a new passport, for which it must have a new key: of
    /// two passports of one key the holder could choose. The line in the ledger is on disk before this returns.
    /// Waits a few seconds if another process is enrolling.
    pub fn enroll(
        &self,
        request: &EnrolRequest,
        signing: &SigningRequest,
    ) -> Result<Enrolled, AuthorityError> {
        let request = request.canonical()?;
        let _lock = Lock::take(&self.dir)?;
        let mut ledger = self.ledger()?;
        let mut refusals = Vec::new();
        let mut notes = Vec::new();
        for enrolment in ledger.current() {
            let findings = claim::compare(&request, &enrolment.request);
            refusals.extend(findings.refusals);
            notes.extend(findings.notes);
        }
        if let Some(earlier) = ledger.enrolments().iter().find(|earlier| earlier.spki == signing.spki()) {
            refusals.push(Conflict::Key { cluster: earlier.request.cluster.clone(), at: earlier.at });
        }
        if !refusals.is_empty() {
            return Err(AuthorityError::Refused { refusals });
        }
        let now = SystemTime::now();
        let passport = self.passport(&request, signing, now)?;
        let renewed = ledger.current().any(|enrolment| enrolment.request.cluster == request.cluster);
        ledger.append(Enrolment::new(request, &passport, now))?;
        Ok(Enrolled { passport, root: self.root.clone(), renewed, notes })
    }

    fn passport(
        &self,
        request: &EnrolRequest,
        signing: &SigningRequest,
        now: SystemTime,
    ) -> Result<Passport, AuthorityError> {
        let spec = PassportSpec {
            uri: ClusterUri {
                trust_domain: self.trust_domain.clone(),
                cluster: request.cluster.clone(),
                id: request.id,
            },
            blocks: request.address_space(),
            dns_names: request.dns_names(),
            addresses: request.addresses(),
            life: self.passport_life,
        };
        let der = issue_passport(&self.root, &self.key, &spec, signing, now)?;
        Ok(Passport::read(&der)?)
    }
}

/// The root's certificate, in an authority's directory.
pub const ROOT: &str = "root.crt";
const ROOT_KEY: &str = "root.key";
const LEDGER: &str = "ledger.jsonl";

#[cfg(test)]
mod tests;
