//! The choice of a backend.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use ebpf_types::{Backend, Counter, Protocol, ServiceEntry};

use crate::{
    count::count,
    maps::{BACKENDS, SLOTS},
};

/// How many slots are tried before a client is refused. A stale slot is a moment in an update, so the next one is
/// very likely good; the bound keeps the program short for the verifier.
const TRIES: u32 = 4;

/// The backend for a call, or nothing if the service has none that can be used.
///
/// TCP: every connection at random. UDP: by the socket, so that the datagrams of one socket stay with one backend
/// while the set of backends does not change.
#[inline(always)]
pub fn choose(
    service: &ServiceEntry,
    protocol: Protocol,
    cookie: u64,
    ip4: bool,
) -> Option<&'static Backend> {
    let slots = service.slots_count;
    if slots == 0 {
        return None;
    }
    let point = match protocol {
        // SAFETY: the helper takes nothing and returns a number.
        Protocol::Tcp => unsafe { bpf_get_prandom_u32() },
        Protocol::Udp => spread(cookie),
    };
    // A point of the 32-bit circle scaled to the slots: no division, and no bias that matters.
    let mut slot = ((u64::from(point) * u64::from(slots)) >> 32) as u32;
    for _ in 0..TRIES {
        if let Some(backend) = backend_in(service.slots_offset.wrapping_add(slot), ip4) {
            return Some(backend);
        }
        slot += 1;
        if slot >= slots {
            slot = 0;
        }
    }
    None
}

/// The backend that a slot names, if there is one, of the frontend's family.
#[inline(always)]
fn backend_in(index: u32, ip4: bool) -> Option<&'static Backend> {
    let id = SLOTS.get(index).copied().unwrap_or(0);
    // SAFETY: the program reads the value before it ends, and the kernel keeps the memory a value of this map until
    // then. The entry may be replaced meanwhile and its memory be used for another backend: we might read a
    // backend that just changed, as with any update in flight.
    let backend = if id == 0 { None } else { unsafe { BACKENDS.get(id) } };
    let Some(backend) = backend else {
        count(Counter::StaleSlot);
        return None;
    };
    // An IPv4 socket cannot be sent to an IPv6 address, and the kernel does not take an IPv4-mapped one in
    // place of an IPv6 one in sendmsg (udpv6_sendmsg in net/ipv6/udp.c: ENOTSUPP).
    if backend.address.is_ip4() != ip4 {
        count(Counter::FamilyMismatch);
        return None;
    }
    Some(backend)
}

/// Spreads cookies, which are small consecutive numbers, over 32 bits (the finalizer of MurmurHash3, 64 bits).
#[inline(always)]
fn spread(cookie: u64) -> u32 {
    let mut h = cookie;
    h ^= h >> 33;
    h = h.wrapping_mul(0xff51_afd7_ed55_8ccd);
    h ^= h >> 33;
    h = h.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (h >> 32) as u32
}
