//! The kernel's maps as the programmer needs them, and a stand-in of the same behaviour in memory.

mod kernel;

use std::collections::BTreeMap;

use ebpf_types::{Backend, FrontendKey, IpcacheEntry, IpcacheKey, ServiceEntry};

/// One map operation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("map {map}: {what}")]
pub struct MapError {
    /// The map's name.
    pub map: &'static str,
    /// The key, the operation and what the kernel said.
    pub what: String,
}

/// All that is in the maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dump {
    /// Backends by id.
    pub backends: BTreeMap<u32, Backend>,
    /// Services by frontend.
    pub services: BTreeMap<FrontendKey, ServiceEntry>,
    /// Addresses and their identities.
    pub ipcache: BTreeMap<IpcacheKey, IpcacheEntry>,
}

/// What the programmer does with maps. Removing what is absent succeeds.
pub trait Maps {
    /// Reads everything. O(entries).
    fn dump(&mut self) -> Result<Dump, MapError>;
    /// Reads `count` slots from `offset` on: backend ids.
    fn slots(&mut self, offset: u32, count: u32) -> Result<Vec<u32>, MapError>;
    /// The number of slots.
    fn slot_capacity(&mut self) -> u32;
    /// Writes backend ids into slots from `offset` on.
    fn set_slots(&mut self, offset: u32, backends: &[u32]) -> Result<(), MapError>;
    /// Writes a backend.
    fn set_backend(&mut self, id: u32, backend: Backend) -> Result<(), MapError>;
    /// Removes a backend.
    fn remove_backend(&mut self, id: u32) -> Result<(), MapError>;
    /// Writes a service's entry: from here on, programs use its slice.
    fn set_service(&mut self, key: FrontendKey, entry: ServiceEntry) -> Result<(), MapError>;
    /// Removes a service.
    fn remove_service(&mut self, key: FrontendKey) -> Result<(), MapError>;
    /// Writes an address.
    fn set_address(&mut self, key: IpcacheKey, entry: IpcacheEntry) -> Result<(), MapError>;
    /// Removes an address.
    fn remove_address(&mut self, key: IpcacheKey) -> Result<(), MapError>;
}

/// Maps in memory, for tests and for looking at a plan's effect without a kernel. Clones are copies.
#[derive(Clone, Debug)]
pub struct MemoryMaps {
    dump: Dump,
    slots: Vec<u32>,
    /// When set, this many more writes succeed and all later ones fail, as with a full map.
    pub writes_left: Option<usize>,
}

impl MemoryMaps {
    /// Empty maps with this many slots.
    pub fn new(slots: u32) -> Self {
        Self { dump: Dump::default(), slots: vec![0; slots as usize], writes_left: None }
    }

    fn write(&mut self, map: &'static str) -> Result<&mut Dump, MapError> {
        match &mut self.writes_left {
            Some(0) => return Err(MapError { map, what: "no space left".to_owned() }),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(&mut self.dump)
    }

    fn slice(&mut self, offset: u32, count: usize) -> Result<&mut [u32], MapError> {
        let start = offset as usize;
        let capacity = self.slots.len();
        let slice = self.slots.get_mut(start..start + count);
        slice.ok_or_else(|| MapError { map: "slots", what: format!("{start}+{count} is beyond {capacity}") })
    }
}

impl Maps for MemoryMaps {
    fn dump(&mut self) -> Result<Dump, MapError> {
        Ok(self.dump.clone())
    }

    fn slots(&mut self, offset: u32, count: u32) -> Result<Vec<u32>, MapError> {
        Ok(self.slice(offset, count as usize)?.to_vec())
    }

    fn slot_capacity(&mut self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    fn set_slots(&mut self, offset: u32, backends: &[u32]) -> Result<(), MapError> {
        self.write("slots")?;
        self.slice(offset, backends.len())?.copy_from_slice(backends);
        Ok(())
    }

    fn set_backend(&mut self, id: u32, backend: Backend) -> Result<(), MapError> {
        self.write("backends")?.backends.insert(id, backend);
        Ok(())
    }

    fn remove_backend(&mut self, id: u32) -> Result<(), MapError> {
        self.dump.backends.remove(&id);
        Ok(())
    }

    fn set_service(&mut self, key: FrontendKey, entry: ServiceEntry) -> Result<(), MapError> {
        self.write("services")?.services.insert(key, entry);
        Ok(())
    }

    fn remove_service(&mut self, key: FrontendKey) -> Result<(), MapError> {
        self.dump.services.remove(&key);
        Ok(())
    }

    fn set_address(&mut self, key: IpcacheKey, entry: IpcacheEntry) -> Result<(), MapError> {
        self.write("ipcache")?.ipcache.insert(key, entry);
        Ok(())
    }

    fn remove_address(&mut self, key: IpcacheKey) -> Result<(), MapError> {
        self.dump.ipcache.remove(&key);
        Ok(())
    }
}
