//! The lines of the ledger. STABLE FORMAT.
//!
//! ```text
//! {"event":"init","format":1,"at":"2026-11-21T14:22:03Z","trust_domain":"mesh.example","root_spki_sha256":"…"}
//! {"event":"enrol","at":"…","cluster":"paris","id":1,"pod_cidrs":["10.1.0.0/16"],"node_cidrs":[…],"service_cidrs":[…],
//!  "hub_addresses":[…],"serial":"…","spki_sha256":"…","certificate_sha256":"…","not_after":"…","prev_sha256":"…"}
//! {"event":"revoke","spki_sha256":"…","cluster":"paris","at":"…","until":"…","reason":"…","prev_sha256":"…"}
//! {"event":"leave","at":"…","cluster":"paris","prev_sha256":"…"}
//! ```
//! `prev_sha256` is the SHA-256 of the line before, without its newline: a line that was changed or taken out shows
//! (`meshctl ca audit`). Ledgers begun by a version without it have it from some line on. `"attested":true` in an enrolment:
//! the passport is another authority's, only its addresses were signed here. Fields may be added; a reader ignores those that
//! it does not know, and refuses events and formats that it does not know.

use serde::{Deserialize, Serialize};
use topology::ClusterName;

use super::enrolment::EnrolRequest;
use crate::deny::Denied;
use crate::fingerprint::{Fingerprint, hex};
use crate::moment::Moment;
use crate::passport::Passport;
use crate::spiffe::TrustDomain;

/// One line.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Line {
    #[serde(flatten)]
    pub(super) event: Event,
    #[serde(default, rename = "prev_sha256", skip_serializing_if = "Option::is_none")]
    pub(super) previous: Option<Fingerprint>,
}

/// What a line says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Event {
    Init { format: u32, at: Moment, trust_domain: TrustDomain, root_spki_sha256: Fingerprint },
    Enrol(Enrolment),
    Revoke(Denied),
    Leave { at: Moment, cluster: ClusterName },
}

/// Holds one enrolment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// When.
    pub at: Moment,
    /// What was granted.
    #[serde(flatten)]
    pub request: EnrolRequest,
    /// The passport's serial number, hexadecimal.
    pub serial: String,
    /// Its key.
    #[serde(rename = "spki_sha256")]
    pub spki: Fingerprint,
    /// The certificate.
    #[serde(rename = "certificate_sha256")]
    pub certificate: Fingerprint,
    /// When it ends.
    pub not_after: Moment,
    /// True if another authority signed the passport and only its addresses were signed here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub attested: bool,
}

impl Enrolment {
    pub(super) fn new(request: EnrolRequest, passport: &Passport, at: Moment, attested: bool) -> Self {
        let serial =
            crate::certificate::parse(&passport.der).map(|x509| hex(x509.raw_serial())).unwrap_or_default();
        Self {
            at,
            request,
            serial,
            spki: passport.spki,
            certificate: passport.fingerprint,
            not_after: passport.not_after.into(),
            attested,
        }
    }
}

impl Event {
    /// When it happened.
    pub(super) fn at(&self) -> Moment {
        match self {
            Self::Init { at, .. } | Self::Leave { at, .. } => *at,
            Self::Enrol(enrolment) => enrolment.at,
            Self::Revoke(denied) => denied.at,
        }
    }
}

impl Line {
    /// The line as it is written, with its newline.
    pub(super) fn bytes(&self) -> serde_json::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        Ok(line)
    }
}

/// What the next line must name as its `prev_sha256`.
pub(super) fn fingerprint(line: &[u8]) -> Fingerprint {
    Fingerprint::of(line.strip_suffix(b"\n").unwrap_or(line))
}

/// The format that this version writes, and the only one that it reads.
pub(super) const FORMAT: u32 = 1;
