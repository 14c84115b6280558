//! What each pinned map must look like, and the check of what is there.

use std::mem::size_of;
use std::path::{Path, PathBuf};

use aya::maps::{Array, Map, MapData, MapInfo, MapType};
use ebpf_types::{
    Address, Backend, FrontendAddr, FrontendKey, IpcacheEntry, LAYOUT_VERSION, ReverseKey, ServiceEntry, maps,
};
use thiserror::Error;

use crate::data_plane::Capacities;
use crate::maps::MapError;
use crate::pin::maps_dir;

/// `BPF_F_NO_PREALLOC`: entries are allocated as they come.
const NO_PREALLOC: u32 = 1;

/// Holds what the kernel reports of a map that was made as we make it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MapSpec {
    /// The pin name.
    pub(crate) name: &'static str,
    /// Entries, as configured.
    pub(crate) max_entries: u32,
    map_type: MapType,
    key_size: usize,
    value_size: usize,
    flags: u32,
}

/// A pinned map is not what this version makes and reads.
#[derive(Debug, Error)]
#[error(
    "pinned map {}: {what} is {found}, expected {expected}; it was made by another version or with other settings: \
     start with the old ones, or stop the agent and remove the pin directory's `maps` and `links` (connections to \
     global services then go unbalanced until an agent runs again)",
    path.display()
)]
pub struct MapMismatch {
    /// Where the map is pinned.
    pub path: PathBuf,
    /// Which property differs.
    pub what: &'static str,
    /// What the kernel reports.
    pub found: String,
    /// What this version wants.
    pub expected: String,
}

/// The maps of the object, with these capacities.
pub(crate) fn specs(capacities: &Capacities) -> [MapSpec; 6] {
    let counters = maps::COUNTERS_CAPACITY as u32;
    [
        spec::<FrontendKey, ServiceEntry>(maps::SERVICES, MapType::Hash, capacities.services, NO_PREALLOC),
        spec::<u32, u32>(maps::SLOTS, MapType::Array, capacities.slots, 0),
        spec::<u32, Backend>(maps::BACKENDS, MapType::Hash, capacities.backends, NO_PREALLOC),
        spec::<ReverseKey, FrontendAddr>(maps::REVERSE, MapType::LruHash, capacities.reverse, 0),
        spec::<(u32, Address), IpcacheEntry>(
            maps::IPCACHE,
            MapType::LpmTrie,
            capacities.ipcache,
            NO_PREALLOC,
        ),
        spec::<u32, u64>(maps::COUNTERS, MapType::PerCpuArray, counters, 0),
    ]
}

fn spec<K, V>(name: &'static str, map_type: MapType, max_entries: u32, flags: u32) -> MapSpec {
    MapSpec { name, max_entries, map_type, key_size: size_of::<K>(), value_size: size_of::<V>(), flags }
}

/// Which part of a map must agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// Everything: the map is about to be used by our programs.
    Whole,
    /// All but the capacity: the map is about to be read.
    Shape,
}

/// Compares a pinned map with the specification. Says whether it is there.
pub(crate) fn check(pin_dir: &Path, spec: &MapSpec, check: Check) -> Result<bool, SpecError> {
    let path = maps_dir(pin_dir).join(spec.name);
    if !path
        .try_exists()
        .map_err(|source| SpecError::Read { path: path.clone(), source: Box::new(source) })?
    {
        return Ok(false);
    }
    let info = MapInfo::from_pin(&path).map_err(|source| SpecError::read(&path, source))?;
    let map_type = info.map_type().map_err(|source| SpecError::read(&path, source))?;
    let differs = |what, found: String, expected: String| {
        if found == expected {
            Ok(())
        } else {
            Err(MapMismatch { path: path.clone(), what, found, expected })
        }
    };
    differs("type", format!("{map_type:?}"), format!("{:?}", spec.map_type))?;
    differs("key size", info.key_size().to_string(), spec.key_size.to_string())?;
    differs("value size", info.value_size().to_string(), spec.value_size.to_string())?;
    differs("flags", format!("{:#x}", info.map_flags()), format!("{:#x}", spec.flags))?;
    if check == Check::Whole {
        differs("capacity", info.max_entries().to_string(), spec.max_entries.to_string())?;
    }
    Ok(true)
}

/// Checks the layout version; with `create`, writes it if no map is pinned yet.
///
/// The version is pinned before any other map and with its value already in it, so maps without it were not made
/// by us.
pub(crate) fn check_layout(pin_dir: &Path, specs: &[MapSpec], create: bool) -> Result<(), SpecError> {
    let path = maps_dir(pin_dir).join(maps::LAYOUT);
    let mismatch = |found: String| MapMismatch {
        path: path.clone(),
        what: "layout version",
        found,
        expected: LAYOUT_VERSION.to_string(),
    };
    if path.try_exists().map_err(|source| SpecError::Read { path: path.clone(), source: Box::new(source) })? {
        let data = MapData::from_pin(&path).map_err(|source| SpecError::read(&path, source))?;
        let map = Map::from_map_data(data).map_err(|source| SpecError::read(&path, source))?;
        let array: Array<_, u32> = map.try_into().map_err(|source| SpecError::read(&path, source))?;
        let found = array.get(&0, 0).map_err(|source| SpecError::read(&path, source))?;
        return if found == LAYOUT_VERSION { Ok(()) } else { Err(mismatch(found.to_string()).into()) };
    }
    let other = specs.iter().find(|spec| maps_dir(pin_dir).join(spec.name).exists());
    if let Some(other) = other {
        return Err(mismatch(format!("absent, though {} is pinned", other.name)).into());
    }
    if !create {
        return Err(mismatch("absent".to_owned()).into());
    }
    let failed = |source| MapError::from_aya(maps::LAYOUT, "create", "0", 1, source);
    let mut array = Array::<MapData, u32>::create(1, 0).map_err(failed)?;
    array.set(0, LAYOUT_VERSION, 0).map_err(failed)?;
    array.pin(&path).map_err(|source| SpecError::Pin { path: path.clone(), source: Box::new(source) })
}

/// Why the pinned maps cannot be judged or used.
#[derive(Debug, Error)]
pub(crate) enum SpecError {
    #[error(transparent)]
    Mismatch(#[from] MapMismatch),
    #[error(transparent)]
    Map(#[from] MapError),
    #[error("read pinned map {}", path.display())]
    Read { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("pin map {}", path.display())]
    Pin { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
}

impl SpecError {
    fn read(path: &Path, source: aya::maps::MapError) -> Self {
        Self::Read { path: path.to_owned(), source: Box::new(source) }
    }
}
