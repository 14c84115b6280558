//! What the writer of slices says about itself on the status page.

use std::collections::BTreeMap;
use std::sync::Arc;

use peering::view::Rejections;
use serde::Serialize;

use crate::finding::Finding;

/// The state at the last look.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// `agents` or `agentless`.
    pub profile: &'static str,
    /// What is waited for before anything is written, if anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// How the connection to each peer is: `joining`, `syncing`, `fresh`, `stale` or `refused`, and why.
    pub peers: BTreeMap<String, PeerReport>,
    /// Services that have slices of other clusters' backends.
    pub services: usize,
    /// Their slices.
    pub slices: usize,
    /// The endpoints in them.
    pub endpoints: usize,
    /// Passes over what was due, since the start.
    pub passes: u64,
    /// Services that are to be looked at, those that failed included.
    pub due: usize,
    /// All that is odd; shown with the other findings.
    #[serde(skip)]
    pub findings: Vec<Finding>,
}

/// How a peer is followed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerReport {
    /// What names it: a file, a key of a Secret, an object.
    pub from: String,
    /// Its id, once that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u16>,
    /// The state as one word.
    pub link: &'static str,
    /// Why it is not fresh, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its services are all known; before that, nothing of it is taken away.
    pub synced: bool,
    /// Services that it offers.
    pub services: usize,
    /// Records that were not taken, or not all of them.
    pub refused: Arc<Rejections>,
}
