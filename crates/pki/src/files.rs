//! Certificate files as they lie on disk, read with errors that say what to do.
//!
//! ```text
//! tls.crt   the leaf, then its passport         the layout of a Kubernetes Secret of type
//! tls.key   the leaf's private key              kubernetes.io/tls, plus ca.crt
//! ca.crt    the accepted roots
//! deny-list.jsonl          beside ca.crt, if there: what these roots no longer vouch for
//! block-statements.jsonl   beside ca.crt, if there: addresses of passports that carry none
//! ```
//! A ClusterMesh client configuration names the same three as `cert-file`, `key-file` and `trusted-ca-file`.

mod credentials;
mod error;
mod live;
mod pem;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::{PemObject, SectionKind};

use crate::trust::Trust;

pub use rustls::pki_types::CertificateDer;

pub use credentials::Credentials;
pub(crate) use credentials::provider;
pub use error::{FileError, Problem};
pub use live::{LiveCredentials, ReloadError, Reloader};
pub use pem::certificates_pem;

/// Holds where the files of one connection's side lie.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Files {
    /// The leaf, then its passport.
    pub certificate: PathBuf,
    /// The leaf's private key.
    pub key: PathBuf,
    /// The accepted roots.
    pub authorities: PathBuf,
    /// Stock authorities whose clients are accepted without a passport; usually none.
    pub unattested: Option<PathBuf>,
}

impl Files {
    /// `tls.crt`, `tls.key` and `ca.crt` in one directory.
    pub fn in_dir(dir: &Path) -> Self {
        Self {
            certificate: dir.join(CERTIFICATE),
            key: dir.join(KEY),
            authorities: dir.join(AUTHORITIES),
            unattested: None,
        }
    }

    /// The deny lists of the accepted roots: beside their file, and need not be there.
    pub fn deny_lists(&self) -> PathBuf {
        self.authorities.with_file_name(DENY_LISTS)
    }

    /// The block statements of the accepted roots: beside their file, and need not be there.
    pub fn statements(&self) -> PathBuf {
        self.authorities.with_file_name(STATEMENTS)
    }

    /// All paths, for watching.
    pub(crate) fn paths(&self) -> impl Iterator<Item = PathBuf> {
        [&self.certificate, &self.key, &self.authorities]
            .into_iter()
            .chain(&self.unattested)
            .cloned()
            .chain([self.deny_lists(), self.statements()])
    }
}

/// The accepted authorities of a file, with the deny lists and statements that lie beside it. `read` gives a file's content.
pub(crate) fn trust(
    authorities: &Path,
    unattested: &[CertificateDer<'_>],
    read: impl Fn(&Path) -> Result<Vec<u8>, FileError>,
) -> Result<(Trust, Vec<CertificateDer<'static>>), FileError> {
    let roots = certificates(authorities, &read(authorities)?)?;
    let trust = Trust::new(&roots, unattested, None)
        .map_err(|source| FileError::Trust { path: authorities.to_owned(), source })?;
    let document = |name: &str| -> Result<(Vec<u8>, PathBuf), FileError> {
        let path = authorities.with_file_name(name);
        let lines = match read(&path) {
            Err(FileError::Read { source, .. }) if is_absence(&source) => Vec::new(),
            read => read?,
        };
        Ok((lines, path))
    };
    let (lines, path) = document(STATEMENTS)?;
    let trust = trust.with_statements(&lines).map_err(|source| FileError::Document { path, source })?;
    let (lines, path) = document(DENY_LISTS)?;
    let trust = trust.with_deny_lists(&lines).map_err(|source| FileError::Document { path, source })?;
    Ok((trust, roots))
}

/// Documents need not be there; nor a directory, where the path of what is held elsewhere is only a name.
fn is_absence(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

/// Reads a file of at most 1 MiB.
pub(crate) fn read_bounded(path: &Path) -> Result<Vec<u8>, FileError> {
    let fail = |source| FileError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(fail)?.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(FileError::content(path, Problem::TooLong));
    }
    Ok(bytes)
}

/// All certificates of a PEM file of at most 1 MiB, in order; at least one.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    certificates(path, &read_bounded(path)?)
}

pub(crate) fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let mut found = Vec::new();
    let mut others = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        let (kind, der) = section.map_err(|error| FileError::broken_pem(path, &error))?;
        match kind {
            SectionKind::Certificate => found.push(CertificateDer::from(der)),
            other => others.push(other),
        }
    }
    if found.is_empty() {
        let problem = if others.is_empty() { Problem::no_pem(pem) } else { Problem::NoCertificate };
        return Err(FileError::content(path, problem));
    }
    Ok(found)
}

/// The private key of a PEM file: PKCS #8, SEC1 or PKCS #1, not encrypted.
fn private_key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, FileError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match (error, Problem::no_key(pem)) {
        // The older form of encryption looks like broken base64.
        (_, Problem::Encrypted) => FileError::content(path, Problem::Encrypted),
        (rustls::pki_types::pem::Error::NoItemsFound, problem) => FileError::content(path, problem),
        (error, _) => FileError::broken_pem(path, &error),
    })
}

/// The file of the leaf and its passport, in a directory.
pub const CERTIFICATE: &str = "tls.crt";
/// The file of the leaf's private key, in a directory.
pub const KEY: &str = "tls.key";
/// The file of the accepted roots, in a directory.
pub const AUTHORITIES: &str = "ca.crt";
/// The file of the deny lists, beside that of the accepted roots.
pub const DENY_LISTS: &str = "deny-list.jsonl";
/// The file of the block statements, beside that of the accepted roots.
pub const STATEMENTS: &str = "block-statements.jsonl";
const MAX_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests;
