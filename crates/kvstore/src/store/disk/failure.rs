//! Whether the disk takes writes, and why not.

use super::super::journal::JournalError;
use std::sync::{Arc, atomic::AtomicBool};
use tokio::sync::watch;
use tracing::error;

/// Why the disk takes no writes. Clones share the text.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the store's disk has failed: {reason}")]
pub struct DiskFailure {
    reason: Arc<str>,
    is_full: bool,
    since: jiff::Timestamp,
}

/// The state of a disk, as it comes and goes.
pub(super) struct Health {
    pub(super) failure: watch::Sender<Option<DiskFailure>>,
    /// The files are marked as in doubt.
    pub(super) marked: AtomicBool,
}

impl Health {
    /// A disk that takes writes.
    pub(super) fn new() -> Self {
        Self { failure: watch::Sender::new(None), marked: AtomicBool::new(false) }
    }

    /// Notes a failure, the first one of several.
    pub(super) fn fail(&self, cause: &JournalError) -> DiskFailure {
        let failure = DiskFailure {
            reason: chain(cause).into(),
            is_full: cause.is_full(),
            since: jiff::Timestamp::now(),
        };
        let is_first = self.failure.send_if_modified(|known| {
            let is_first = known.is_none();
            known.get_or_insert_with(|| failure.clone());
            is_first
        });
        if is_first {
            error!(error = %failure.reason, "the store's disk has failed: what must be durable is refused, \
                 everything else goes on in memory, if the files can be marked, until the disk takes writes again");
        }
        failure
    }
}

impl DiskFailure {
    /// What failed, with its causes.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Whether there was no room left.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// When it began.
    pub fn since(&self) -> jiff::Timestamp {
        self.since
    }

    pub(super) fn closed() -> Self {
        Self { reason: "its files are closed".into(), is_full: false, since: jiff::Timestamp::now() }
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
