//! Private keys and signing requests: made where they are used, the public half is all that travels.

use std::path::{Path, PathBuf};
use std::{fmt, str};

use rcgen::{CertificateParams, CertificateSigningRequestParams, DistinguishedName, KeyPair, PublicKeyData};
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::durable::{self, Access};
use crate::files::{FileError, read_bounded};
use crate::fingerprint::Fingerprint;

/// Which algorithm a new key is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256 with SHA-256: understood by every CA and HSM.
    #[default]
    P256,
    /// Ed25519: a little cheaper.
    Ed25519,
}

/// A private key. Its `Debug` shows nothing of it, and it can be written only to a file of mode 0600.
pub struct PrivateKey(KeyPair);

/// The public key of a signing request whose signature, and so possession of the private key, was checked.
#[derive(Clone, Debug)]
pub struct SigningRequest {
    public_key: rcgen::PublicKey,
}

/// Why a key or a signing request is of no use.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The library could not make a key.
    #[error("make a key")]
    Generate(#[source] rcgen::Error),
    /// The file is missing, unreadable or not what it should be.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file could not be written.
    #[error("write key {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The request is not one.
    #[error("signing request: {found}; expected one PEM block CERTIFICATE REQUEST (PKCS #10)")]
    Request {
        /// What was there instead.
        found: String,
    },
    /// The request is for a kind of key that we do not certify.
    #[error("signing request: its key is of a kind not accepted; expected ECDSA P-256 or P-384, or Ed25519")]
    Kind,
}

impl PrivateKey {
    /// Makes a new key.
    pub fn generate(kind: KeyKind) -> Result<Self, KeyError> {
        let algorithm = match kind {
            KeyKind::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            KeyKind::Ed25519 => &rcgen::PKCS_ED25519,
        };
        KeyPair::generate_for(algorithm).map(Self).map_err(KeyError::Generate)
    }

    /// Reads the key of a certificate authority: PEM, PKCS #8, not encrypted.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let pem = read_bounded(path)?;
        let text = str::from_utf8(&pem).unwrap_or_default();
        KeyPair::from_pem(text)
            .map(Self)
            .map_err(|_error| KeyError::File(FileError::not_a_ca_key(path, text)))
    }

    /// Writes the key, readable by its owner only, and replaces the file at once or not at all.
    pub fn write(&self, path: &Path) -> Result<(), KeyError> {
        durable::write(path, self.0.serialize_pem().as_bytes(), Access::Owner)
            .map_err(|source| KeyError::Write { path: path.to_owned(), source })
    }

    /// A signing request for this key, as PEM. It carries no wishes: names and blocks travel beside it.
    pub fn request(&self) -> Result<String, KeyError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.serialize_request(&self.0).and_then(|request| request.pem()).map_err(KeyError::Generate)
    }

    /// The fingerprint of its public half (the whole `SubjectPublicKeyInfo`).
    pub fn spki(&self) -> Fingerprint {
        Fingerprint::of(&self.0.subject_public_key_info())
    }

    pub(crate) fn pair(&self) -> &KeyPair {
        &self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

impl SigningRequest {
    /// Reads a request and checks its signature. Everything it asks for beside the key is ignored.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let found = |found: String| KeyError::Request { found };
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| found(error.to_string()))?;
        let request =
            CertificateSigningRequestParams::from_der(&der).map_err(|error| found(error.to_string()))?;
        let algorithm = PublicKeyData::algorithm(&request.public_key);
        let accepted = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519];
        // The library takes the kind of key from the signature's algorithm: a P-384 key in a request signed with SHA-256
        // would be certified as a malformed P-256 key.
        let asked = X509CertificationRequest::from_der(&der).ok();
        let asked = asked.map(|(_, request)| request.certification_request_info.subject_pki.raw.to_vec());
        if asked != Some(request.public_key.subject_public_key_info()) {
            return Err(KeyError::Kind);
        }
        if accepted.contains(&algorithm) {
            Ok(Self { public_key: request.public_key })
        } else {
            Err(KeyError::Kind)
        }
    }

    /// The fingerprint of the key (the whole `SubjectPublicKeyInfo`).
    pub fn spki(&self) -> Fingerprint {
        Fingerprint::of(&self.public_key.subject_public_key_info())
    }

    pub(crate) fn public_key(&self) -> &rcgen::PublicKey {
        &self.public_key
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_are_private_files_and_come_back() {
        let dir = tempfile::tempdir().expect("a directory");
        for kind in [KeyKind::P256, KeyKind::Ed25519] {
            let path = dir.path().join("ca.key");
            let key = PrivateKey::generate(kind).expect("a key");
            key.write(&path).expect("written");
            let mode = std::fs::metadata(&path).expect("metadata").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            assert_eq!(PrivateKey::load(&path).expect("read back").spki(), key.spki());
            assert_eq!(format!("{key:?}"), "PrivateKey(..)");
        }
    }

    #[test]
    fn a_request_proves_possession() {
        let key = PrivateKey::generate(KeyKind::P256).expect("a key");
        let pem = key.request().expect("a request");
        assert_eq!(SigningRequest::from_pem(&pem).expect("sound").spki(), key.spki());
        let mut der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).expect("PEM").to_vec();
        let last = der.len() - 1;
        der[last] ^= 1;
        let tampered = CertificateSigningRequestParams::from_der(&der.into());
        assert!(tampered.is_err());
        for bad in ["", "hello", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n"] {
            let error = SigningRequest::from_pem(bad).expect_err(bad).to_string();
            assert!(error.contains("CERTIFICATE REQUEST"), "{error}");
        }
    }

    /// Requests that other tools make.
    #[test]
    fn openssl_requests_are_read_and_odd_keys_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name).display().to_string();
        for (algorithm, digest, accepted) in [
            (&["EC", "-pkeyopt", "ec_paramgen_curve:P-256"][..], "-sha256", true),
            (&["EC", "-pkeyopt", "ec_paramgen_curve:P-384"], "-sha384", true),
            (&["ED25519"], "-sha256", true),
            (&["EC", "-pkeyopt", "ec_paramgen_curve:P-384"], "-sha256", false),
            (&["RSA"], "-sha256", false),
        ] {
            let run = |args: &[&str]| {
                let out =
                    std::process::Command::new("openssl").args(args).output().expect("openssl is installed");
                assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
            };
            run(&[&["genpkey", "-out", &path("key"), "-algorithm"], algorithm].concat());
            run(&["req", "-new", "-key", &path("key"), "-subj", "/CN=x", digest, "-out", &path("csr")]);
            let pem = std::fs::read_to_string(path("csr")).expect("read");
            let outcome = SigningRequest::from_pem(&pem);
            assert_eq!(outcome.is_ok(), accepted, "{algorithm:?} {digest}: {outcome:?}");
        }
    }

    #[test]
    fn an_encrypted_or_foreign_key_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("ca.key");
        for (text, expected) in [
            (
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
                "encrypted",
            ),
            ("-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n", "EC PRIVATE KEY"),
            ("", "empty"),
        ] {
            std::fs::write(&path, text).expect("written");
            let error = PrivateKey::load(&path).expect_err(expected).to_string();
            assert!(error.contains(expected) && error.contains("ca.key"), "{error}");
        }
    }
}
