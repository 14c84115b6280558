//! A cluster's own authority: its passport with the key, which signs the cluster's leaves.
//!
//! ```text
//! CLUSTER_DIR/       0700
//!   passport.key     0600  made here (or wherever the signing request was made), never sent anywhere
//!   passport.crt           the passport
//!   ca.crt                 the accepted roots
//!   deny-list.jsonl        what these no longer vouch for, if anything
//!   block-statements.jsonl the passport's addresses, if its authority could not write them into it
//! ```

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;

use crate::durable::{self, Access};
use crate::files::{self, FileError, certificates, certificates_pem, read_bounded};
use crate::key::{KeyError, PrivateKey, SigningRequest};
use crate::passport::{NotAPassport, Passport};
use crate::profile::{IssueError, LeafRole, LeafSpec, issue_leaf};
use crate::verifier::check_issued;

/// A passport and its key.
#[derive(Debug)]
pub struct ClusterAuthority {
    passport: Passport,
    key: PrivateKey,
    roots: Vec<CertificateDer<'static>>,
    documents: Documents,
}

/// What goes with the accepted roots, file by file: name and content.
type Documents = Vec<(&'static str, Vec<u8>)>;

/// A leaf as it is shown on the wire, with the authorities that its holder accepts.
#[derive(Clone, Debug)]
pub struct IssuedLeaf {
    leaf: CertificateDer<'static>,
    passport: CertificateDer<'static>,
    /// What the holder is to accept: the roots; for an etcd and its client the passport alone.
    accepted: Vec<CertificateDer<'static>>,
    documents: Documents,
    expires: SystemTime,
}

/// Why a cluster's authority cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClusterAuthorityError {
    /// A file could not be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The key could not be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A file could not be written.
    #[error("write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The certificate is no passport.
    #[error("{}: not a passport; expected what `meshctl ca enroll` wrote", path.display())]
    Passport {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: NotAPassport,
    },
    /// The key is not the passport's.
    #[error("{}: not the key of {PASSPORT} beside it", path.display())]
    Mismatch {
        /// The key file.
        path: PathBuf,
    },
    /// The leaf could not be made.
    #[error(transparent)]
    Issue(#[from] IssueError),
}

impl ClusterAuthority {
    /// Opens `passport.crt`, `passport.key` and `ca.crt` of a directory.
    pub fn open(dir: &Path) -> Result<Self, ClusterAuthorityError> {
        let path = dir.join(PASSPORT);
        let chain = certificates(&path, &read_bounded(&path)?)?;
        let (trust, roots) = files::trust(&dir.join(files::AUTHORITIES), &[], read_bounded)?;
        let first = chain.first().ok_or_else(|| FileError::content(&path, files::Problem::Empty))?;
        let passport =
            trust.read_passport(first).map_err(|source| ClusterAuthorityError::Passport { path, source })?;
        let path = dir.join(PASSPORT_KEY);
        let key = PrivateKey::load(&path)?;
        if key.spki() != passport.spki {
            return Err(ClusterAuthorityError::Mismatch { path });
        }
        let mut documents = Documents::new();
        for name in [files::STATEMENTS, files::DENY_LISTS] {
            let path = dir.join(name);
            if path.exists() {
                documents.push((name, read_bounded(&path)?));
            }
        }
        Ok(Self { passport, key, roots, documents })
    }

    /// Writes what an enrolment gave: `passport.crt` and `ca.crt`. The key is the requester's to keep.
    pub fn write_passport(
        dir: &Path,
        passport: &Passport,
        roots: &[CertificateDer<'static>],
    ) -> Result<(), ClusterAuthorityError> {
        write(dir, files::AUTHORITIES, certificates_pem(roots).as_bytes())?;
        write(dir, PASSPORT, certificates_pem([&passport.der]).as_bytes())
    }

    /// The passport.
    pub fn passport(&self) -> &Passport {
        &self.passport
    }

    /// Signs a leaf; of the request only the public key is used. The result has passed our own verifier.
    pub fn issue_leaf(
        &self,
        spec: &LeafSpec,
        request: &SigningRequest,
    ) -> Result<IssuedLeaf, ClusterAuthorityError> {
        let now = SystemTime::now();
        let leaf = issue_leaf(&self.passport, &self.key, spec, request, now)?;
        let expires = check_issued(&self.passport, &leaf, spec.role, now)?;
        // Under a root, every member of the mesh could issue `root` or an administrator for this etcd, or be it.
        let (accepted, documents) = match spec.role {
            LeafRole::Etcd | LeafRole::Store => (vec![self.passport.der.clone()], Documents::new()),
            LeafRole::Hub | LeafRole::Remote | LeafRole::Local | LeafRole::Admin => {
                (self.roots.clone(), self.documents.clone())
            }
        };
        Ok(IssuedLeaf { leaf, passport: self.passport.der.clone(), accepted, documents, expires })
    }
}

impl IssuedLeaf {
    /// The chain as it goes on the wire and into `tls.crt`: the leaf, then its passport.
    pub fn chain_pem(&self) -> String {
        certificates_pem([&self.leaf, &self.passport])
    }

    /// When the leaf ends.
    pub fn expires(&self) -> SystemTime {
        self.expires
    }

    /// Writes `ca.crt` and what goes with it, then `tls.key` if the key was made here, then `tls.crt`: a reader that finds a new key with the
    /// old certificate sees that they do not fit, and waits.
    pub fn write(&self, dir: &Path, key: Option<&PrivateKey>) -> Result<(), ClusterAuthorityError> {
        durable::private_dir(dir)
            .map_err(|source| ClusterAuthorityError::Write { path: dir.to_owned(), source })?;
        for (name, content) in &self.documents {
            write(dir, name, content)?;
        }
        write(dir, files::AUTHORITIES, certificates_pem(&self.accepted).as_bytes())?;
        if let Some(key) = key {
            key.write(&dir.join(files::KEY))?;
        }
        write(dir, files::CERTIFICATE, self.chain_pem().as_bytes())
    }
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), ClusterAuthorityError> {
    let path = dir.join(name);
    durable::write(&path, bytes, Access::Everyone)
        .map_err(|source| ClusterAuthorityError::Write { path, source })
}

/// The passport's file.
pub const PASSPORT: &str = "passport.crt";
/// The passport's key file.
pub const PASSPORT_KEY: &str = "passport.key";
