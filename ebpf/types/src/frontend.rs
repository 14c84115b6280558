//! Frontends: the addresses that clients ask for, and the services behind them.

use core::net::SocketAddr;

use crate::address::{Address, Protocol, socket_addr};

/// Key of the map `services`: a service address, port and protocol.
///
/// Written by the agent, looked up by every `connect` and `sendmsg` program with the destination that the
/// client asked for. STABLE FORMAT.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontendKey {
    /// The service's address.
    pub address: Address,
    /// The service's port, network order.
    pub port_be: u16,
    /// IANA protocol number, see [`Protocol`].
    pub protocol: u8,
    /// Zero.
    pub pad: u8,
}

impl FrontendKey {
    /// The key of a frontend.
    pub fn new(frontend: SocketAddr, protocol: Protocol) -> Self {
        Self {
            address: frontend.ip().into(),
            port_be: frontend.port().to_be(),
            protocol: protocol.number(),
            pad: 0,
        }
    }

    /// Address and port, an IPv4-mapped address as IPv4.
    pub fn socket_addr(&self) -> SocketAddr {
        socket_addr(self.address, self.port_be)
    }

    /// The protocol, or nothing if the number is none that we balance.
    pub fn protocol(&self) -> Option<Protocol> {
        Protocol::from_number(self.protocol.into())
    }
}

/// Value of the map `services`: where a frontend's backends are.
///
/// Written by the agent, read by the programs that choose a backend. It names a slice of the map `slots`; the
/// agent fills the slice first and writes the entry last, so a program sees the old slice or the new one.
/// STABLE FORMAT.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceEntry {
    /// Index of the first slot.
    pub slots_offset: u32,
    /// Number of slots; with 0 a client is refused at once.
    pub slots_count: u32,
    /// The agent's number for the service; the programs do not use it.
    pub service_id: u32,
    /// Reserved, zero.
    pub flags: u32,
}

/// Value of the map `reverse`: the frontend that a socket asked for.
///
/// Written by `connect` and `sendmsg`, read by `recvmsg` and `getpeername`. STABLE FORMAT.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontendAddr {
    /// The service's address.
    pub address: Address,
    /// The service's port, network order.
    pub port_be: u16,
    /// Zero.
    pub pad: u16,
}

impl FrontendAddr {
    /// Address and port, an IPv4-mapped address as IPv4.
    pub fn socket_addr(&self) -> SocketAddr {
        socket_addr(self.address, self.port_be)
    }
}

const _: () = {
    assert!(size_of::<FrontendKey>() == 20);
    assert!(core::mem::offset_of!(FrontendKey, address) == 0);
    assert!(core::mem::offset_of!(FrontendKey, port_be) == 16);
    assert!(core::mem::offset_of!(FrontendKey, protocol) == 18);
    assert!(core::mem::offset_of!(FrontendKey, pad) == 19);
    assert!(size_of::<ServiceEntry>() == 16);
    assert!(core::mem::offset_of!(ServiceEntry, slots_offset) == 0);
    assert!(core::mem::offset_of!(ServiceEntry, slots_count) == 4);
    assert!(core::mem::offset_of!(ServiceEntry, service_id) == 8);
    assert!(core::mem::offset_of!(ServiceEntry, flags) == 12);
    assert!(size_of::<FrontendAddr>() == 20);
    assert!(core::mem::offset_of!(FrontendAddr, address) == 0);
    assert!(core::mem::offset_of!(FrontendAddr, port_be) == 16);
    assert!(core::mem::offset_of!(FrontendAddr, pad) == 18);
};

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    #[test]
    fn a_frontend_key_reads_back_what_went_in() {
        for text in ["10.96.0.10:80", "[fd00::10]:53"] {
            let frontend: SocketAddr = text.parse().expect("test address");
            let key = FrontendKey::new(frontend, Protocol::Udp);
            assert_eq!(key.socket_addr(), frontend);
            assert_eq!(key.protocol(), Some(Protocol::Udp));
        }
    }

    #[test]
    fn the_port_lies_in_network_order() {
        let frontend = "10.96.0.10:80".parse().expect("test address");
        assert_eq!(FrontendKey::new(frontend, Protocol::Tcp).port_be.to_ne_bytes(), [0, 80]);
    }
}
