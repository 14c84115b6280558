//! `cilium/state/identities/v1/id/<number>`: the labels that a number stands for.
//! Cilium `pkg/identity/cache/allocator.go`.

use super::{Origin, Rejected};
use crate::identity::Identity;
use crate::labels::{CLUSTER_LABEL, Labels};

/// Reads the number in a key.
///
/// Fails if it is not decimal, or not one that `origin` may allocate. It is checked on deletion too, so that
/// a cluster cannot withdraw another's identities.
pub fn decode_key(origin: &Origin, suffix: &str) -> Result<Identity, Rejected> {
    let decimal = suffix.bytes().all(|b| b.is_ascii_digit()).then(|| suffix.parse().ok()).flatten();
    decimal
        .map(Identity)
        .filter(|identity| identity.belongs_to(origin.id, origin.max))
        .ok_or_else(|| Rejected::malformed("identity", suffix, "a number in the range of the cluster's id"))
}

/// Reads the labels of an identity of `origin`.
///
/// Fails if they do not parse, or do not say that they live in that cluster.
pub fn decode_value(origin: &Origin, value: &[u8]) -> Result<Labels, Rejected> {
    let text = std::str::from_utf8(value).unwrap_or("\u{fffd}");
    let labels: Labels = text.parse().map_err(Rejected::Labels)?;
    if labels.say_cluster(&origin.cluster) {
        return Ok(labels);
    }
    let found = labels.get(CLUSTER_LABEL).map(|l| format!("{}:{}", l.source, l.value)).unwrap_or_default();
    Err(Rejected::Mismatch { member: CLUSTER_LABEL, found, expected: format!("k8s:{}", origin.cluster) })
}
