//! How much is measured.

use std::time::Duration;

/// Holds the sizes of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scale {
    /// `ip` records.
    pub(super) records: u64,
    /// `ip` records of a store that only the hub is asked to bear.
    pub(super) records_hub: Option<u64>,
    /// `services` records.
    pub(super) services: u64,
    /// How often a list is repeated.
    pub(super) lists: u32,
    /// How long writers write.
    pub(super) writing: Duration,
    /// Most puts of a flood.
    pub(super) flood: u64,
    /// Watchers of the large fan-outs, whose targets are those of 500.
    pub(super) many: usize,
    /// Watchers of the largest, if any.
    pub(super) most: Option<usize>,
    /// Clients that start at once.
    pub(super) cold: usize,
    /// More clients that start at once; only the hub is asked to bear it.
    pub(super) cold_hub: Option<usize>,
}

impl Scale {
    /// What the targets are about.
    pub(super) fn full() -> Self {
        Self {
            records: 100_000,
            records_hub: Some(500_000),
            services: 5_000,
            lists: 3,
            writing: Duration::from_secs(4),
            flood: 10_000,
            many: 500,
            most: Some(1000),
            cold: 100,
            cold_hub: Some(500),
        }
    }

    /// A look at the orders of magnitude.
    pub(super) fn quick() -> Self {
        Self {
            records: 20_000,
            records_hub: None,
            services: 1_000,
            lists: 2,
            writing: Duration::from_secs(2),
            flood: 2_000,
            most: None,
            cold: 20,
            cold_hub: None,
            ..Self::full()
        }
    }
}
