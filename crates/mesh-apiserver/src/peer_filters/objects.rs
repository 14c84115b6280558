//! What `ClusterPeer` objects say about filters, and what counts beside the file. Pure.

use std::collections::{BTreeMap, BTreeSet};

use topology::{ClusterName, ExportFilter};

use super::PeerFilters;
use super::in_force::{Wanted, nothing};

/// What objects say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FromObjects {
    /// Whether all of them have been read once. Before that, what the store holds of earlier runs stays.
    pub is_known: bool,
    /// The filter of each peer that has one by an object.
    pub filters: BTreeMap<ClusterName, ExportFilter>,
    /// Peers whose object has a filter that has no meaning.
    pub held: BTreeSet<ClusterName>,
    /// Peers that are shown nothing, whatever else says anything about them.
    pub paused: BTreeSet<ClusterName>,
}

/// What counts: the pause of an object, then the file, then the filter of an object.
///
/// `is_told`: this process decides alone about what is neither in file nor objects; other replicas with a file do not.
/// Without `objects`, there are none.
pub fn wanted(file: &PeerFilters, is_told: bool, objects: Option<&FromObjects>) -> Wanted {
    let mut filters = file.clone();
    let mut held = BTreeSet::new();
    if let Some(objects) = objects {
        for (name, filter) in &objects.filters {
            filters.peers.entry(name.clone()).or_insert_with(|| filter.clone());
        }
        filters.peers.extend(objects.paused.iter().map(|name| (name.clone(), nothing())));
        held.extend(objects.held.iter().filter(|name| !filters.peers.contains_key(*name)).cloned());
    }
    let keeps_peers = match objects {
        Some(objects) => !objects.is_known,
        None => !is_told,
    };
    Wanted { filters, held, keeps_peers, keeps_default: !is_told }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ClusterName {
        text.parse().expect("a name")
    }

    fn filter(namespace: &str) -> ExportFilter {
        serde_json::from_str(&format!(r#"{{"namespaces":{{"include":["{namespace}"]}}}}"#)).expect("a filter")
    }

    #[test]
    fn a_pause_counts_before_the_file_and_the_file_before_a_filter() {
        let names = ["lima", "oslo", "paris", "tokyo"].map(name);
        let [lima, oslo, paris, tokyo] = names.clone();
        let file = PeerFilters {
            peers: [&lima, &tokyo].map(|peer| (peer.clone(), filter("file"))).into(),
            default: None,
        };
        let objects = FromObjects {
            is_known: true,
            filters: [&oslo, &tokyo].map(|peer| (peer.clone(), filter("object"))).into(),
            held: [lima.clone(), paris.clone()].into(),
            paused: [lima.clone()].into(),
        };
        let found = wanted(&file, true, Some(&objects));
        let expected = [(lima, nothing()), (oslo, filter("object")), (tokyo, filter("file"))];
        assert_eq!(found.filters.peers, expected.into());
        assert_eq!(found.held, [paris].into());
        assert_eq!((found.keeps_peers, found.keeps_default), (false, false));
    }

    #[test]
    fn who_does_not_know_takes_nothing_away() {
        let file = PeerFilters::default();
        let keeps = |is_told, objects: Option<&FromObjects>| {
            let wanted = wanted(&file, is_told, objects);
            (wanted.keeps_peers, wanted.keeps_default)
        };
        let (unread, read) =
            (FromObjects::default(), FromObjects { is_known: true, ..FromObjects::default() });
        assert_eq!(keeps(true, None), (false, false));
        assert_eq!(keeps(false, None), (true, true));
        assert_eq!(keeps(true, Some(&unread)), (true, false));
        assert_eq!(keeps(true, Some(&read)), (false, false));
        assert_eq!(keeps(false, Some(&read)), (false, true));
    }
}
