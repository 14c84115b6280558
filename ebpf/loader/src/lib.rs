//! Brings the socket load balancer into the kernel and keeps its maps.
//!
//! This is the only crate that knows aya. It embeds the BPF object that its `build.rs` made of `ebpf/programs`,
//! and gives the rest of the project plain Rust types:
//!
//! ```text
//!   Config { pin_dir, cgroup, capacities }
//!      |
//!   DataPlane::open          pin_dir (on a bpffs)
//!      |-- maps    adopt or create   maps/{layout,services,slots,backends,reverse,ipcache,counters}
//!      |-- links   update or attach  links/{sock_connect4,sock_connect6,sock_sendmsg4, ...}
//!      v
//!   Maps { services, slots, backends, reverse, ipcache }   typed insert, remove, get, dump
//! ```
//!
//! - **Traffic outlives the process.** Maps and links are pinned; the kernel goes on translating when the agent is
//!   killed, and the next one adopts what it finds.
//! - **A restart leaves no gap.** The program behind a pinned link is exchanged in one step (BPF_LINK_UPDATE).
//! - **Never used blindly.** A pinned map of another type, size, capacity or layout version is an error that says
//!   what was found, what was expected and what to do.
//! - **Exactly one cgroup.** The programs run for the processes in the configured cgroup and below it.
//! - **One writer.** A lock on the pin directory keeps a second agent out; readers use [`Maps::open_pinned`].
//!
//! All calls are short system calls that do not wait; [`DataPlane::open`] takes 30 to 110 ms and belongs to the
//! start of a process.

mod cleanup;
mod data_plane;
mod hooks;
mod link;
mod map_spec;
mod maps;
mod pin;
mod sys;

pub use cleanup::{CleanupError, cleanup};
pub use data_plane::{Capacities, Config, DataPlane, OpenError};
pub use hooks::HOOKS;
pub use link::{LinkError, LinkState};
pub use map_spec::MapMismatch;
pub use maps::{Counters, Ipcache, MapError, Maps, Slots, Table};
pub use pin::PinError;

pub use ebpf_types as types;
