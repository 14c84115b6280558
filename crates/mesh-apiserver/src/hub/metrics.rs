//! What the hub counts.

use std::time::Duration;

use kvstore::publisher::Outcome;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::finding::Finding;

/// Counters of the hub.
#[derive(Clone, Debug)]
pub struct Metrics {
    written: Counter,
    deleted: Counter,
    duration: Histogram,
    findings: Family<FindingLabels, Gauge>,
    allocated: Gauge,
    in_use: Gauge,
    waiting: Gauge,
    available: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FindingLabels {
    severity: &'static str,
    reason: &'static str,
}

impl Metrics {
    /// Registers the counters; the caller gives the prefix.
    pub fn register(registry: &mut Registry) -> Self {
        // From a tenth of a millisecond to about six and a half seconds.
        let buckets = prometheus_client::metrics::histogram::exponential_buckets(0.0001, 2.0, 17);
        let metrics = Self {
            written: Counter::default(),
            deleted: Counter::default(),
            duration: Histogram::new(buckets),
            findings: Family::default(),
            allocated: Gauge::default(),
            in_use: Gauge::default(),
            waiting: Gauge::default(),
            available: Gauge::default(),
        };
        registry.register("records_put", "Records written to the store", metrics.written.clone());
        registry.register("records_deleted", "Records deleted from the store", metrics.deleted.clone());
        registry.register_with_unit(
            "publish_duration",
            "Time from an update of the source to the store's revision",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        registry.register("findings", "What is odd about the input at present", metrics.findings.clone());
        registry.register(
            "identities_allocated",
            "Sets of labels that have a number",
            metrics.allocated.clone(),
        );
        registry.register(
            "identities_in_use",
            "Numbers that pods, or objects of identities, have",
            metrics.in_use.clone(),
        );
        registry.register(
            "identities_waiting",
            "Numbers that pods have, whose objects are not there yet",
            metrics.waiting.clone(),
        );
        registry.register("identities_available", "Numbers that the cluster has", metrics.available.clone());
        metrics
    }

    /// Counts what one update of the source came to.
    pub fn published(&self, outcome: &Outcome, took: Duration) {
        self.written.inc_by(outcome.written as u64);
        self.deleted.inc_by(outcome.deleted as u64);
        self.duration.observe(took.as_secs_f64());
    }

    /// Says what is odd at present.
    pub fn findings(&self, findings: &[Finding]) {
        self.findings.clear();
        for finding in findings {
            let labels =
                FindingLabels { severity: finding.severity.as_str(), reason: finding.reason.as_str() };
            self.findings.get_or_create(&labels).inc();
        }
    }

    /// Says how many identities there are.
    pub fn identities(&self, allocated: usize, in_use: usize, waiting: usize, available: usize) {
        let gauges = [&self.allocated, &self.in_use, &self.waiting, &self.available];
        for (gauge, value) in gauges.into_iter().zip([allocated, in_use, waiting, available]) {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }
}
