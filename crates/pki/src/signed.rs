//! Signed documents: what an authority says beside its certificates. STABLE FORMAT.
//!
//! A document is one line, a DSSE envelope (Dead Simple Signing Envelope, version 1, github.com/secure-systems-lab/dsse):
//!
//! ```text
//! {"payloadType":"application/vnd.isthmus.deny-list.v1+json","payload":"<base64>",
//!  "signatures":[{"keyid":"<SHA-256 of the signer's SubjectPublicKeyInfo>","sig":"<base64>"}]}
//! signed are the bytes  DSSEv1 <length> <payload type> <length> <payload>
//! ```
//! So the payload is signed as it lies, without a canonical form of JSON, and its type is signed with it: a statement
//! cannot be taken for a list. A signature is ECDSA (P-256 with SHA-256, P-384 with SHA-384; in DER) or Ed25519, by the
//! key of an accepted root.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::SigningKey;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use x509_parser::oid_registry::{Oid, asn1_rs::oid};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::fingerprint::Fingerprint;
use crate::key::PrivateKey;

/// What a document is about. The word is the middle of its payload type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentKind {
    /// Which certificates and keys no longer count.
    DenyList,
    /// Which addresses go with a passport that cannot carry them.
    BlockStatement,
}

/// A document whose signature was not checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Envelope {
    kind: DocumentKind,
    payload: Vec<u8>,
    signer: Fingerprint,
    signature: Vec<u8>,
}

/// Why a signed document is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDocument {
    /// Not an envelope.
    #[error(
        "line {line} is no signed document ({found}); expected one DSSE envelope a line; copy the file again"
    )]
    Envelope {
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        found: String,
    },
    /// A document of another kind.
    #[error("found a {found}, expected a {expected}; is it another file?")]
    Kind {
        /// The kind.
        found: DocumentKind,
        /// The one that belongs here.
        expected: DocumentKind,
    },
    /// The signature is not that of the key it names.
    #[error("a {kind} names {signer} as its signer, and the signature is not of that key; it was changed")]
    Signature {
        /// The kind.
        kind: DocumentKind,
        /// Who should have signed.
        signer: String,
    },
    /// Signed, but not readable.
    #[error("a {kind} of {signer} cannot be read: {found}; use the version that wrote it")]
    Content {
        /// The kind.
        kind: DocumentKind,
        /// Who signed.
        signer: String,
        /// What is wrong.
        found: String,
    },
    /// More than a file may hold.
    #[error("over {MAX_DOCUMENTS} documents in one file")]
    TooMany,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    #[serde(rename = "payloadType")]
    payload_type: String,
    payload: String,
    signatures: Vec<WireSignature>,
}

#[derive(Serialize, Deserialize)]
struct WireSignature {
    keyid: Fingerprint,
    sig: String,
}

/// Signs a document; the result is one line without its newline. `None` if the library cannot sign.
pub(crate) fn sign(key: &PrivateKey, kind: DocumentKind, payload: &impl Serialize) -> Option<String> {
    let payload = serde_json::to_vec(payload).ok()?;
    let sig = STANDARD.encode(key.pair().sign(&signed_bytes(kind, &payload)).ok()?);
    let signatures = vec![WireSignature { keyid: key.spki(), sig }];
    let payload = STANDARD.encode(payload);
    serde_json::to_string(&Wire { payload_type: kind.payload_type(), payload, signatures }).ok()
}

/// Reads all documents of a file, which must be of this kind. Signatures are not checked.
pub(crate) fn read(lines: &[u8], expected: DocumentKind) -> Result<Vec<Envelope>, InvalidDocument> {
    let mut found = Vec::new();
    for (at, line) in lines.split(|byte| *byte == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        if found.len() >= MAX_DOCUMENTS {
            return Err(InvalidDocument::TooMany);
        }
        let envelope =
            Envelope::read(line).map_err(|found| InvalidDocument::Envelope { line: at + 1, found })?;
        if envelope.kind != expected {
            return Err(InvalidDocument::Kind { found: envelope.kind, expected });
        }
        found.push(envelope);
    }
    Ok(found)
}

impl Envelope {
    fn read(line: &[u8]) -> Result<Self, String> {
        let wire: Wire = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        let known = [DocumentKind::DenyList, DocumentKind::BlockStatement];
        let kind = known.into_iter().find(|kind| kind.payload_type() == wire.payload_type);
        let kind = kind.ok_or_else(|| {
            let shown: String = wire.payload_type.chars().take(80).collect();
            format!("payload type {shown:?} is none that this version knows")
        })?;
        let [signature] = &wire.signatures[..] else {
            return Err(format!("{} signatures, expected exactly one", wire.signatures.len()));
        };
        let bytes = |text: &str| STANDARD.decode(text).map_err(|_error| "not base64".to_owned());
        Ok(Self {
            kind,
            payload: bytes(&wire.payload)?,
            signer: signature.keyid,
            signature: bytes(&signature.sig)?,
        })
    }

    /// The key that it says it is signed with.
    pub(crate) fn signer(&self) -> Fingerprint {
        self.signer
    }

    /// The content, if it was signed with this key. `name` is the signer's, for messages.
    pub(crate) fn open<T: DeserializeOwned>(&self, spki: &[u8], name: &str) -> Result<T, InvalidDocument> {
        let (kind, signer) = (self.kind, name.to_owned());
        if Fingerprint::of(spki) != self.signer
            || !verifies(spki, &signed_bytes(kind, &self.payload), &self.signature)
        {
            return Err(InvalidDocument::Signature { kind, signer });
        }
        serde_json::from_slice(&self.payload).map_err(|error| {
            let found = error.to_string();
            InvalidDocument::Content { kind, signer, found }
        })
    }
}

impl DocumentKind {
    fn payload_type(self) -> String {
        let word = match self {
            Self::DenyList => "deny-list",
            Self::BlockStatement => "block-statement",
        };
        format!("application/vnd.isthmus.{word}.v1+json")
    }
}

impl std::fmt::Display for DocumentKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::DenyList => "deny list",
            Self::BlockStatement => "block statement",
        })
    }
}

/// DSSE's pre-authentication encoding.
fn signed_bytes(kind: DocumentKind, payload: &[u8]) -> Vec<u8> {
    let payload_type = kind.payload_type();
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

fn verifies(spki: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let Ok(([], info)) = SubjectPublicKeyInfo::from_der(spki) else { return false };
    let point = &info.subject_public_key.data;
    let algorithm: &'static dyn VerificationAlgorithm = match (&info.algorithm.algorithm, point.len()) {
        (oid, 65) if *oid == EC_PUBLIC_KEY => &ECDSA_P256_SHA256_ASN1,
        (oid, 97) if *oid == EC_PUBLIC_KEY => &ECDSA_P384_SHA384_ASN1,
        (oid, 32) if *oid == ED25519_KEY => &ED25519,
        _ => return false,
    };
    UnparsedPublicKey::new(algorithm, point).verify(message, signature).is_ok()
}

const EC_PUBLIC_KEY: Oid<'static> = oid!(1.2.840.10045.2.1);
const ED25519_KEY: Oid<'static> = oid!(1.3.101.112);
/// As many as a mesh has clusters.
pub(crate) const MAX_DOCUMENTS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyKind;
    use proptest::prelude::*;
    use rcgen::PublicKeyData;

    fn signed(kind: KeyKind) -> (PrivateKey, String) {
        let key = PrivateKey::generate(kind).expect("a key");
        let line = sign(&key, DocumentKind::DenyList, &"content").expect("signed");
        (key, line)
    }

    #[test]
    fn both_kinds_of_key_sign_and_no_other_key_does() {
        for kind in [KeyKind::P256, KeyKind::Ed25519] {
            let (key, line) = signed(kind);
            let [document] = &read(line.as_bytes(), DocumentKind::DenyList).expect("read")[..] else {
                panic!("one document");
            };
            let spki = key.pair().subject_public_key_info();
            assert_eq!(document.signer(), key.spki());
            assert_eq!(document.open::<String>(&spki, "root").as_deref(), Ok("content"));
            let other = PrivateKey::generate(kind).expect("a key").pair().subject_public_key_info();
            let error = document.open::<String>(&other, "CN=root").expect_err("another key").to_string();
            assert!(
                error.contains("names CN=root as its signer") && error.contains("was changed"),
                "{error}"
            );
            let error = document.open::<u32>(&spki, "CN=root").expect_err("no number").to_string();
            assert!(error.contains("a deny list of CN=root cannot be read"), "{error}");
        }
    }

    #[test]
    fn what_is_no_document_is_named_with_its_line() {
        let (key, line) = signed(KeyKind::Ed25519);
        let wire = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            change(&mut value);
            value.to_string()
        };
        let twice = wire(&|value| {
            let again = value["signatures"][0].clone();
            value["signatures"].as_array_mut().expect("signatures").push(again);
        });
        for (text, part) in [
            ("hello".to_owned(), "expected value"),
            ("{}".to_owned(), "payloadType"),
            (wire(&|value| value["payloadType"] = "text/plain".into()), "\"text/plain\" is none that"),
            (wire(&|value| value["payload"] = "!".into()), "not base64"),
            (wire(&|value| value["signatures"] = serde_json::json!([])), "0 signatures"),
            (twice, "2 signatures"),
        ] {
            let error =
                read(format!("\n{text}\n").as_bytes(), DocumentKind::DenyList).expect_err(part).to_string();
            assert!(error.contains("line 2 is no signed document") && error.contains(part), "{error}");
        }
        let error =
            read(line.as_bytes(), DocumentKind::BlockStatement).expect_err("another kind").to_string();
        assert!(error.contains("found a deny list, expected a block statement"), "{error}");
        // The type is signed, too: one kind cannot be made to pass for the other.
        let passed_off =
            wire(&|value| value["payloadType"] = DocumentKind::BlockStatement.payload_type().into());
        let read = read(passed_off.as_bytes(), DocumentKind::BlockStatement).expect("an envelope");
        assert!(read[0].open::<String>(&key.pair().subject_public_key_info(), "root").is_err());
    }

    #[test]
    fn changed_bytes_are_never_taken() {
        let (key, line) = signed(KeyKind::P256);
        let spki = key.pair().subject_public_key_info();
        let original = read(line.as_bytes(), DocumentKind::DenyList).expect("read").remove(0);
        proptest!(|(at in any::<prop::sample::Index>(), byte in any::<u8>())| {
            let mut bytes = line.clone().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            for document in read(&bytes, DocumentKind::DenyList).unwrap_or_default() {
                // Other bytes may be the same envelope, such as a blank after a comma.
                prop_assert!(document.open::<String>(&spki, "root").is_err() || document == original);
            }
        });
    }
}
