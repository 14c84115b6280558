//! The way there: from the frontend in a call to a backend.

use aya_ebpf::{bindings::BPF_ANY, helpers::bpf_set_retval, programs::SockAddrContext};
use ebpf_types::{Backend, Counter, FrontendAddr, FrontendKey, Protocol, ReverseKey};

use crate::{
    PASS, REFUSE,
    choose::choose,
    count::count,
    maps::{REVERSE, SERVICES},
    sock_addr::{Family, cookie, port_be, protocol, set_port_be},
};

/// Linux's number for "connection refused".
const ECONNREFUSED: i32 = 111;

/// Replaces a frontend of ours in a `connect` or `sendmsg` call by one of its backends.
///
/// Without a usable backend the call fails with ECONNREFUSED; whatever is not a frontend passes.
#[inline(always)]
pub fn forward<F: Family>(ctx: &SockAddrContext) -> i32 {
    let Some(protocol) = protocol(ctx) else { return PASS };
    let frontend =
        FrontendKey { address: F::address(ctx), port_be: port_be(ctx), protocol: protocol.number(), pad: 0 };
    // SAFETY: the value is copied at once; user space replaces entries as a whole.
    let Some(service) = unsafe { SERVICES.get(frontend) }.copied() else { return PASS };

    let cookie = cookie(ctx);
    let Some(backend) = choose(&service, protocol, cookie, frontend.address.is_ip4()) else {
        count(Counter::NoBackend);
        // SAFETY: the helper sets the error of this call; it is allowed in connect and sendmsg hooks. Should it
        // fail, the kernel gives EPERM, which refuses as well.
        unsafe { bpf_set_retval(-ECONNREFUSED) };
        return REFUSE;
    };
    let backend = *backend;
    remember(cookie, &frontend, &backend);
    F::set_address(ctx, &backend.address);
    set_port_be(ctx, backend.port_be);
    count(match protocol {
        Protocol::Tcp => Counter::TranslatedTcp,
        Protocol::Udp => Counter::TranslatedUdp,
    });
    PASS
}

/// Notes which frontend the socket asked for, unless that is noted already: a socket that sends many datagrams
/// writes once.
#[inline(always)]
fn remember(cookie: u64, frontend: &FrontendKey, backend: &Backend) {
    let key = ReverseKey {
        cookie,
        address: backend.address,
        port_be: backend.port_be,
        protocol: frontend.protocol,
        pad: 0,
        pad_word: 0,
    };
    let value = FrontendAddr { address: frontend.address, port_be: frontend.port_be, pad: 0 };
    // SAFETY: the value is compared at once; only calls on this very socket write this key.
    if unsafe { REVERSE.get(key) } == Some(&value) {
        return;
    }
    if REVERSE.insert(key, value, u64::from(BPF_ANY)).is_err() {
        count(Counter::ReverseFailed);
    }
}
