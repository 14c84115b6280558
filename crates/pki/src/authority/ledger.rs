//! The ledger: one JSON object a line, only ever appended. STABLE FORMAT.
//!
//! ```text
//! {"event":"init","format":1,"at":"2026-11-21T14:22:03Z","trust_domain":"mesh.example","root_spki_sha256":"…"}
//! {"event":"enrol","at":"…","cluster":"paris","id":1,"pod_cidrs":["10.1.0.0/16"],"node_cidrs":[…],"service_cidrs":[…],
//!  "hub_addresses":[…],"serial":"…","spki_sha256":"…","certificate_sha256":"…","not_after":"…"}
//! ```
//! The last line of a cluster is what counts for it. Fields may be added; a reader ignores those that it does not
//! know, and refuses events and formats that it does not know. A last line without its newline was cut by a crash before
//! the certificate left: it is ignored, and overwritten by the next event.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use topology::ClusterName;

use super::enrolment::EnrolRequest;
use crate::durable::{self, Access};
use crate::fingerprint::{Fingerprint, hex};
use crate::passport::Passport;
use crate::spiffe::TrustDomain;

/// What an authority has signed, as read from its file.
#[derive(Clone, Debug)]
pub struct Ledger {
    path: PathBuf,
    trust_domain: TrustDomain,
    root: Fingerprint,
    enrolments: Vec<Enrolment>,
    /// Length of the part that is whole lines.
    sound_bytes: u64,
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
}

/// A point in time, written as RFC 3339 in UTC, whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Moment(jiff::Timestamp);

/// Why a ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Missing or not readable.
    #[error("read ledger {}; is this the directory of an authority (meshctl ca init)?", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Not writable.
    #[error("write ledger {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A line is not one of ours.
    #[error("ledger {} line {line}: not an event that this version knows; restore the file, or use the version that wrote it", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// The cause.
        source: serde_json::Error,
    },
    /// The events are not in a possible order, or of another format.
    #[error("ledger {}: {what}", path.display())]
    Order {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event {
    Init { format: u32, at: Moment, trust_domain: TrustDomain, root_spki_sha256: Fingerprint },
    Enrol(Enrolment),
}

impl Ledger {
    pub(super) fn create(
        path: &Path,
        trust_domain: &TrustDomain,
        root: Fingerprint,
        now: SystemTime,
    ) -> Result<(), LedgerError> {
        let event = Event::Init {
            format: FORMAT,
            at: now.into(),
            trust_domain: trust_domain.clone(),
            root_spki_sha256: root,
        };
        let write = |source| LedgerError::Write { path: path.to_owned(), source };
        let line = line(&event).map_err(write)?;
        durable::write(path, &line, Access::Owner).map_err(write)
    }

    pub(super) fn read(path: &Path) -> Result<Self, LedgerError> {
        let order = |what: String| LedgerError::Order { path: path.to_owned(), what };
        let bytes =
            std::fs::read(path).map_err(|source| LedgerError::Read { path: path.to_owned(), source })?;
        let sound = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines = bytes.get(..sound).unwrap_or_default().split_inclusive(|byte| *byte == b'\n');
        let mut events = Vec::new();
        for (at, text) in lines.enumerate() {
            let event = serde_json::from_slice(text).map_err(|source| LedgerError::Line {
                path: path.to_owned(),
                line: at + 1,
                source,
            })?;
            events.push(event);
        }
        let mut events = events.into_iter();
        let Some(Event::Init { format, trust_domain, root_spki_sha256: root, .. }) = events.next() else {
            return Err(order("its first line is not an init event; restore the file".to_owned()));
        };
        if format != FORMAT {
            return Err(order(format!("format {format}, expected {FORMAT}; use the version that wrote it")));
        }
        let mut enrolments = Vec::new();
        for event in events {
            match event {
                Event::Enrol(enrolment) => enrolments.push(enrolment),
                Event::Init { .. } => return Err(order("a second init event; restore the file".to_owned())),
            }
        }
        Ok(Self { path: path.to_owned(), trust_domain, root, enrolments, sound_bytes: sound as u64 })
    }

    /// Writes one enrolment to disk before it returns. To be called with the lock held.
    pub(super) fn append(&mut self, enrolment: Enrolment) -> Result<(), LedgerError> {
        let event = Event::Enrol(enrolment);
        let written = (|| {
            let line = line(&event)?;
            let mut file = OpenOptions::new().write(true).open(&self.path)?;
            // Cuts off what a crash left of an unfinished line.
            file.set_len(self.sound_bytes)?;
            file.seek(SeekFrom::End(0))?;
            file.write_all(&line)?;
            file.sync_all()?;
            Ok(line.len() as u64)
        })();
        self.sound_bytes +=
            written.map_err(|source| LedgerError::Write { path: self.path.clone(), source })?;
        if let Event::Enrol(enrolment) = event {
            self.enrolments.push(enrolment);
        }
        Ok(())
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The root's key (SHA-256 of its `SubjectPublicKeyInfo`).
    pub fn root(&self) -> Fingerprint {
        self.root
    }

    /// All enrolments, in order, renewals included.
    pub fn enrolments(&self) -> &[Enrolment] {
        &self.enrolments
    }

    /// The last enrolment of each cluster, by name.
    pub fn current(&self) -> impl Iterator<Item = &Enrolment> {
        let last: BTreeMap<&ClusterName, &Enrolment> =
            self.enrolments.iter().map(|enrolment| (&enrolment.request.cluster, enrolment)).collect();
        last.into_values()
    }
}

impl Enrolment {
    pub(super) fn new(request: EnrolRequest, passport: &Passport, now: SystemTime) -> Self {
        let serial =
            crate::certificate::parse(&passport.der).map(|x509| hex(x509.raw_serial())).unwrap_or_default();
        Self {
            at: now.into(),
            request,
            serial,
            spki: passport.spki,
            certificate: passport.fingerprint,
            not_after: passport.not_after.into(),
        }
    }
}

impl From<SystemTime> for Moment {
    fn from(time: SystemTime) -> Self {
        let time = jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::MAX);
        Self(jiff::Timestamp::from_second(time.as_second()).unwrap_or(time))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for Moment {
    type Error = jiff::Error;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

impl From<Moment> for String {
    fn from(moment: Moment) -> Self {
        moment.to_string()
    }
}

fn line(event: &Event) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    Ok(line)
}

const FORMAT: u32 = 1;
