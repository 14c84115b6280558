//! Who leads, as numbers; read when the registry is scraped.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use tokio::sync::watch;

use super::Standing;

/// What is looked at.
#[derive(Debug)]
struct Metrics {
    leads: watch::Receiver<bool>,
    standing: Option<watch::Receiver<Standing>>,
}

/// Registers whether this replica leads, and what it knows of the Lease, if there is to be one; the caller gives the prefix.
pub fn register(
    registry: &mut Registry,
    leads: watch::Receiver<bool>,
    standing: Option<watch::Receiver<Standing>>,
) {
    registry.register_collector(Box::new(Metrics { leads, standing }));
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut gauge = |name: &str, help: &str, unit: Option<&Unit>, value: f64| {
            let gauge = ConstGauge::new(value);
            let encoder = encoder.encode_descriptor(name, help, unit, gauge.metric_type())?;
            gauge.encode(encoder)
        };
        let leads = *self.leads.borrow();
        gauge("leader", "Whether this replica writes: 0 or 1", None, leads.into())?;
        let Some(standing) = &self.standing else { return Ok(()) };
        let standing = standing.borrow().clone();
        gauge("lease_held", "Whether this replica holds the Lease: 0 or 1", None, standing.holds().into())?;
        let help = "Changes of the holder of the Lease, as the Lease counts them";
        gauge("lease_transitions", help, None, standing.transitions.into())?;
        let usable = standing.unusable.is_none();
        gauge("lease_usable", "Whether the Lease elects: 0 or 1", None, usable.into())?;
        if let Some(renewed) = standing.renewed {
            let help = "Time since this replica, which holds the Lease, renewed it";
            gauge("lease_renewal_age", help, Some(&Unit::Seconds), renewed.elapsed().as_secs_f64())?;
        }
        Ok(())
    }
}
