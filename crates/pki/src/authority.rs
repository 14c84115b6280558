//! The authority of a mesh: the root key, and the ledger of what it has signed.
//!
//! ```text
//! AUTHORITY_DIR/       0700
//!   root.key           0600  the root's private key (PKCS #8)
//!   root.crt                 the root
//!   ledger.jsonl       0600  one line an event, append-only, flushed before a certificate leaves
//!   deny-list.jsonl          what it no longer vouches for, as of the last revocation
//!   lock               0600  held while the ledger is read and extended
//! ```

mod audit;
mod bundle;
mod claim;
mod enrolment;
mod event;
mod issue;
mod ledger;
mod lock;
mod revocation;
mod state;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use topology::ClusterName;

use crate::deny::MAX_DENIED;
use crate::durable::{self, Access};
use crate::files::{FileError, certificates, certificates_pem, read_bounded};
use crate::fingerprint::Fingerprint;
use crate::key::{KeyError, KeyKind, PrivateKey};
use crate::passport::NotAPassport;
use crate::profile::{IssueError, issue_root, life};
use crate::signed::DocumentKind;
use crate::spiffe::TrustDomain;

pub use crate::moment::Moment;
pub use audit::{Audit, AuditError, Finding, Flaw, audit};
pub use bundle::Bundle;
pub use claim::{BlockKind, BlockRef, Conflict, Overlap};
pub use enrolment::{EnrolRequest, HubAddress, InvalidHubAddress, InvalidRequest};
pub use event::Enrolment;
pub use issue::{Enrolled, NotAttestable};
pub use ledger::{Ledger, LedgerError};
pub use lock::LockError;
pub use revocation::{Revoked, Subject};
pub use state::PassportState;

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
    /// The cluster is not in the ledger.
    #[error("cluster {cluster} is not enrolled here; enrolled: {known}")]
    UnknownCluster {
        /// The cluster.
        cluster: ClusterName,
        /// Those that are.
        known: String,
    },
    /// The cluster's passport is not ours to renew.
    #[error(
        "the passport of cluster {cluster} was signed by another authority; have it renewed there, then state its addresses (ca attest)"
    )]
    Attested {
        /// The cluster.
        cluster: ClusterName,
    },
    /// Addresses cannot be stated for the certificate.
    #[error(transparent)]
    NotAttestable(Box<NotAttestable>),
    /// Everything asked for has ended or was revoked before.
    #[error("nothing to revoke: what was named has ended, or was revoked before")]
    NothingToRevoke,
    /// The certificate is not one of this mesh.
    #[error("not a passport or leaf of a cluster in this ledger: {found}")]
    NotOurs {
        /// What it is.
        found: String,
    },
    /// More than a list may hold.
    #[error(
        "{found} revocations that have not ended by themselves, expected at most {MAX_DENIED}; revoke whole clusters"
    )]
    TooManyDenied {
        /// How many.
        found: usize,
    },
    /// The library could not sign.
    #[error("sign a {kind} with the root's key")]
    Sign {
        /// What.
        kind: DocumentKind,
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
}

/// The root's certificate, in an authority's directory.
pub const ROOT: &str = "root.crt";
const ROOT_KEY: &str = "root.key";
const LEDGER: &str = "ledger.jsonl";

#[cfg(test)]
mod tests;
