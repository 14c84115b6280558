//! The kernel's maps, through the loader.

use ebpf_loader::DataPlane;
use ebpf_types::{Backend, FrontendKey, IpcacheEntry, IpcacheKey, ServiceEntry};

use super::{Dump, MapError, Maps};

impl Maps for DataPlane {
    fn dump(&mut self) -> Result<Dump, MapError> {
        let maps = self.maps();
        Ok(Dump {
            backends: maps.backends.dump().map_err(of("backends"))?.into_iter().collect(),
            services: maps.services.dump().map_err(of("services"))?.into_iter().collect(),
            ipcache: maps.ipcache.dump().map_err(of("ipcache"))?.into_iter().collect(),
        })
    }

    fn slots(&mut self, offset: u32, count: u32) -> Result<Vec<u32>, MapError> {
        self.maps().slots.read(offset, count).map_err(of("slots"))
    }

    fn slot_capacity(&mut self) -> u32 {
        self.maps().slots.capacity()
    }

    fn set_slots(&mut self, offset: u32, backends: &[u32]) -> Result<(), MapError> {
        self.maps().slots.write(offset, backends).map_err(of("slots"))
    }

    fn set_backend(&mut self, id: u32, backend: Backend) -> Result<(), MapError> {
        self.maps().backends.insert(&id, &backend).map_err(of("backends"))
    }

    fn remove_backend(&mut self, id: u32) -> Result<(), MapError> {
        self.maps().backends.remove(&id).map(drop).map_err(of("backends"))
    }

    fn set_service(&mut self, key: FrontendKey, entry: ServiceEntry) -> Result<(), MapError> {
        self.maps().services.insert(&key, &entry).map_err(of("services"))
    }

    fn remove_service(&mut self, key: FrontendKey) -> Result<(), MapError> {
        self.maps().services.remove(&key).map(drop).map_err(of("services"))
    }

    fn set_address(&mut self, key: IpcacheKey, entry: IpcacheEntry) -> Result<(), MapError> {
        self.maps().ipcache.insert(&key, &entry).map_err(of("ipcache"))
    }

    fn remove_address(&mut self, key: IpcacheKey) -> Result<(), MapError> {
        self.maps().ipcache.remove(&key).map(drop).map_err(of("ipcache"))
    }
}

fn of(map: &'static str) -> impl Fn(ebpf_loader::MapError) -> MapError {
    move |error| MapError { map, what: mesh_runtime::Chain(&error).to_string() }
}
