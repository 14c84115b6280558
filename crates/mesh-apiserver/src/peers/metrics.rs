//! What is counted of peers that the hub itself follows.

use std::collections::BTreeMap;

use peering::view::Rejections;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use topology::ClusterName;

/// Records of peers that were not taken, or not all of them.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    refused: Family<Labels, Counter>,
    /// As counted last: a follower that begins anew begins at 0.
    counted: BTreeMap<Labels, u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct Labels {
    peer: String,
    kind: String,
}

impl Metrics {
    /// Registers the counters; the caller gives the prefix.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("peer");
        registry.register(
            "records_refused",
            "Records of a peer that were not taken, or not all of them",
            metrics.refused.clone(),
        );
        metrics
    }

    /// Counts what came since the last look at a peer.
    pub fn counts(&mut self, peer: &ClusterName, rejections: &Rejections) {
        for (kind, count) in &rejections.count {
            let labels = Labels { peer: peer.to_string(), kind: kind.clone() };
            let counted = self.counted.entry(labels.clone()).or_default();
            let more = if *count >= *counted { count - *counted } else { *count };
            *counted = *count;
            self.refused.get_or_create(&labels).inc_by(more);
        }
    }

    /// Forgets the peers that are no longer followed.
    pub fn keep(&mut self, is_followed: impl Fn(&str) -> bool) {
        self.counted.retain(|labels, _| {
            let stays = is_followed(&labels.peer);
            if !stays {
                self.refused.remove(labels);
            }
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_never_falls_while_the_peer_is_followed() {
        let mut metrics = Metrics::default();
        let tokyo: ClusterName = "tokyo".parse().expect("a name");
        let rejections =
            |count| Rejections { count: [("services".to_owned(), count)].into(), ..Rejections::default() };
        for count in [3, 5, 5, 2] {
            metrics.counts(&tokyo, &rejections(count));
        }
        let labels = Labels { peer: "tokyo".to_owned(), kind: "services".to_owned() };
        assert_eq!(metrics.refused.get_or_create(&labels).get(), 7);
        metrics.keep(|peer| peer != "tokyo");
        assert!(metrics.counted.is_empty());
    }
}
