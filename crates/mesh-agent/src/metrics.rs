//! What the agent counts, for Prometheus. Everything is read at the moment of the scrape, from what the pages show
//! too and from the kernel's own counters, so there is nothing to keep in step.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ebpf_loader::Maps;
use peering::view::Link;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::probe::ProbeReport;
use crate::status::Shown;

/// Reads the agent's state when it is scraped.
#[derive(Debug)]
pub struct AgentCollector {
    shown: watch::Receiver<Option<Arc<Shown>>>,
    probes: watch::Receiver<Vec<ProbeReport>>,
    maps: Maps,
}

/// Labels and the value that goes with them. Labels are bounded: clusters, states, kinds; never an address.
type Series = Vec<(Vec<(&'static str, String)>, u64)>;

impl AgentCollector {
    /// Registers the agent's metrics; the owner of the registry gives the prefix. `maps` is a handle of its own.
    pub fn register(
        registry: &mut Registry,
        shown: watch::Receiver<Option<Arc<Shown>>>,
        probes: watch::Receiver<Vec<ProbeReport>>,
        maps: Maps,
    ) {
        registry.register_collector(Box::new(Self { shown, probes, maps }));
    }
}

impl Collector for AgentCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let encoder = &mut encoder;
        if let Ok(counters) = self.maps.counters() {
            let events = counters.iter().map(|(counter, n)| (vec![("event", counter.name().to_owned())], n));
            let help = "Connections and datagrams by what the BPF programs did with them";
            counter_family(encoder, "datapath", help, events.collect())?;
        }
        let probes = self.probes.borrow().clone();
        let nodes =
            probes.iter().map(|p| vec![("cluster", p.cluster.to_string()), ("state", p.state.to_owned())]);
        gauge_family(encoder, "remote_nodes", "Probed node addresses by what the probes say", count(nodes))?;
        let shown = self.shown.borrow().clone();
        shown.map_or(Ok(()), |shown| encode_shown(encoder, &shown))
    }
}

fn encode_shown(encoder: &mut DescriptorEncoder<'_>, shown: &Shown) -> Result<(), fmt::Error> {
    let views = &shown.heard.views;
    let links = views
        .iter()
        .map(|(name, view)| vec![("cluster", name.to_string()), ("state", view.link.word().to_owned())]);
    gauge_family(encoder, "hubs", "Followed hubs by how the connection is", count(links))?;
    let ages = views.iter().filter_map(|(name, view)| match &view.link {
        Link::Stale { since, .. } => Some((vec![("cluster", name.to_string())], since.elapsed().as_secs())),
        _ => None,
    });
    gauge_family(encoder, "hub_silent_seconds", "How long ago a stale hub was last heard", ages.collect())?;
    let rejected = views.iter().flat_map(|(name, view)| {
        let labels = |kind: &String| vec![("cluster", name.to_string()), ("kind", kind.clone())];
        view.rejections.count.iter().map(move |(kind, n)| (labels(kind), *n))
    });
    counter_family(encoder, "records_rejected", "Records of hubs that were not taken", rejected.collect())?;

    let refusing = shown.applied.frontends.values().filter(|backends| backends.is_empty()).count();
    let health = &shown.heard.snapshot.health;
    let gauges = [
        (
            "peer_configurations_unusable",
            "Peer configuration files that cannot be used",
            shown.heard.problems.len(),
        ),
        (
            "own_fault_presumed",
            "1 while every peer fell silent together",
            usize::from(health.own_fault_presumed()),
        ),
        ("frontends", "Frontends in the maps", shown.applied.frontends.len()),
        ("frontends_without_backends", "Frontends at which clients are refused", refusing),
        ("backends", "Backends in the maps", shown.ids.len()),
        ("ipcache_entries", "Addresses with an identity in the maps", shown.applied.ipcache.len()),
        ("free_slots", "Slots that no service uses", shown.free_slots as usize),
        ("conflicts", "Claims to a frontend or address that were not granted", shown.conflicts.len()),
    ];
    for (name, help, value) in gauges {
        gauge_family(encoder, name, help, vec![(Vec::new(), value as u64)])?;
    }
    let done = &shown.reconciled;
    let counters = [
        ("reconcile_runs", "Runs of the reconcile loop", done.runs),
        ("map_writes", "Map entries written or removed", done.written),
        ("map_write_failures", "Map operations that failed", done.failed),
        ("map_drift", "Map entries that an audit had to mend", done.drift),
    ];
    for (name, help, value) in counters {
        counter_family(encoder, name, help, vec![(Vec::new(), value)])?;
    }
    Ok(())
}

fn gauge_family(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: Series,
) -> Result<(), fmt::Error> {
    let family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    encode_series(family, series, |value| ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)))
}

fn counter_family(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: Series,
) -> Result<(), fmt::Error> {
    let family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    encode_series(family, series, ConstCounter::new)
}

fn encode_series<M: EncodeMetric>(
    mut family: MetricEncoder<'_>,
    series: Series,
    metric: impl Fn(u64) -> M,
) -> Result<(), fmt::Error> {
    for (labels, value) in series {
        // A family with an empty set of labels would be written with empty braces.
        match labels.is_empty() {
            true => return metric(value).encode(family),
            false => metric(value).encode(family.encode_family(&labels)?)?,
        }
    }
    Ok(())
}

fn count(labels: impl Iterator<Item = Vec<(&'static str, String)>>) -> Series {
    let mut counts: BTreeMap<Vec<(&'static str, String)>, u64> = BTreeMap::new();
    for labels in labels {
        *counts.entry(labels).or_default() += 1;
    }
    counts.into_iter().collect()
}
