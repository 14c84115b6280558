//! What is counted about connections.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::clients::Clients;

/// Counters of connections.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    connected: Family<RoleLabel, Counter>,
    refused: Family<ReasonLabel, Counter>,
    turned_away: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RoleLabel {
    role: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Debug)]
struct Connected(Clients);

impl Metrics {
    /// Registers the counters; the caller gives the prefix.
    pub fn register(registry: &mut Registry, clients: &Clients) -> Self {
        let metrics = Self::default();
        registry.register("connections", "Connections accepted", metrics.connected.clone());
        registry.register("connections_refused", "Connections refused", metrics.refused.clone());
        let help = "Connections closed at once because there were too many";
        registry.register("connections_turned_away", help, metrics.turned_away.clone());
        registry.register_collector(Box::new(Connected(clients.clone())));
        metrics
    }

    /// Counts a connection.
    pub fn connected(&self, role: &'static str) {
        self.connected.get_or_create(&RoleLabel { role }).inc();
    }

    /// Counts a refusal.
    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Counts a connection that found no place.
    pub fn turned_away(&self) {
        self.turned_away.inc();
    }
}

impl Collector for Connected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let count = i64::try_from(self.0.connected().len()).unwrap_or(i64::MAX);
        let gauge = ConstGauge::new(count);
        let help = "Clients connected at present";
        gauge.encode(encoder.encode_descriptor("clients", help, None, gauge.metric_type())?)
    }
}
