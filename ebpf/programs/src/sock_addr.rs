//! Access to `struct bpf_sock_addr`, the address in a socket call.
//!
//! The verifier allows `user_ip6` only by aligned words and `user_port` as 32 bits with the port, in network
//! order, in its low half (`sock_addr_is_valid_access` in the kernel's net/core/filter.c). Volatile accesses keep
//! the compiler from merging or splitting them.

use aya_ebpf::{bindings::bpf_sock_addr, programs::SockAddrContext};
use ebpf_types::{Address, Protocol};

/// How a hook holds an address.
pub trait Family {
    /// The address in the call: the destination, the sender or the peer.
    fn address(ctx: &SockAddrContext) -> Address;
    /// Replaces the address in the call.
    fn set_address(ctx: &SockAddrContext, address: &Address);
}

/// The hooks ending in 4.
pub enum Ip4 {}

/// The hooks ending in 6.
pub enum Ip6 {}

impl Family for Ip4 {
    #[inline(always)]
    fn address(ctx: &SockAddrContext) -> Address {
        // SAFETY: the kernel passes a valid context for the whole program; the field is a readable word.
        let word = unsafe { (&raw const (*ctx.sock_addr).user_ip4).read_volatile() };
        Address::from_ip4_word(word)
    }

    #[inline(always)]
    fn set_address(ctx: &SockAddrContext, address: &Address) {
        let [_, _, _, word] = address.words();
        // SAFETY: as above; the field is a writable word in these hooks.
        unsafe { (&raw mut (*ctx.sock_addr).user_ip4).write_volatile(word) };
    }
}

impl Family for Ip6 {
    #[inline(always)]
    fn address(ctx: &SockAddrContext) -> Address {
        // SAFETY: the kernel passes a valid context for the whole program; each of the four words is readable.
        let words = unsafe {
            let ip6 = (&raw const (*ctx.sock_addr).user_ip6).cast::<u32>();
            [
                ip6.read_volatile(),
                ip6.add(1).read_volatile(),
                ip6.add(2).read_volatile(),
                ip6.add(3).read_volatile(),
            ]
        };
        Address::from_words(words)
    }

    #[inline(always)]
    fn set_address(ctx: &SockAddrContext, address: &Address) {
        let [a, b, c, d] = address.words();
        // SAFETY: as above; each of the four words is writable in these hooks.
        unsafe {
            let ip6 = (&raw mut (*ctx.sock_addr).user_ip6).cast::<u32>();
            ip6.write_volatile(a);
            ip6.add(1).write_volatile(b);
            ip6.add(2).write_volatile(c);
            ip6.add(3).write_volatile(d);
        }
    }
}

/// The port in the call, network order.
#[inline(always)]
pub fn port_be(ctx: &SockAddrContext) -> u16 {
    // SAFETY: the kernel passes a valid context for the whole program; the field is a readable word.
    let word = unsafe { (&raw const (*ctx.sock_addr).user_port).read_volatile() };
    word as u16
}

/// Replaces the port in the call.
#[inline(always)]
pub fn set_port_be(ctx: &SockAddrContext, port_be: u16) {
    // SAFETY: as above; the field is a writable word in these hooks.
    unsafe { (&raw mut (*ctx.sock_addr).user_port).write_volatile(u32::from(port_be)) };
}

/// The socket's protocol, if it is one that we balance.
#[inline(always)]
pub fn protocol(ctx: &SockAddrContext) -> Option<Protocol> {
    // SAFETY: the kernel passes a valid context for the whole program; the field is a readable word.
    Protocol::from_number(unsafe { (&raw const (*ctx.sock_addr).protocol).read_volatile() })
}

/// The socket's cookie: the kernel's number for it, never reused while the machine is up.
#[inline(always)]
pub fn cookie(ctx: &SockAddrContext) -> u64 {
    let sock_addr: *mut bpf_sock_addr = ctx.sock_addr;
    // SAFETY: the helper takes the program's own context.
    unsafe { aya_ebpf::helpers::bpf_get_socket_cookie(sock_addr.cast()) }
}
