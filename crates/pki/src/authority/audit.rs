//! Whether a ledger can be what happened: read without any key, and without a network.

mod flaw;

use std::path::Path;

use rustls::pki_types::CertificateDer;

use super::claim;
use super::event::{Enrolment, Event, FORMAT, Line, fingerprint};
use super::ledger::{LedgerError, read, whole_lines};
use super::{LEDGER, ROOT};
use crate::certificate;
use crate::files::{DENY_LISTS, FileError, certificates, read_bounded};
use crate::fingerprint::Fingerprint;
use crate::moment::Moment;
use crate::passport::Passport;
use crate::trust::Trust;

pub use flaw::{Finding, Flaw};

/// Holds what an audit found.
#[derive(Clone, Debug)]
pub struct Audit {
    /// Whole lines.
    pub lines: usize,
    /// SHA-256 of the last one.
    pub head: Fingerprint,
    /// The first line that names the one before it; lines before that could have been changed unseen.
    pub chained_from: Option<usize>,
    /// Clusters that are enrolled.
    pub clusters: usize,
    /// What is wrong; nothing if empty.
    pub findings: Vec<Finding>,
}

/// Reads the ledger of an authority's directory and says what cannot be right: lines that were changed, enrolments that should
/// have been refused when they were made, and passports among `presented` that are not in it. `since` is the fingerprint of a
/// line that was noted earlier. O(enrolments × clusters).
///
/// Fails only if a file cannot be read.
pub fn audit(
    dir: &Path,
    since: Option<Fingerprint>,
    presented: &[CertificateDer<'_>],
) -> Result<Audit, AuditError> {
    let bytes = read(&dir.join(LEDGER))?;
    let path = dir.join(ROOT);
    let roots = certificates(&path, &read_bounded(&path)?)?;
    let mut replay = Replay::default();
    let mut since = since;
    for (at, text) in whole_lines(&bytes).enumerate() {
        replay.line(at + 1, text);
        since = since.filter(|wanted| *wanted != replay.head);
    }
    if let Some(lost) = since {
        replay.say(None, Flaw::Lost(lost));
    }
    replay.root(&roots);
    replay.deny_list(dir, &roots);
    for der in presented {
        replay.certificate(der);
    }
    let Replay { lines, head, chained_from, current, findings, .. } = replay;
    Ok(Audit { lines, head, chained_from, clusters: current.len(), findings })
}

/// Why an audit could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// No ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// No root.
    #[error(transparent)]
    File(#[from] FileError),
}

struct Replay {
    lines: usize,
    head: Fingerprint,
    chained_from: Option<usize>,
    root: Option<Fingerprint>,
    at: Option<Moment>,
    enrolments: Vec<Enrolment>,
    current: Vec<Enrolment>,
    revocations: u64,
    findings: Vec<Finding>,
}

impl Default for Replay {
    fn default() -> Self {
        Self {
            lines: 0,
            head: Fingerprint::of(&[]),
            chained_from: None,
            root: None,
            at: None,
            enrolments: Vec::new(),
            current: Vec::new(),
            revocations: 0,
            findings: Vec::new(),
        }
    }
}

impl Replay {
    fn say(&mut self, line: Option<usize>, flaw: Flaw) {
        self.findings.push(Finding { line, flaw });
    }

    fn line(&mut self, number: usize, text: &[u8]) {
        let before = std::mem::replace(&mut self.head, fingerprint(text));
        self.lines = number;
        let line: Line = match serde_json::from_slice(text) {
            Ok(line) => line,
            Err(error) => return self.say(Some(number), Flaw::Unreadable(error.to_string())),
        };
        match line.previous {
            Some(named) if named != before => {
                let flaw = Flaw::Chain { named: named.short(), found: before.short() };
                self.say(Some(number), flaw);
            }
            Some(_) => {
                self.chained_from.get_or_insert(number);
            }
            None if self.chained_from.is_some() => self.say(Some(number), Flaw::Unchained),
            None => {}
        }
        let at = line.event.at();
        if let Some(before) = self.at.filter(|before| at < *before) {
            self.say(Some(number), Flaw::Time { at, before });
        }
        self.at = Some(at);
        let first = matches!(line.event, Event::Init { format: FORMAT, .. });
        if first != (number == 1) {
            self.say(Some(number), Flaw::Init);
        }
        self.event(number, line.event);
    }

    fn event(&mut self, number: usize, event: Event) {
        match event {
            Event::Init { root_spki_sha256, .. } => self.root = Some(root_spki_sha256),
            Event::Enrol(enrolment) => self.enrol(number, enrolment),
            Event::Revoke(denied) => {
                self.revocations += 1;
                if !self.enrolments.iter().any(|known| known.request.cluster == denied.cluster) {
                    self.say(Some(number), Flaw::Unknown(denied.cluster));
                }
            }
            Event::Leave { cluster, .. } => {
                let place = self.current.iter().position(|known| known.request.cluster == cluster);
                match place {
                    Some(place) => drop(self.current.remove(place)),
                    None => self.say(Some(number), Flaw::Unknown(cluster)),
                }
            }
        }
    }

    fn enrol(&mut self, number: usize, enrolment: Enrolment) {
        let request = &enrolment.request;
        let mut refused: Vec<String> = Vec::new();
        match request.canonical() {
            Ok(canonical) if canonical == *request => {}
            Ok(_) => refused.push("its blocks are not in canonical form".to_owned()),
            Err(error) => refused.push(error.to_string()),
        }
        let present = self.current.iter().map(|known| &known.request);
        refused.extend(claim::compare_all(request, present).refusals.iter().map(ToString::to_string));
        let same_key = self.enrolments.iter().find(|known| known.spki == enrolment.spki);
        let again = |known: &&Enrolment| {
            known.attested && enrolment.attested && known.request.cluster == request.cluster
        };
        if let Some(known) = same_key.filter(|known| !again(known)) {
            refused.push(format!("the key was already enrolled, for cluster {}", known.request.cluster));
        }
        let cluster = request.cluster.clone();
        for found in refused {
            self.say(Some(number), Flaw::Refused(found));
        }
        self.current.retain(|known| known.request.cluster != cluster);
        self.current.push(enrolment.clone());
        self.enrolments.push(enrolment);
    }

    fn root(&mut self, roots: &[CertificateDer<'_>]) {
        let found = roots.first().and_then(|root| certificate::spki(root).ok());
        if found.is_none() || found != self.root {
            let found = "its key is not the one that the ledger begins with".to_owned();
            self.say(None, Flaw::File { file: ROOT, found });
        }
    }

    /// The deny list in the directory must be the one that the ledger gives.
    fn deny_list(&mut self, dir: &Path, roots: &[CertificateDer<'_>]) {
        let path = dir.join(DENY_LISTS);
        if self.revocations == 0 && !path.exists() {
            return;
        }
        let read = read_bounded(&path).map_err(|error| error.to_string());
        let number = read.and_then(|bytes| {
            let trust = Trust::new(roots, &[], None).map_err(|error| error.to_string())?;
            let trust = trust.with_deny_lists(&bytes).map_err(|error| error.to_string())?;
            Ok(self.root.and_then(|root| trust.list_number(root)).unwrap_or_default())
        });
        let found = match number {
            Ok(number) if number == self.revocations => return,
            Ok(number) => format!(
                "it is list {number}, the ledger has {} revocations; `meshctl ca export-bundle --out` writes it anew",
                self.revocations
            ),
            Err(error) => error,
        };
        self.say(None, Flaw::File { file: DENY_LISTS, found });
    }

    fn certificate(&mut self, der: &CertificateDer<'_>) {
        let subject = certificate::describe(der);
        let fingerprint = Fingerprint::of(der);
        let Some(known) = self.enrolments.iter().find(|known| known.certificate == fingerprint).cloned()
        else {
            return self.say(None, Flaw::Unrecorded(subject));
        };
        let blocks = known.request.address_space();
        let read = match known.attested {
            true => Passport::read_with_blocks(der, blocks.clone()),
            false => Passport::read(der),
        };
        let passport = match read {
            Ok(passport) => passport,
            Err(error) => {
                return self.say(None, Flaw::Unrecorded(format!("{subject}, no passport ({error}),")));
            }
        };
        for (field, same) in [
            ("key", passport.spki == known.spki),
            ("cluster", passport.uri.cluster == known.request.cluster),
            ("id", passport.uri.id == known.request.id),
            ("address blocks", passport.blocks == blocks),
            ("end", Moment::from(passport.not_after) == known.not_after),
        ] {
            if !same {
                self.say(None, Flaw::Differs { subject: subject.clone(), field });
            }
        }
    }
}

impl Audit {
    /// True if nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }
}
