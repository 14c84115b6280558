//! What the store counts, for Prometheus.

use crate::store::Store;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};
use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

/// Counts of a store, kept by the store and its watchers.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) watchers: AtomicU64,
    pub(crate) events_delivered: AtomicU64,
    pub(crate) compactions: AtomicU64,
}

/// Registers the store's metrics; sizes are read when the registry is scraped. The caller gives the prefix.
pub fn register(store: &Store, registry: &mut Registry) {
    registry.register_collector(Box::new(StoreCollector { store: store.clone() }));
}

#[derive(Debug)]
struct StoreCollector {
    store: Store,
}

impl Collector for StoreCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let snapshot = self.store.snapshot();
        let counters = self.store.counters();
        let (history, history_bytes) = self.store.history_size();
        let mut gauge = |name, help, unit: Option<&Unit>, value: u64| {
            let value = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            value.encode(encoder.encode_descriptor(name, help, unit, value.metric_type())?)
        };
        gauge("store_revision", "Latest revision of the store", None, snapshot.revision())?;
        gauge("store_compact_revision", "Oldest revision that can be read", None, snapshot.compacted())?;
        gauge("store_keys", "Keys in the store", None, snapshot.len() as u64)?;
        gauge("store_leases", "Leases granted and not ended", None, snapshot.lease_count() as u64)?;
        gauge("store_history_revisions", "Revisions kept for watchers", None, history as u64)?;
        gauge("store_history", "Size of the kept revisions", Some(&Unit::Bytes), history_bytes as u64)?;
        let failed = u64::from(self.store.disk_failure().is_some());
        gauge("store_disk_failed", "1 while the disk takes no writes", None, failed)?;
        gauge("store_watchers", "Watchers of the store", None, counters.watchers.load(Ordering::Relaxed))?;
        let mut counter = |name, help, value: &AtomicU64| {
            let value = ConstCounter::new(value.load(Ordering::Relaxed));
            value.encode(encoder.encode_descriptor(name, help, None, value.metric_type())?)
        };
        counter("store_events_delivered", "Events handed to watchers", &counters.events_delivered)?;
        counter("store_compactions", "Compactions made", &counters.compactions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreOptions;

    #[test]
    fn a_scrape_shows_the_state_of_the_moment() {
        let store = Store::in_memory(StoreOptions::default());
        let mut registry = Registry::with_prefix("mesh_apiserver");
        register(&store, &mut registry);
        store.put("a", "1").expect("put");
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("encode");
        for line in [
            "mesh_apiserver_store_revision 2\n",
            "mesh_apiserver_store_keys 1\n",
            "mesh_apiserver_store_compactions_total 0\n",
            "mesh_apiserver_store_disk_failed 0\n",
        ] {
            assert!(text.contains(line), "no {line:?} in\n{text}");
        }
    }
}
