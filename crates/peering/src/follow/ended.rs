//! Why following a hub ended, for now.

use crate::dial::DialError;
use crate::ids::IdTaken;

/// Why an attempt ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error(transparent)]
    Credentials(pki::files::FileError),
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Read(#[from] kvstore::client::Error),
    #[error("the hub has no key {key}; is it the hub of that cluster, and up?")]
    NoConfig { key: String },
    #[error("the hub's configuration")]
    Config(#[source] topology::record::Rejected),
    #[error(transparent)]
    IdTaken(#[from] IdTaken),
    #[error("the hub's configuration gives id {configured}, its passport {attested}")]
    IdMismatch { configured: topology::ClusterId, attested: topology::ClusterId },
    #[error(
        "the hub's configuration gives id {configured}, expected {expected}, as this cluster's operator says"
    )]
    OtherId { configured: topology::ClusterId, expected: topology::ClusterId },
    #[error("no heartbeat for {} s: the hub's writer is not alive", super::SILENCE.as_secs())]
    Silent,
}

impl Ended {
    /// True if the hub, or what it says of itself, is not acceptable, rather than out of reach.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::Dial(error) => error.is_refusal(),
            Self::Read(error) => matches!(error, kvstore::client::Error::PermissionDenied { .. }),
            Self::Config(_) | Self::IdTaken(_) | Self::IdMismatch { .. } | Self::OtherId { .. } => true,
            Self::Credentials(_) | Self::NoConfig { .. } | Self::Silent => false,
        }
    }
}
