//! `connect` on an AF_INET6 socket, TCP and UDP; an IPv4-mapped destination is found like an IPv4 one.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{forward::forward, sock_addr::Ip6};

/// Sends a connection to a frontend on to one of its backends.
#[cgroup_sock_addr(connect6)]
pub fn sock_connect6(ctx: SockAddrContext) -> i32 {
    forward::<Ip6>(&ctx)
}
