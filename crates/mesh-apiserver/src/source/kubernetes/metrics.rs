//! What the source counts, by kind; read when the registry is scraped.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::contact::Contact;
use crate::object::ObjectKind;

/// The contact about each kind.
#[derive(Clone, Debug)]
pub struct Contacts(Arc<[(ObjectKind, Arc<Contact>)]>);

impl Default for Contacts {
    fn default() -> Self {
        let kinds = ObjectKind::ALL.into_iter().chain(ObjectKind::CUSTOM).chain(ObjectKind::POLICIES);
        Self(kinds.map(|kind| (kind, Arc::default())).collect())
    }
}

impl Contacts {
    /// Registers the counters; the caller gives the prefix.
    pub fn register(registry: &mut Registry) -> Self {
        let contacts = Self::default();
        registry.register_collector(Box::new(contacts.clone()));
        contacts
    }

    /// Each kind that is followed, with its contact.
    pub fn iter(&self) -> impl Iterator<Item = (ObjectKind, &Arc<Contact>)> {
        let followed = self.0.iter().filter(|(_, contact)| contact.is_followed.load(Ordering::Relaxed));
        followed.map(|(kind, contact)| (*kind, contact))
    }

    /// The contact about a kind.
    pub fn of(&self, kind: ObjectKind) -> &Arc<Contact> {
        let found = self.0.iter().find(|(other, _)| *other == kind);
        &found.expect("there is a contact for each kind").1
    }

    fn counters(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        value: impl Fn(&Contact) -> u64,
    ) -> fmt::Result {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (kind, contact) in self.iter() {
            let labels = [("kind", kind.as_str())];
            ConstCounter::new(value(contact)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn gauges(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        value: impl Fn(&Contact) -> usize,
    ) -> fmt::Result {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (kind, contact) in self.iter() {
            let value = i64::try_from(value(contact)).unwrap_or(i64::MAX);
            ConstGauge::new(value).encode(family.encode_family(&[("kind", kind.as_str())])?)?;
        }
        Ok(())
    }
}

impl Collector for Contacts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let encoder = &mut encoder;
        self.counters(encoder, "source_lists", "Requests for pages of lists", |c| load(&c.lists))?;
        self.counters(encoder, "source_watches", "Watches begun, streaming lists included", |c| {
            load(&c.watches)
        })?;
        self.counters(encoder, "source_errors", "Requests that failed", |c| load(&c.errors))?;
        self.counters(encoder, "source_relists", "Lists that were completed, the first included", |c| {
            load(&c.relists)
        })?;
        self.gauges(encoder, "source_objects", "Objects known", |c| c.objects.load(Ordering::Relaxed))?;
        self.gauges(
            encoder,
            "source_current",
            "1 while the kind is listed and watched without trouble",
            |c| usize::from(c.is_current.load(Ordering::Relaxed)),
        )?;
        let help = "Time since the API server said anything about the kind, bookmarks included";
        let unit = Some(&Unit::Seconds);
        let mut family = encoder.encode_descriptor("source_age", help, unit, MetricType::Gauge)?;
        for (kind, contact) in self.iter() {
            let Some(silence) = contact.silence() else { continue };
            let age = ConstGauge::new(silence.as_secs_f64());
            age.encode(family.encode_family(&[("kind", kind.as_str())])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_shows_each_kind() {
        let mut registry = Registry::with_prefix("mesh_apiserver");
        let contacts = Contacts::register(&mut registry);
        contacts.of(ObjectKind::Pod).errors.fetch_add(3, Ordering::Relaxed);
        for kind in [ObjectKind::Pod, ObjectKind::Node] {
            contacts.of(kind).is_followed.store(true, Ordering::Relaxed);
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("encode");
        assert!(text.contains("mesh_apiserver_source_errors_total{kind=\"Pod\"} 3"), "{text}");
        assert!(text.contains("mesh_apiserver_source_objects{kind=\"Node\"} 0"), "{text}");
        assert!(!text.contains("CiliumNode"), "what is not there is not out of date: {text}");
    }
}
