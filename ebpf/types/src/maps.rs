//! Names and capacities of the maps: the programs declare them, the loader checks them.
//!
//! A capacity is what a map is made with unless the loader is told otherwise; see `ebpf/README.md` for the table.

/// Pin name of the map from frontend to service entry.
pub const SERVICES: &str = "services";
/// Pin name of the flat array of backend ids.
pub const SLOTS: &str = "slots";
/// Pin name of the map from backend id to backend.
pub const BACKENDS: &str = "backends";
/// Pin name of the map from socket and backend to frontend.
pub const REVERSE: &str = "reverse";
/// Pin name of the map from prefix to identity.
pub const IPCACHE: &str = "ipcache";
/// Pin name of the counters.
pub const COUNTERS: &str = "counters";
/// Pin name of the one-entry array that holds [`LAYOUT_VERSION`](crate::LAYOUT_VERSION).
pub const LAYOUT: &str = "layout";

/// Frontends, as in Cilium (`--bpf-lb-map-max`).
pub const SERVICES_CAPACITY: usize = 65_536;
/// Slots over all services, 8 bytes each, allocated when the map is made.
pub const SLOTS_CAPACITY: usize = 1_048_576;
/// Backends; allocated as they come.
pub const BACKENDS_CAPACITY: usize = 1_000_000;
/// Pairs of socket and backend, as in Cilium (`--bpf-sock-rev-map-max`); allocated when the map is made.
pub const REVERSE_CAPACITY: usize = 262_144;
/// Prefixes, as in Cilium (`cilium_ipcache_v2`); allocated as they come.
pub const IPCACHE_CAPACITY: usize = 512_000;
/// Counters, with room for later ones.
pub const COUNTERS_CAPACITY: usize = 16;
