//! What can be wrong with a ledger, in words.

use topology::ClusterName;

use crate::authority::event::FORMAT;
use crate::fingerprint::Fingerprint;
use crate::moment::Moment;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The line, from 1; none if it is about another file.
    pub line: Option<usize>,
    /// What.
    pub flaw: Flaw,
}

/// What can be wrong with a ledger.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Not an event.
    #[error("not an event that this version knows: {0}")]
    Unreadable(String),
    /// The first line is not the beginning, or the beginning comes again.
    #[error("an init event of format {FORMAT} is expected as the first line and nowhere else")]
    Init,
    /// It does not follow from the line before.
    #[error(
        "it names {named} as the line before, which is {found}: a line was changed, added or taken out before it"
    )]
    Chain {
        /// The fingerprint in the line.
        named: String,
        /// That of the line before.
        found: String,
    },
    /// It names nothing, although earlier lines do.
    #[error("it names no line before it, although earlier lines do: it was added by hand")]
    Unchained,
    /// The remembered line is not there.
    #[error("no line has the fingerprint {0}: what was there then was changed or cut off")]
    Lost(Fingerprint),
    /// Time goes backwards.
    #[error("it is of {at}, the line before of {before}")]
    Time {
        /// Its time.
        at: Moment,
        /// That of the line before.
        before: Moment,
    },
    /// It would have been refused.
    #[error("it should have been refused: {0}")]
    Refused(String),
    /// It is about a cluster that was not enrolled.
    #[error("cluster {0} was not enrolled before")]
    Unknown(ClusterName),
    /// A certificate that was signed and not recorded.
    #[error("{0} is not in the ledger: it was signed past it")]
    Unrecorded(String),
    /// A certificate that is not what was recorded.
    #[error("{subject}: its {field} is not what the ledger says")]
    Differs {
        /// The certificate.
        subject: String,
        /// What differs.
        field: &'static str,
    },
    /// Another file of the authority does not go with the ledger.
    #[error("{file}: {found}")]
    File {
        /// The file.
        file: &'static str,
        /// What is wrong with it.
        found: String,
    },
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.flaw),
            None => self.flaw.fmt(f),
        }
    }
}
