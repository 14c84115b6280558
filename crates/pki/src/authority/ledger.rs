//! The ledger: one JSON object a line (`event`), only ever appended.
//!
//! The last enrolment of a cluster is what counts for it, until it leaves. A last line without its newline was cut by a crash
//! before the certificate left: it is ignored, and overwritten by the next event.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use topology::ClusterName;

use super::event::{Enrolment, Event, FORMAT, Line, fingerprint};
use crate::deny::Denied;
use crate::durable::{self, Access};
use crate::fingerprint::Fingerprint;
use crate::spiffe::TrustDomain;

/// What an authority has signed, as read from its file.
#[derive(Clone, Debug)]
pub struct Ledger {
    path: PathBuf,
    trust_domain: TrustDomain,
    root: Fingerprint,
    enrolments: Vec<Enrolment>,
    revocations: Vec<Denied>,
    /// The enrolment that counts for each cluster, as its place in `enrolments`.
    claims: BTreeMap<ClusterName, usize>,
    /// SHA-256 of the last whole line.
    head: Fingerprint,
    /// Length of the part that is whole lines.
    sound_bytes: u64,
}

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
        let line = Line { event, previous: None }.bytes().map_err(|error| write(error.into()))?;
        durable::write(path, &line, Access::Owner).map_err(write)
    }

    pub(super) fn read(path: &Path) -> Result<Self, LedgerError> {
        let order = |what: String| LedgerError::Order { path: path.to_owned(), what };
        let bytes = read(path)?;
        let mut lines = whole_lines(&bytes).enumerate();
        let event = |at: usize, text: &[u8]| {
            let line: Line = serde_json::from_slice(text).map_err(|source| LedgerError::Line {
                path: path.to_owned(),
                line: at + 1,
                source,
            })?;
            Ok::<Event, LedgerError>(line.event)
        };
        let first = lines.next().map(|(at, text)| event(at, text).map(|event| (event, text))).transpose()?;
        let Some((Event::Init { format, trust_domain, root_spki_sha256: root, .. }, text)) = first else {
            return Err(order("its first line is not an init event; restore the file".to_owned()));
        };
        if format != FORMAT {
            return Err(order(format!("format {format}, expected {FORMAT}; use the version that wrote it")));
        }
        let mut ledger = Self {
            path: path.to_owned(),
            trust_domain,
            root,
            enrolments: Vec::new(),
            revocations: Vec::new(),
            claims: BTreeMap::new(),
            head: fingerprint(text),
            sound_bytes: text.len() as u64,
        };
        for (at, text) in lines {
            let event = event(at, text)?;
            if matches!(event, Event::Init { .. }) {
                return Err(order("a second init event; restore the file".to_owned()));
            }
            ledger.take(event, text);
        }
        Ok(ledger)
    }

    /// Writes events to disk before it returns. To be called with the lock held.
    pub(super) fn append(&mut self, events: Vec<Event>) -> Result<(), LedgerError> {
        let mut head = self.head;
        let mut lines = Vec::with_capacity(events.len());
        let written = (|| {
            for event in &events {
                let line = Line { event: event.clone(), previous: Some(head) }.bytes()?;
                head = fingerprint(&line);
                lines.push(line);
            }
            let mut file = OpenOptions::new().write(true).open(&self.path)?;
            // Cuts off what a crash left of an unfinished line.
            file.set_len(self.sound_bytes)?;
            file.seek(SeekFrom::End(0))?;
            file.write_all(&lines.concat())?;
            file.sync_all()
        })();
        written.map_err(|source| LedgerError::Write { path: self.path.clone(), source })?;
        for (event, line) in events.into_iter().zip(&lines) {
            self.take(event, line);
        }
        Ok(())
    }

    fn take(&mut self, event: Event, line: &[u8]) {
        match event {
            Event::Enrol(enrolment) => {
                self.claims.insert(enrolment.request.cluster.clone(), self.enrolments.len());
                self.enrolments.push(enrolment);
            }
            Event::Revoke(denied) => self.revocations.push(denied),
            Event::Leave { cluster, .. } => drop(self.claims.remove(&cluster)),
            Event::Init { .. } => {}
        }
        self.head = fingerprint(line);
        self.sound_bytes += line.len() as u64;
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

    /// All revocations, in order.
    pub fn revocations(&self) -> &[Denied] {
        &self.revocations
    }

    /// The last enrolment of each cluster that has not left, by name.
    pub fn current(&self) -> impl Iterator<Item = &Enrolment> {
        self.claims.values().filter_map(|at| self.enrolments.get(*at))
    }

    /// The enrolment that counts for a cluster, unless it has left.
    pub fn of(&self, cluster: &ClusterName) -> Option<&Enrolment> {
        self.claims.get(cluster).and_then(|at| self.enrolments.get(*at))
    }

    /// Whether a passport was revoked, and how.
    pub fn revocation(&self, enrolment: &Enrolment) -> Option<&Denied> {
        self.revocations.iter().find(|denied| denied.target.names(enrolment.spki, enrolment.certificate))
    }

    /// SHA-256 of the last line. Whoever keeps it elsewhere can tell later that nothing before it was changed
    /// (`meshctl ca audit --since`).
    pub fn head(&self) -> Fingerprint {
        self.head
    }
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, LedgerError> {
    std::fs::read(path).map_err(|source| LedgerError::Read { path: path.to_owned(), source })
}

/// The lines that have their newline.
pub(super) fn whole_lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let sound = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    bytes.get(..sound).unwrap_or_default().split_inclusive(|byte| *byte == b'\n')
}
