//! Export filters per peer: what the operator wrote, and what is in force.
//!
//! ```text
//!   --peer-filters FILE ─> PeerFilters ─> store: isthmus/v1/hub/filters/<peer> ─> in force, for a reader of a snapshot
//!   ClusterPeer objects ───┘ file, objects       in_force                                      etcd_api/view
//! ```
//! The store holds the filters because it knows since when: the revision that wrote a filter is to its peer what a
//! compaction is to everybody. Older lists are not continued and older watches not resumed, whether the filter changed
//! while the peer was connected, while it was away, or while the hub was down. And a reader who takes the filter out of
//! the very snapshot that it reads can never mix the two.

pub mod file;
pub mod in_force;
pub mod metrics;
pub mod objects;

use std::collections::BTreeMap;

use serde::Deserialize;
use topology::{ClusterName, ExportFilter};

/// What an operator wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerFilters {
    /// The filter of each peer that has one of its own. The empty one shows everything.
    #[serde(default)]
    pub peers: BTreeMap<ClusterName, ExportFilter>,
    /// The filter of every other peer; without it they are shown everything.
    #[serde(default)]
    pub default: Option<ExportFilter>,
}

/// Why a text does not say what peers are shown.
#[derive(Debug, thiserror::Error)]
pub enum InvalidFilters {
    /// There is nothing in it: perhaps somebody is just writing it.
    #[error("it is empty, expected at least `peers: {{}}`")]
    Empty,
    /// It is not YAML of the expected shape.
    #[error("expected YAML with peers and default (docs/export-filters.md)")]
    Yaml(#[source] Box<serde_saphyr::Error>),
}

impl PeerFilters {
    /// Reads a text. Fails with the place of what is not known or has no meaning.
    pub fn parse(text: &str) -> Result<Self, InvalidFilters> {
        let is_comment = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
        if text.lines().all(is_comment) {
            return Err(InvalidFilters::Empty);
        }
        // Errors are one line, without a picture of the text, which would go to the log.
        let options = serde_saphyr::options! { with_snippet: false };
        serde_saphyr::from_str_with_options(text, options)
            .map_err(|error| InvalidFilters::Yaml(Box::new(error)))
    }
}

#[cfg(test)]
mod tests {
    use mesh_runtime::Chain;

    use super::*;

    #[test]
    fn a_file_names_peers_and_a_default() {
        let text = "# who sees what\npeers:\n  tokyo:\n    namespaces: {include: [shop, 'pay-*'], exclude: [pay-test]}\n    \
                    services: {include: ['shop/*']}\n    labels:\n      matchLabels: {mesh: 'yes'}\n      matchExpressions:\n      \
                    - {key: tier, operator: NotIn, values: [internal]}\n  lima: {}\ndefault:\n  namespaces: {exclude: ['*']}\n";
        let filters = PeerFilters::parse(text).expect("a sound file");
        assert_eq!(filters.peers.len(), 2);
        assert!(filters.peers[&"lima".parse().expect("a name")].is_empty());
        assert!(filters.default.is_some_and(|filter| !filter.is_empty()));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, place) in [
            ("peers:\n  tokyo:\n    namespace: {include: [shop]}\n", "line 3"),
            ("peers:\n  tokyo:\n    namespaces: {includes: [shop]}\n", "line 3"),
            ("peers: {}\nfallback: {}\n", "line 2"),
            ("peers:\n  Tokyo: {}\n", "cluster name \"Tokyo\""),
            ("peers:\n  tokyo:\n    services:\n      include:\n      - shop\n", "<namespace>/<name>"),
            ("peers:\n  tokyo:\n    namespaces:\n      include: []\n", "include is an empty list"),
            ("peers:\n  tokyo: {}\n  tokyo: {}\n", "tokyo"),
            ("# nothing\n\n", "it is empty"),
            ("peers: [", "line"),
        ] {
            let error = PeerFilters::parse(text).expect_err(text);
            let said = Chain(&error).to_string();
            assert!(said.contains(place), "{text:?}: {said}");
        }
    }
}
