//! The programs' counters.

use std::fmt;

use aya::maps::{Map, MapData, PerCpuArray};
use ebpf_types::Counter;
use ebpf_types::maps::{COUNTERS, COUNTERS_CAPACITY};

use super::error::MapError;
use super::wrong_kind;

/// What the programs counted, summed over the CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters([u64; Counter::ALL.len()]);

impl Counters {
    /// One counter.
    pub fn get(&self, counter: Counter) -> u64 {
        self.0.get(counter.index() as usize).copied().unwrap_or(0)
    }

    /// All counters, in order of their index.
    pub fn iter(&self) -> impl Iterator<Item = (Counter, u64)> + '_ {
        Counter::ALL.into_iter().zip(self.0)
    }
}

/// The per-CPU array behind them.
pub(super) struct CounterMap(PerCpuArray<MapData, u64>);

impl fmt::Debug for CounterMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CounterMap").finish_non_exhaustive()
    }
}

impl CounterMap {
    pub(super) fn from_map((map, _): (Map, u32)) -> Result<Self, MapError> {
        map.try_into().map(Self).map_err(wrong_kind(COUNTERS))
    }

    pub(super) fn sum(&self) -> Result<Counters, MapError> {
        let mut counters = Counters::default();
        for (counter, sum) in Counter::ALL.into_iter().zip(&mut counters.0) {
            let values = self.0.get(&counter.index(), 0).map_err(|error| {
                MapError::from_aya(COUNTERS, "read", counter.name(), COUNTERS_CAPACITY as u32, error)
            })?;
            *sum = values.iter().fold(0, |sum: u64, value| sum.wrapping_add(*value));
        }
        Ok(counters)
    }
}
