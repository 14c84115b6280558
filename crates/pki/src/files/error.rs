//! What can be wrong with a certificate or key file: path, what was found, what was expected, what to do.

use std::fmt;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem;

use crate::certificate::printable;
use crate::signed::InvalidDocument;
use crate::trust::InvalidTrust;

/// Why files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Missing, or not readable.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Readable, but not what it should be.
    #[error("{}: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, what was expected, what to do.
        problem: Problem,
    },
    /// The key is not the certificate's.
    #[error(
        "{}: the key does not fit the first certificate of {}; expected the pair of one issue (they are replaced one after the other: \
         if this stays, write both again)",
        key.display(), certificate.display()
    )]
    Mismatch {
        /// The key file.
        key: PathBuf,
        /// The certificate file.
        certificate: PathBuf,
    },
    /// A certificate that is no leaf came first.
    #[error("{}: its first certificate {found}; expected the leaf first, then its passport", path.display())]
    Order {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        found: String,
    },
    /// The authorities cannot be trusted as they are.
    #[error("{}", path.display())]
    Trust {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: InvalidTrust,
    },
    /// A file of signed documents cannot be used.
    #[error("{}", path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: InvalidDocument,
    },
}

/// What is wrong with a file's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// No byte.
    Empty,
    /// Bytes, but no PEM block.
    NotPem,
    /// PEM blocks, but no certificate.
    NoCertificate,
    /// A block without its end.
    Truncated {
        /// The line that is missing.
        expected: String,
    },
    /// A block that cannot be decoded.
    Broken {
        /// What the decoder says.
        found: String,
    },
    /// An encrypted key.
    Encrypted,
    /// PEM blocks, but no private key.
    NoKey,
    /// A key whose form or kind is not supported here.
    Key {
        /// The block's label, or what the library says.
        found: String,
    },
    /// A certificate authority's key that is not PKCS #8.
    NotPkcs8 {
        /// The block's label.
        found: String,
    },
    /// Over 1 MiB.
    TooLong,
}

impl FileError {
    pub(crate) fn content(path: &Path, problem: Problem) -> Self {
        Self::Content { path: path.to_owned(), problem }
    }

    pub(crate) fn broken_pem(path: &Path, error: &pem::Error) -> Self {
        let problem = match error {
            pem::Error::MissingSectionEnd { end_marker } => {
                // The library gives the label only.
                let label = String::from_utf8_lossy(end_marker);
                Problem::Truncated {
                    expected: format!("-----END {}-----", printable(label.trim_matches('-'))),
                }
            }
            // A decoder's message may quote the input, which may be a key: say only the kind.
            pem::Error::Base64Decode(_) => Problem::Broken { found: "not base64".to_owned() },
            pem::Error::IllegalSectionStart { .. } => {
                Problem::Broken { found: "a malformed BEGIN line".to_owned() }
            }
            _ => Problem::Broken { found: "not PEM".to_owned() },
        };
        Self::content(path, problem)
    }

    /// The error for an authority's key file that the library could not use.
    pub(crate) fn not_a_ca_key(path: &Path, pem: &str) -> Self {
        let problem = match (Problem::no_key(pem.as_bytes()), label(pem)) {
            (Problem::Key { .. } | Problem::NoKey, Some(found)) if found != "PRIVATE KEY" => {
                Problem::NotPkcs8 { found }
            }
            (Problem::Key { found }, _) => Problem::Key { found },
            (problem, _) => problem,
        };
        Self::content(path, problem)
    }
}

impl Problem {
    /// What a file without any PEM block is.
    pub(crate) fn no_pem(bytes: &[u8]) -> Self {
        if bytes.iter().all(u8::is_ascii_whitespace) { Self::Empty } else { Self::NotPem }
    }

    /// What a file without a usable key is.
    pub(crate) fn no_key(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        match label(&text) {
            None => Self::no_pem(bytes),
            Some(_) if text.contains("ENCRYPTED") => Self::Encrypted,
            Some(label) if label.ends_with("PRIVATE KEY") => Self::Key { found: label },
            Some(_) => Self::NoKey,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the file is empty; expected PEM; write it again"),
            Self::NotPem => f.write_str("found no PEM block; expected lines starting with -----BEGIN"),
            Self::NoCertificate => {
                f.write_str("found PEM but no certificate; expected -----BEGIN CERTIFICATE-----; is it another file?")
            }
            Self::Truncated { expected } => {
                write!(f, "the file is cut: found no line {expected}; copy it again")
            }
            Self::Broken { found } => write!(f, "a PEM block is broken ({found}); copy the file again"),
            Self::Encrypted => f.write_str(
                "the private key is encrypted; expected a plain one; decrypt it with `openssl pkcs8 -in OLD -out NEW`",
            ),
            Self::NoKey => f.write_str("found PEM but no private key; expected -----BEGIN PRIVATE KEY-----"),
            Self::Key { found } => {
                write!(f, "the private key ({found}) cannot be used; expected ECDSA P-256 or P-384, Ed25519 or RSA, as PEM")
            }
            Self::NotPkcs8 { found } => write!(
                f,
                "found {found}; an authority's key must be PKCS #8 (PRIVATE KEY); convert it with `openssl pkcs8 -topk8 -nocrypt -in OLD -out NEW`"
            ),
            Self::TooLong => f.write_str("the file is over 1 MiB; expected a few certificates"),
        }
    }
}

/// The label of the first PEM block.
fn label(pem: &str) -> Option<String> {
    let (_, after) = pem.split_once("-----BEGIN ")?;
    let (label, _) = after.split_once("-----")?;
    Some(printable(label))
}
