//! `recvmsg` and `recvfrom` on an AF_INET6 socket, UDP; IPv4 senders appear mapped.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{backward::backward, sock_addr::Ip6};

/// Shows the frontend as the sender of a datagram that a backend sent.
#[cgroup_sock_addr(recvmsg6)]
pub fn sock_recvmsg6(ctx: SockAddrContext) -> i32 {
    backward::<Ip6>(&ctx)
}
