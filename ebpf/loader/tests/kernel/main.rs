//! The data plane in the running kernel, with traffic on loopback.
//!
//! These tests need root, a bpffs at /sys/fs/bpf and cgroup v2; without them they fail and say so. Every test makes
//! a cgroup and a pin directory of its own and removes them, also when it fails; what a killed run left is removed
//! by the next one.

mod adoption;
mod fixture;
mod map_access;
mod removal;
mod translation;
