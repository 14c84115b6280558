//! All maps. Layouts are in `ebpf-types`; the loader pins each by its name and may change the capacities.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray};
use aya_ebpf::macros::btf_map;
use ebpf_types::maps::{
    BACKENDS_CAPACITY, COUNTERS_CAPACITY, IPCACHE_CAPACITY, REVERSE_CAPACITY, SERVICES_CAPACITY,
    SLOTS_CAPACITY,
};
use ebpf_types::{Address, Backend, FrontendAddr, FrontendKey, IpcacheEntry, ReverseKey, ServiceEntry};

const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

/// Maps a frontend to the slice of `slots` with its backends. Written by user space.
#[btf_map(name = "services")]
pub static SERVICES: HashMap<FrontendKey, ServiceEntry, SERVICES_CAPACITY, NO_PREALLOC> = HashMap::new();

/// Maps a slot to a backend id, 0 if empty: the slices of all services in one array. Written by user space.
#[btf_map(name = "slots")]
pub static SLOTS: Array<u32, SLOTS_CAPACITY> = Array::new();

/// Maps a backend id to the backend. Written by user space.
#[btf_map(name = "backends")]
pub static BACKENDS: HashMap<u32, Backend, BACKENDS_CAPACITY, NO_PREALLOC> = HashMap::new();

/// Maps a socket and its backend to the frontend that was asked for. Written here.
#[btf_map(name = "reverse")]
pub static REVERSE: LruHashMap<ReverseKey, FrontendAddr, REVERSE_CAPACITY> = LruHashMap::new();

/// Maps a prefix to identity, cluster and node. Written by user space; no program reads it yet.
#[btf_map(name = "ipcache")]
pub static IPCACHE: LpmTrie<Address, IpcacheEntry, IPCACHE_CAPACITY> = LpmTrie::new();

/// Maps a `Counter` to how often it happened on each CPU. Written here.
#[btf_map(name = "counters")]
pub static COUNTERS: PerCpuArray<u64, COUNTERS_CAPACITY> = PerCpuArray::new();
