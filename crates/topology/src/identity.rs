//! Numeric security identities, and which cluster owns which numbers.

use std::fmt;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::cluster::{ClusterId, MaxClusters};

/// A numeric security identity as Cilium numbers them (`pkg/identity/numericidentity.go`): 24 bits, the
/// upper 8 (or 9) of which are the cluster's id. Numbers below 256 are reserved and mean the same
/// everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Identity(pub u32);

impl Identity {
    /// The reserved identity of an unknown source.
    pub const UNKNOWN: Self = Self(0);
    /// The reserved identity of the own host.
    pub const HOST: Self = Self(1);
    /// The reserved identity of whatever is outside every cluster.
    pub const WORLD: Self = Self(2);
    /// The reserved identity of any other node, of this cluster or another.
    pub const REMOTE_NODE: Self = Self(6);
    /// The lowest number that a cluster can allocate.
    pub const MIN_ALLOCATED: u32 = 256;

    /// True for the numbers that mean the same in every cluster.
    pub fn is_reserved(self) -> bool {
        self.0 < Self::MIN_ALLOCATED
    }

    /// The numbers that `cluster` may allocate.
    pub fn range_of(cluster: ClusterId, max: MaxClusters) -> RangeInclusive<u32> {
        let first = u32::from(cluster.get()) << max.identity_shift();
        first..=first + (1 << max.identity_shift()) - 1
    }

    /// True if `cluster` may allocate this number.
    pub fn belongs_to(self, cluster: ClusterId, max: MaxClusters) -> bool {
        Self::range_of(cluster, max).contains(&self.0)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u32) -> ClusterId {
        ClusterId::try_from(n).expect("in range")
    }

    #[test]
    fn ranges_are_as_published() {
        // `pkg/clustermesh/types/types.go`, with the examples of the recorded data.
        assert!(Identity(199_472).belongs_to(id(3), MaxClusters::N255));
        assert!(Identity(589_825).belongs_to(id(9), MaxClusters::N255));
        assert_eq!(Identity::range_of(id(9), MaxClusters::N511), 294_912..=327_679);
        assert_eq!(Identity::range_of(id(511), MaxClusters::N511), 16_744_448..=16_777_215);
        assert!(!Identity(589_825).belongs_to(id(8), MaxClusters::N255));
    }
}
