//! What the writer of slices counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::report::Report;

/// Counters of writes, and sizes.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    writes: Family<WriteLabels, Counter>,
    services: Gauge,
    slices: Gauge,
    endpoints: Gauge,
    due: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    verb: &'static str,
    outcome: &'static str,
}

impl Metrics {
    /// Registers the counters; the caller gives the prefix.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("remote_slices");
        registry.register("writes", "Writes to the API server", metrics.writes.clone());
        registry.register(
            "services",
            "Services with slices of other clusters' backends",
            metrics.services.clone(),
        );
        registry.register("slices", "Slices of other clusters' backends", metrics.slices.clone());
        registry.register("endpoints", "Endpoints in those slices", metrics.endpoints.clone());
        registry.register("due", "Services that are to be looked at", metrics.due.clone());
        metrics
    }

    /// Counts a write.
    pub fn wrote(&self, verb: &'static str, succeeded: bool) {
        let outcome = if succeeded { "success" } else { "failure" };
        self.writes.get_or_create(&WriteLabels { verb, outcome }).inc();
    }

    /// Takes over the sizes.
    pub fn shows(&self, report: &Report) {
        let set = |gauge: &Gauge, size: usize| {
            gauge.set(i64::try_from(size).unwrap_or(i64::MAX));
        };
        set(&self.services, report.services);
        set(&self.slices, report.slices);
        set(&self.endpoints, report.endpoints);
        set(&self.due, report.due);
    }
}
