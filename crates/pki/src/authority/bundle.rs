//! What others need to go by an authority: its root, its deny list, its statements.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;

use super::event::Enrolment;
use super::ledger::Ledger;
use super::{Authority, AuthorityError, PassportState};
use crate::durable::{self, Access};
use crate::files::{AUTHORITIES, DENY_LISTS, STATEMENTS, certificates_pem};
use crate::signed::{self, DocumentKind};
use crate::statement::BlockStatement;

/// Holds what others need to go by an authority.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The root, and further ones to be accepted beside it.
    pub roots: Vec<CertificateDer<'static>>,
    /// The deny list as a line, or nothing if nothing was ever revoked.
    pub deny_lists: String,
    /// The block statements of all passports that need one and are valid, each a line.
    pub statements: String,
}

impl Authority {
    /// The bundle as the ledger gives it now, signed anew.
    pub fn bundle(&self) -> Result<Bundle, AuthorityError> {
        let ledger = self.ledger()?;
        let now = SystemTime::now();
        let mut statements = String::new();
        let stated = |enrolment: &&Enrolment| {
            enrolment.attested && ledger.state(enrolment, now) == PassportState::Current
        };
        for enrolment in ledger.current().filter(stated) {
            statements.push_str(&self.statement(&ledger, enrolment)?);
            statements.push('\n');
        }
        let deny_lists = self.deny_list()?.map(|line| line + "\n").unwrap_or_default();
        Ok(Bundle { roots: vec![self.root.clone()], deny_lists, statements })
    }

    /// The block statement for an enrolment, as a line without its newline.
    pub(super) fn statement(&self, ledger: &Ledger, enrolment: &Enrolment) -> Result<String, AuthorityError> {
        let statement = BlockStatement {
            trust_domain: ledger.trust_domain().clone(),
            cluster: enrolment.request.cluster.clone(),
            id: enrolment.request.id,
            spki: enrolment.spki,
            blocks: enrolment.request.passport_cidrs().copied().collect(),
            not_before: (SystemTime::from(enrolment.at) - CLOCK_SKEW).into(),
            not_after: enrolment.not_after,
        };
        let kind = DocumentKind::BlockStatement;
        signed::sign(&self.key, kind, &statement).ok_or(AuthorityError::Sign { kind })
    }
}

impl Bundle {
    /// Writes `ca.crt` and what goes with it into a directory, each file whole.
    pub fn write(&self, dir: &Path) -> Result<(), AuthorityError> {
        self.write_documents(dir)?;
        write(dir, AUTHORITIES, &certificates_pem(&self.roots))
    }

    /// Writes only what goes with `ca.crt`, as far as there is any.
    pub fn write_documents(&self, dir: &Path) -> Result<(), AuthorityError> {
        for (name, lines) in [(STATEMENTS, &self.statements), (DENY_LISTS, &self.deny_lists)] {
            if !lines.is_empty() {
                write(dir, name, lines)?;
            }
        }
        Ok(())
    }
}

fn write(dir: &Path, name: &str, text: &str) -> Result<(), AuthorityError> {
    let path = dir.join(name);
    durable::write(&path, text.as_bytes(), Access::Everyone)
        .map_err(|source| AuthorityError::Write { path, source })
}

/// Peers' clocks may be behind by this much.
const CLOCK_SKEW: Duration = Duration::from_secs(300);
