//! What is counted about the file of filters.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters of reloads.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    reloads: Family<OutcomeLabel, Counter>,
    broken: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

impl Metrics {
    /// Registers the counters; the caller gives the prefix.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let help = "Changes of the file of peer filters, by what became of them";
        registry.register("peer_filters_reloads", help, metrics.reloads.clone());
        let help = "1 while the file of peer filters cannot be used and an earlier one counts";
        registry.register("peer_filters_broken", help, metrics.broken.clone());
        metrics
    }

    /// The file counts as it is.
    pub fn applied(&self) {
        self.reloads.get_or_create(&OutcomeLabel { outcome: "applied" }).inc();
        self.broken.set(0);
    }

    /// The file cannot be used.
    pub fn refused(&self) {
        self.reloads.get_or_create(&OutcomeLabel { outcome: "refused" }).inc();
        self.broken.set(1);
    }
}
