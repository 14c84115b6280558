//! The store at etcd, against Debian's etcd: followed through pauses, crashes and compactions, and written by one.

#[path = "etcd/server.rs"]
mod server;

#[path = "etcd/following.rs"]
mod following;

#[path = "etcd/writing.rs"]
mod writing;
