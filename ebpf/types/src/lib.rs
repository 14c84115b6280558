//! The layouts that the BPF programs and user space share.
//!
//! Everything here lies in a BPF map byte for byte, written by one side and read by the other:
//!
//! ```text
//!           services                slots                 backends
//!  FrontendKey -> ServiceEntry -> [id][id][id] .. -> id -> Backend
//!   VIP, port,     offset, count    a slice of          address, port
//!   protocol                        one flat array
//!
//!           reverse                                ipcache
//!  ReverseKey -> FrontendAddr       IpcacheKey -> IpcacheEntry
//!   cookie and    the VIP that       prefix        identity, cluster,
//!   the peer      was asked for                    node
//! ```
//!
//! Rules that hold for every struct:
//! - integers and byte arrays only, padding is explicit and zero (a hash map compares all bytes of a key);
//! - addresses are 16 bytes; an IPv4 address is written IPv4-mapped, so one map serves both families;
//! - ports are in network order (the fields are called `port_be`), everything else in host order;
//! - sizes and offsets are asserted when this crate is compiled.
//!
//! STABLE FORMAT: maps stay pinned when the agent is replaced, so a new agent meets the maps of an old one.
//! Whoever changes a layout, a meaning or a map's type raises [`LAYOUT_VERSION`].
#![no_std]

mod address;
mod backend;
mod counter;
mod frontend;
mod ipcache;
pub mod maps;
mod plain;
mod reverse;

pub use address::{Address, Protocol};
pub use backend::Backend;
pub use counter::Counter;
pub use frontend::{FrontendAddr, FrontendKey, ServiceEntry};
pub use ipcache::{IpcacheEntry, IpcacheKey};
pub use plain::Plain;
pub use reverse::ReverseKey;

/// Version of all layouts in this crate together, stored in the map [`maps::LAYOUT`] when the maps are made.
/// A loader that finds another number refuses the maps.
pub const LAYOUT_VERSION: u32 = 1;
