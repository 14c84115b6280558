//! The way back: from the backend in a call to the frontend that the socket asked for.

use aya_ebpf::programs::SockAddrContext;
use ebpf_types::{Counter, ReverseKey};

use crate::{
    PASS,
    count::count,
    maps::REVERSE,
    sock_addr::{Family, cookie, port_be, protocol, set_port_be},
};

/// Replaces the backend in a `recvmsg` or `getpeername` call by the frontend that this socket asked for.
///
/// Always passes: the kernel accepts no other verdict in these hooks.
#[inline(always)]
pub fn backward<F: Family>(ctx: &SockAddrContext) -> i32 {
    let Some(protocol) = protocol(ctx) else { return PASS };
    let key = ReverseKey {
        cookie: cookie(ctx),
        address: F::address(ctx),
        port_be: port_be(ctx),
        protocol: protocol.number(),
        pad: 0,
        pad_word: 0,
    };
    // SAFETY: the value is copied at once; only calls on this very socket write this key.
    let Some(frontend) = unsafe { REVERSE.get(key) }.copied() else { return PASS };
    F::set_address(ctx, &frontend.address);
    set_port_be(ctx, frontend.port_be);
    count(Counter::ReverseTranslated);
    PASS
}
