//! The store at etcd, against Debian's etcd: followed through pauses, crashes and compactions, and written by one.

mod following;
mod members;
mod server;
mod writing;
