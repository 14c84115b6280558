//! `sendmsg` and `sendto` with an IPv6 destination, UDP. The kernel takes IPv4-mapped ones to `sendmsg4`.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{forward::forward, sock_addr::Ip6};

/// Sends a datagram to a frontend on to one of its backends.
#[cgroup_sock_addr(sendmsg6)]
pub fn sock_sendmsg6(ctx: SockAddrContext) -> i32 {
    forward::<Ip6>(&ctx)
}
