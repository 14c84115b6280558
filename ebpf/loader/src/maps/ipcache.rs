//! The trie of prefixes.

use std::net::IpAddr;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Map, MapData};
use ebpf_types::maps::IPCACHE;
use ebpf_types::{Address, IpcacheEntry, IpcacheKey};

use super::error::{MapError, is_absent};
use super::raw::Raw;
use super::wrong_kind;

/// The trie from prefix to identity; the longest prefix wins. Every operation but `dump` is one system call.
#[derive(Debug)]
pub struct Ipcache {
    capacity: u32,
    map: LpmTrie<MapData, Raw<Address>, Raw<IpcacheEntry>>,
}

impl Ipcache {
    pub(super) fn from_map((map, capacity): (Map, u32)) -> Result<Self, MapError> {
        Ok(Self { capacity, map: map.try_into().map_err(wrong_kind(IPCACHE))? })
    }

    /// Writes the entry of exactly this prefix, new or in place of an old one. Fails with [`MapError::Full`] if
    /// there is no room.
    pub fn insert(&mut self, key: &IpcacheKey, value: &IpcacheEntry) -> Result<(), MapError> {
        self.map
            .insert(&kernel_key(key), Raw(*value), 0)
            .map_err(|error| MapError::from_aya(IPCACHE, "insert", show(key), self.capacity, error))
    }

    /// Removes the entry of exactly this prefix; says whether it was there. Removing the absent succeeds.
    pub fn remove(&mut self, key: &IpcacheKey) -> Result<bool, MapError> {
        match self.map.remove(&kernel_key(key)) {
            Ok(()) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(MapError::from_aya(IPCACHE, "remove", show(key), self.capacity, error)),
        }
    }

    /// The entry of the longest prefix that contains an address, as a program would find it.
    pub fn lookup(&self, ip: IpAddr) -> Result<Option<IpcacheEntry>, MapError> {
        let key = IpcacheKey::host(ip);
        match self.map.get(&kernel_key(&key), 0) {
            Ok(Raw(entry)) => Ok(Some(entry)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(MapError::from_aya(IPCACHE, "look up", show(&key), self.capacity, error)),
        }
    }

    /// Reads everything: two system calls an entry.
    pub fn dump(&self) -> Result<Vec<(IpcacheKey, IpcacheEntry)>, MapError> {
        let mut entries = Vec::new();
        for entry in self.map.iter().take(self.capacity as usize) {
            match entry {
                Ok((key, Raw(value))) => {
                    let Raw(address) = key.data();
                    entries.push((IpcacheKey { prefix_len: key.prefix_len(), address }, value));
                }
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(MapError::from_aya(IPCACHE, "dump", "-", self.capacity, error)),
            }
        }
        Ok(entries)
    }

    /// How many prefixes the map holds at most.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }
}

fn kernel_key(key: &IpcacheKey) -> Key<Raw<Address>> {
    Key::new(key.prefix_len, Raw(key.address))
}

fn show(key: &IpcacheKey) -> String {
    let (ip, len) = key.prefix();
    format!("{ip}/{len}")
}
