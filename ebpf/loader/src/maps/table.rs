//! A hash map.

use std::fmt::Debug;

use aya::maps::{HashMap, Map, MapData};
use ebpf_types::Plain;

use super::error::{MapError, is_absent};
use super::raw::Raw;
use super::wrong_kind;

/// A hash map from `K` to `V`. Every operation is one system call.
#[derive(Debug)]
pub struct Table<K: Plain, V: Plain> {
    name: &'static str,
    capacity: u32,
    map: HashMap<MapData, Raw<K>, Raw<V>>,
}

impl<K: Plain + Debug, V: Plain> Table<K, V> {
    pub(super) fn from_map(name: &'static str, (map, capacity): (Map, u32)) -> Result<Self, MapError> {
        Ok(Self { name, capacity, map: map.try_into().map_err(wrong_kind(name))? })
    }

    /// Writes an entry, new or in place of an old one. Fails with [`MapError::Full`] if there is no room.
    pub fn insert(&mut self, key: &K, value: &V) -> Result<(), MapError> {
        self.map.insert(Raw(*key), Raw(*value), 0).map_err(|error| {
            MapError::from_aya(self.name, "insert", format!("{key:?}"), self.capacity, error)
        })
    }

    /// Removes an entry; says whether it was there. Removing the absent succeeds.
    pub fn remove(&mut self, key: &K) -> Result<bool, MapError> {
        match self.map.remove(&Raw(*key)) {
            Ok(()) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => {
                Err(MapError::from_aya(self.name, "remove", format!("{key:?}"), self.capacity, error))
            }
        }
    }

    /// Reads an entry.
    pub fn get(&self, key: &K) -> Result<Option<V>, MapError> {
        match self.map.get(&Raw(*key), 0) {
            Ok(Raw(value)) => Ok(Some(value)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(MapError::from_aya(self.name, "get", format!("{key:?}"), self.capacity, error)),
        }
    }

    /// Reads everything, in no order: two system calls an entry. An entry that comes or goes meanwhile may or may
    /// not be among the result; in a map that the programs write, one may appear twice.
    pub fn dump(&self) -> Result<Vec<(K, V)>, MapError> {
        let mut entries = Vec::new();
        // The bound ends the walk when entries go under it, for then the kernel starts over.
        for entry in self.map.iter().take(self.capacity as usize) {
            match entry {
                Ok((Raw(key), Raw(value))) => entries.push((key, value)),
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(MapError::from_aya(self.name, "dump", "-", self.capacity, error)),
            }
        }
        Ok(entries)
    }

    /// How many entries the map holds at most.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }
}
