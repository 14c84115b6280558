//! Typed access to the maps.

mod counters;
mod error;
mod ipcache;
mod raw;
mod slots;
mod table;

use std::path::Path;

use aya::maps::{Map, MapData};
use aya::{Ebpf, maps as aya_maps};
use ebpf_types::{Backend, FrontendAddr, FrontendKey, ReverseKey, ServiceEntry, maps};

use crate::data_plane::{Capacities, OpenError};
use crate::map_spec::{Check, check, check_layout, specs};
use crate::pin::maps_dir;

pub use counters::Counters;
pub use error::MapError;
pub use ipcache::Ipcache;
pub use slots::Slots;
pub use table::Table;

/// All maps. Each field is borrowed by itself, so one can be written while another is read.
#[derive(Debug)]
pub struct Maps {
    /// Frontend → where its slots are.
    pub services: Table<FrontendKey, ServiceEntry>,
    /// Slot → backend id.
    pub slots: Slots,
    /// Backend id → backend.
    pub backends: Table<u32, Backend>,
    /// Socket and backend → frontend. Written by the programs; read it for diagnosis only.
    pub reverse: Table<ReverseKey, FrontendAddr>,
    /// Prefix → identity.
    pub ipcache: Ipcache,
    counters: counters::CounterMap,
}

impl Maps {
    /// Opens the maps that an agent pinned, beside that agent: for status and diagnosis.
    ///
    /// Fails if there are none or if they are of another version. Does not lock; whoever writes here writes behind
    /// the agent's back.
    pub fn open_pinned(pin_dir: &Path) -> Result<Self, OpenError> {
        let specs = specs(&Capacities::default());
        check_layout(pin_dir, &specs, false)?;
        for spec in &specs {
            check(pin_dir, spec, Check::Shape)?;
        }
        Self::from_maps(|name| {
            let path = maps_dir(pin_dir).join(name);
            let data = MapData::from_pin(&path).and_then(|data| {
                let capacity = data.info()?.max_entries();
                Ok((Map::from_map_data(data)?, capacity))
            });
            data.map_err(|source| OpenError::Pinned { action: "read", path, source: source.into() })
        })
    }

    /// Takes the maps out of a loaded object.
    pub(crate) fn take(object: &mut Ebpf, capacities: &Capacities) -> Result<Self, OpenError> {
        let specs = specs(capacities);
        Self::from_maps(|name| {
            let missing = || OpenError::Object(format!("no map {name} in it").into());
            let spec = specs.iter().find(|spec| spec.name == name).ok_or_else(missing)?;
            Ok((object.take_map(name).ok_or_else(missing)?, spec.max_entries))
        })
    }

    /// What the programs counted since the maps were made, over all CPUs.
    pub fn counters(&self) -> Result<Counters, MapError> {
        self.counters.sum()
    }

    fn from_maps(
        mut open: impl FnMut(&'static str) -> Result<(Map, u32), OpenError>,
    ) -> Result<Self, OpenError> {
        Ok(Self {
            services: Table::from_map(maps::SERVICES, open(maps::SERVICES)?)?,
            slots: Slots::from_map(open(maps::SLOTS)?)?,
            backends: Table::from_map(maps::BACKENDS, open(maps::BACKENDS)?)?,
            reverse: Table::from_map(maps::REVERSE, open(maps::REVERSE)?)?,
            ipcache: Ipcache::from_map(open(maps::IPCACHE)?)?,
            counters: counters::CounterMap::from_map(open(maps::COUNTERS)?)?,
        })
    }
}

/// A map of the wrong kind was handed to a typed one.
fn wrong_kind(map: &'static str) -> impl FnOnce(aya_maps::MapError) -> MapError {
    move |source| MapError::from_aya(map, "open", "-", 0, source)
}
