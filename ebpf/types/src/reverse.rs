//! The way back from a backend to the frontend that a socket asked for.

use core::net::SocketAddr;

use crate::address::{Address, socket_addr};

/// Key of the map `reverse`: a socket and the backend that it talks to.
///
/// Written by `connect` and `sendmsg` when they translate, looked up by `recvmsg` and `getpeername`; user space
/// only reads it. The map is an LRU: an entry that falls out costs the client the frontend's name, never a
/// connection. STABLE FORMAT.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReverseKey {
    /// The kernel's cookie of the socket, host order.
    pub cookie: u64,
    /// The backend's address.
    pub address: Address,
    /// The backend's port, network order.
    pub port_be: u16,
    /// IANA protocol number.
    pub protocol: u8,
    /// Zero.
    pub pad: u8,
    /// Zero.
    pub pad_word: u32,
}

impl ReverseKey {
    /// The backend's address and port, an IPv4-mapped address as IPv4.
    pub fn socket_addr(&self) -> SocketAddr {
        socket_addr(self.address, self.port_be)
    }
}

const _: () = {
    assert!(size_of::<ReverseKey>() == 32);
    assert!(core::mem::offset_of!(ReverseKey, cookie) == 0);
    assert!(core::mem::offset_of!(ReverseKey, address) == 8);
    assert!(core::mem::offset_of!(ReverseKey, port_be) == 24);
    assert!(core::mem::offset_of!(ReverseKey, protocol) == 26);
    assert!(core::mem::offset_of!(ReverseKey, pad) == 27);
    assert!(core::mem::offset_of!(ReverseKey, pad_word) == 28);
};
