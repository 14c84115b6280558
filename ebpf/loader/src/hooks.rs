//! The embedded object and the programs in it.

/// The object that `build.rs` made of `ebpf/programs`, aligned as its parser wants it.
pub(crate) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sock_lb.o"));

/// The programs by name; each hook's kind is in the object. A link is pinned under its program's name.
pub const HOOKS: [&str; 8] = [
    // The way back is attached before the way there: a socket that is translated always finds its answers
    // translated too.
    "sock_recvmsg4",
    "sock_recvmsg6",
    "sock_getpeername4",
    "sock_getpeername6",
    "sock_sendmsg4",
    "sock_sendmsg6",
    "sock_connect4",
    "sock_connect6",
];
