//! What a process shows to peers and whom it trusts, read from three files at one moment.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use tracing::warn;

use super::{FileError, Files, Problem, certificates, private_key, read_bounded};
use crate::certificate;
use crate::deny::{CertificateId, Denial};
use crate::fingerprint::Fingerprint;
use crate::passport::Passport;
use crate::trust::Trust;

/// A leaf with its key and chain, and the trust that goes with it. Immutable; shared by every connection that began
/// while it was current.
pub struct Credentials {
    leaf: Arc<SingleCertAndKey>,
    trust: Arc<Trust>,
    subject: String,
    expires: SystemTime,
    denial: Option<Denial>,
}

impl Credentials {
    /// Reads `tls.crt`, `tls.key` and `ca.crt` of a directory.
    pub fn load(dir: &Path) -> Result<Self, FileError> {
        Self::from_files(&Files::in_dir(dir))
    }

    /// Reads the files.
    ///
    /// Fails if one is missing, empty, cut or encrypted, if the key is not the certificate's, if the first certificate
    /// is an authority's, or if the roots are unusable; dates are not judged here, see [`Self::expires`].
    pub fn from_files(files: &Files) -> Result<Self, FileError> {
        Self::read_with(files, |_| None)
    }

    /// As [`Self::from_files`], where `held` may have the content of a file that is not on disk, such as a key of a Secret:
    /// its path is then only a name.
    pub fn read_with(files: &Files, held: impl Fn(&Path) -> Option<Vec<u8>>) -> Result<Self, FileError> {
        let read = |path: &Path| held(path).map_or_else(|| read_bounded(path), Ok);
        let chain = certificates(&files.certificate, &read(&files.certificate)?)?;
        let key = private_key(&files.key, &read(&files.key)?)?;
        let unattested = match &files.unattested {
            Some(path) => certificates(path, &read(path)?)?,
            None => Vec::new(),
        };
        let (trust, _roots) = super::trust(&files.authorities, &unattested, read)?;
        let order = |found: String| FileError::Order { path: files.certificate.clone(), found };
        let first = chain.first().ok_or_else(|| FileError::content(&files.certificate, Problem::Empty))?;
        let x509 = certificate::parse(first).map_err(|error| order(format!("cannot be read ({error})")))?;
        if x509.is_ca() {
            return Err(order("is that of a certificate authority".to_owned()));
        }
        let expires = certificate::time(x509.validity().not_after);
        let subject = certificate::describe(first);
        let passport = chain.get(1).and_then(|second| trust.read_passport(second).ok()).map(Arc::new);
        let trust = trust.with_own(passport);
        let id = CertificateId {
            spki: Fingerprint::of(x509.public_key().raw),
            certificate: Fingerprint::of(first),
        };
        let denial = trust.own_denial(id);
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                FileError::Mismatch { key: files.key.clone(), certificate: files.certificate.clone() }
            }
            error => FileError::content(&files.key, Problem::Key { found: error.to_string() }),
        })?;
        Ok(Self {
            leaf: Arc::new(SingleCertAndKey::from(certified)),
            trust: Arc::new(trust),
            subject,
            expires,
            denial,
        })
    }

    /// Whom to trust.
    pub fn trust(&self) -> &Arc<Trust> {
        &self.trust
    }

    /// The passport that the leaf came with; none if the chain is a stock one.
    pub fn passport(&self) -> Option<&Arc<Passport>> {
        self.trust.own()
    }

    /// The leaf in words: subject, issuer, serial; safe to log.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// When the leaf ends.
    pub fn expires(&self) -> SystemTime {
        self.expires
    }

    /// Whether the own leaf or passport is on a deny list: then peers that have the list refuse this process. Says since when.
    pub fn denial(&self) -> Option<&Denial> {
        self.denial.as_ref()
    }

    /// Logs what an operator should know of these files although they are usable.
    pub(super) fn say_notes(&self) {
        for note in self.trust.notes() {
            warn!(note, "a signed document is left aside");
        }
        if let Some(denial) = &self.denial {
            warn!(certificate = self.subject, %denial, "the own certificate is on a deny list, peers refuse it");
        }
    }

    pub(crate) fn leaf(&self) -> Arc<SingleCertAndKey> {
        Arc::clone(&self.leaf)
    }
}

impl fmt::Debug for Credentials {
    /// Without the key, whatever the library would print of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { leaf: _, trust, subject, expires, denial } = self;
        f.debug_struct("Credentials")
            .field("subject", subject)
            .field("expires", expires)
            .field("denial", denial)
            .field("trust", &trust.subjects())
            .finish_non_exhaustive()
    }
}

/// The one cryptographic provider of all our TLS.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));
    Arc::clone(&PROVIDER)
}
