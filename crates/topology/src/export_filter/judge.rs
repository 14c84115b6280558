//! The verdict on one record.

use std::borrow::Cow;
use std::collections::BTreeMap;

use prost::Message;
use serde::Deserialize;

use super::ExportFilter;
use crate::identity::Identity;
use crate::labels::{Labels, NAMESPACE_LABEL};
use crate::record::slice::{self, SliceValue};
use crate::record::{Kind, key};

/// Whether a peer is shown a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Shown,
    /// The filter hides it.
    Hidden,
    /// It is not, since nobody can say what it is about.
    Unreadable,
}

/// Keys that begin so are shown whatever they hold: who a cluster is, its nodes, and whether its hub lives.
pub const ALWAYS_SHOWN: [&str; 4] =
    [key::HEARTBEAT, key::CLUSTER_CONFIG, key::SYNCED, "cilium/state/nodes/v1/"];

/// Holds what is judged of a service. Everything else in the value is skipped, but must be JSON.
#[derive(Deserialize)]
struct ServiceFacts<'a> {
    #[serde(borrow)]
    namespace: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    labels: Option<BTreeMap<Cow<'a, str>, Cow<'a, str>>>,
}

/// Holds what is judged of an address.
#[derive(Deserialize)]
struct IpFacts<'a> {
    #[serde(rename = "K8sNamespace", borrow, default)]
    namespace: Option<Cow<'a, str>>,
}

impl ExportFilter {
    /// The verdict on a record. O(patterns + value); no allocation that outlives it.
    ///
    /// A value that says it is another object than its key does is unreadable.
    pub fn judge(&self, key: &[u8], value: &[u8]) -> Verdict {
        let Ok(key) = std::str::from_utf8(key) else { return Verdict::Unreadable };
        if ALWAYS_SHOWN.iter().any(|prefix| key.starts_with(prefix)) {
            return Verdict::Shown;
        }
        let found = if let Some(state) = key.strip_prefix(key::STATE) {
            self.judge_state(state, value)
        } else {
            key.strip_prefix(key::SHARED).and_then(|shared| self.judge_shared(shared))
        };
        match found {
            Some(true) => Verdict::Shown,
            Some(false) => Verdict::Hidden,
            None => Verdict::Unreadable,
        }
    }

    /// `None` if nobody can say.
    fn judge_state(&self, key: &str, value: &[u8]) -> Option<bool> {
        let of = |kind: Kind| key.strip_prefix(kind.segment())?.strip_prefix('/');
        if let Some(address) = of(Kind::Ip) {
            self.judge_ip(address, value)
        } else if let Some(number) = of(Kind::Identities) {
            self.judge_identity(number, value)
        } else if let Some(service) = of(Kind::Services) {
            self.judge_service(service, value)
        } else if let Some(slice) = of(Kind::EndpointSlices) {
            self.judge_slice(slice, value)
        } else {
            None
        }
    }

    fn judge_service(&self, key: &str, value: &[u8]) -> Option<bool> {
        let (namespace, name) = object(key)?;
        // Most of what is hidden is hidden by its name, which needs no reading.
        if !self.namespaces.admit_name(namespace) || !self.services.admit_service(namespace, name) {
            return Some(false);
        }
        let facts: ServiceFacts<'_> = serde_json::from_slice(value).ok()?;
        let labels = facts.labels.unwrap_or_default();
        (facts.namespace == namespace && facts.name == name)
            .then(|| self.labels.matches(|key| labels.get(key).map(AsRef::as_ref)))
    }

    fn judge_slice(&self, key: &str, value: &[u8]) -> Option<bool> {
        let (namespace, name) = object(key)?;
        if !self.namespaces.admit_name(namespace) {
            return Some(false);
        }
        let message = slice::decompress(value).ok()?;
        let slice = SliceValue::decode(message.as_slice()).ok()?;
        if slice.namespace != namespace || slice.name != name {
            return None;
        }
        // As in a map of Go, the last one of a key counts.
        let label = |key: &str| {
            slice.labels.iter().rev().find(|entry| entry.key == key).map(|entry| entry.value.as_str())
        };
        let is_admitted = match label(SERVICE_NAME_LABEL) {
            Some(service) => self.services.admit_service(namespace, service),
            None => self.services.is_empty(),
        };
        Some(is_admitted && self.labels.matches(label))
    }

    fn judge_identity(&self, key: &str, value: &[u8]) -> Option<bool> {
        key.strip_prefix("id/")?.parse().ok().map(Identity)?;
        let labels: Labels = std::str::from_utf8(value).ok()?.parse().ok()?;
        let label =
            |key: &str| labels.get(key).filter(|label| label.source == "k8s").map(|l| l.value.as_str());
        let is_admitted = match label(NAMESPACE_LABEL) {
            Some(namespace) => self.namespaces.admit_name(namespace),
            None => self.namespaces.is_empty(),
        };
        Some(is_admitted && self.labels.matches(label))
    }

    fn judge_ip(&self, key: &str, value: &[u8]) -> Option<bool> {
        key.strip_prefix("default/")?;
        let facts: IpFacts<'_> = serde_json::from_slice(value).ok()?;
        let namespace = facts.namespace.filter(|namespace| !namespace.is_empty());
        Some(namespace.is_none_or(|namespace| self.namespaces.admit_name(&namespace)))
    }

    /// Below `services/` the key names a service; it has no labels, so a filter by label hides it. The rest speaks of
    /// the cluster as a whole.
    fn judge_shared(&self, key: &str) -> Option<bool> {
        let Some(service) = key.strip_prefix("services/") else { return Some(true) };
        let mut parts = service.split('/');
        let (namespace, name) = (parts.next()?, parts.next()?);
        let is_admitted =
            self.namespaces.admit_name(namespace) && self.services.admit_service(namespace, name);
        Some(is_admitted && self.labels.is_empty())
    }
}

/// Namespace and name in `<cluster>/<namespace>/<name>`.
fn object(key: &str) -> Option<(&str, &str)> {
    let (_cluster, object) = key.split_once('/')?;
    object.split_once('/').filter(|(_, name)| !name.contains('/'))
}

/// The label by which Kubernetes says whose slice it is.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
