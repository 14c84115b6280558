//! What became of each passport, as the ledger tells it.

use std::path::Path;
use std::time::SystemTime;

use super::LEDGER;
use super::event::Enrolment;
use super::ledger::{Ledger, LedgerError};

impl Ledger {
    /// Reads the ledger in an authority's directory; no key is needed.
    pub fn open(dir: &Path) -> Result<Self, LedgerError> {
        Self::read(&dir.join(LEDGER))
    }

    /// What became of a passport, as of `now`.
    pub fn state(&self, enrolment: &Enrolment, now: SystemTime) -> PassportState {
        if self.revocation(enrolment).is_some() {
            PassportState::Revoked
        } else if enrolment.not_after.is_past(now) {
            PassportState::Ended
        } else if self
            .of(&enrolment.request.cluster)
            .is_some_and(|last| last.certificate == enrolment.certificate)
        {
            PassportState::Current
        } else {
            PassportState::Superseded
        }
    }
}

/// What became of a passport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassportState {
    /// It is its cluster's last one, and valid.
    Current,
    /// There is a later one, or the cluster left, and it is still valid.
    Superseded,
    /// It has ended.
    Ended,
    /// It is on the deny list.
    Revoked,
}

impl PassportState {
    /// The state's word, in tables and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Superseded => "superseded",
            Self::Ended => "ended",
            Self::Revoked => "revoked",
        }
    }
}
