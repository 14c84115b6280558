//! `getpeername` on an AF_INET6 socket; IPv4 peers appear mapped.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{backward::backward, sock_addr::Ip6};

/// Shows the frontend that the socket was connected to.
#[cgroup_sock_addr(getpeername6)]
pub fn sock_getpeername6(ctx: SockAddrContext) -> i32 {
    backward::<Ip6>(&ctx)
}
