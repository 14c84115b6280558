//! The flat array of backend ids.

use std::fmt;

use aya::maps::{Array, Map, MapData};
use ebpf_types::maps::SLOTS;

use super::error::MapError;
use super::wrong_kind;

/// The array of slots. Slot 0 is an ordinary slot; a slot that holds 0 is empty.
pub struct Slots {
    capacity: u32,
    map: Array<MapData, u32>,
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

impl Slots {
    pub(super) fn from_map((map, capacity): (Map, u32)) -> Result<Self, MapError> {
        Ok(Self { capacity, map: map.try_into().map_err(wrong_kind(SLOTS))? })
    }

    /// Writes backend ids from `offset` on, one system call each. Writes nothing if they reach beyond the end.
    pub fn write(&mut self, offset: u32, backend_ids: &[u32]) -> Result<(), MapError> {
        self.require_range(offset, backend_ids.len() as u64)?;
        for (index, id) in (offset..).zip(backend_ids) {
            self.map.set(index, id, 0).map_err(|error| {
                MapError::from_aya(SLOTS, "write", index.to_string(), self.capacity, error)
            })?;
        }
        Ok(())
    }

    /// Reads `count` backend ids from `offset` on, one system call each.
    pub fn read(&self, offset: u32, count: u32) -> Result<Vec<u32>, MapError> {
        let end = self.require_range(offset, count.into())?;
        (offset..end)
            .map(|index| {
                self.map.get(&index, 0).map_err(|error| {
                    MapError::from_aya(SLOTS, "read", index.to_string(), self.capacity, error)
                })
            })
            .collect()
    }

    /// How many slots there are.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The index after the last, if the range lies within the array.
    fn require_range(&self, offset: u32, count: u64) -> Result<u32, MapError> {
        let end = u64::from(offset) + count;
        match u32::try_from(end) {
            Ok(end) if end <= self.capacity => Ok(end),
            _ => Err(MapError::OutOfRange { map: SLOTS, index: end, capacity: self.capacity }),
        }
    }
}
