//! `sendmsg` and `sendto` with an IPv4 destination, UDP.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{forward::forward, sock_addr::Ip4};

/// Sends a datagram to a frontend on to one of its backends.
#[cgroup_sock_addr(sendmsg4)]
pub fn sock_sendmsg4(ctx: SockAddrContext) -> i32 {
    forward::<Ip4>(&ctx)
}
