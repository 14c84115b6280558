//! What is measured of the connection to etcd.

use super::Etcd;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::gauge::ConstGauge,
    registry::{Registry, Unit},
};
use std::fmt;

/// Registers whether there is contact and how old the mirror is. The caller gives the prefix.
pub fn register(etcd: &Etcd, registry: &mut Registry) {
    registry.register_collector(Box::new(EtcdCollector { etcd: etcd.clone() }));
}

#[derive(Debug)]
struct EtcdCollector {
    etcd: Etcd,
}

impl Collector for EtcdCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let connected = ConstGauge::new(i64::from(self.etcd.endpoint().is_some()));
        let help = "Whether there is contact with the etcd behind the store";
        let descriptor = encoder.encode_descriptor("store_connected", help, None, connected.metric_type())?;
        connected.encode(descriptor)?;
        let age = ConstGauge::new(self.etcd.age().as_secs_f64());
        let help = "Time since the mirror was last known to hold all that etcd held";
        let unit = Some(&Unit::Seconds);
        age.encode(encoder.encode_descriptor("store_age", help, unit, age.metric_type())?)
    }
}
