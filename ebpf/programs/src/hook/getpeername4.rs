//! `getpeername` on an AF_INET socket.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{backward::backward, sock_addr::Ip4};

/// Shows the frontend that the socket was connected to.
#[cgroup_sock_addr(getpeername4)]
pub fn sock_getpeername4(ctx: SockAddrContext) -> i32 {
    backward::<Ip4>(&ctx)
}
