//! `recvmsg` and `recvfrom` on an AF_INET socket, UDP.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{backward::backward, sock_addr::Ip4};

/// Shows the frontend as the sender of a datagram that a backend sent.
#[cgroup_sock_addr(recvmsg4)]
pub fn sock_recvmsg4(ctx: SockAddrContext) -> i32 {
    backward::<Ip4>(&ctx)
}
