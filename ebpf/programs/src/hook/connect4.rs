//! `connect` to an IPv4 address, TCP and UDP.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{forward::forward, sock_addr::Ip4};

/// Sends a connection to a frontend on to one of its backends.
#[cgroup_sock_addr(connect4)]
pub fn sock_connect4(ctx: SockAddrContext) -> i32 {
    forward::<Ip4>(&ctx)
}
