//! What the hub says about itself on the status page.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::finding::Finding;
use crate::identity::Numbering;
use crate::source::SourceStatus;

/// The hub at its last update.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The revision after the last records were published; 0 before the first.
    pub published_revision: u64,
    /// The source.
    pub source: SourceStatus,
    /// Objects known, by kind.
    pub objects: BTreeMap<&'static str, usize>,
    /// Sets of labels that have a number.
    pub identities_allocated: usize,
    /// Numbers that pods, or objects of identities, have.
    pub identities_in_use: usize,
    /// Numbers that pods have, whose objects are not there yet.
    pub identities_waiting: usize,
    /// Who gives numbers.
    pub numbering: Numbering,
    /// Numbers that the cluster has.
    pub identities_available: usize,
    /// All that is odd, worst first.
    pub findings: Vec<Finding>,
}
