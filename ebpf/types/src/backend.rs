//! Backends: the endpoints that serve.

use core::net::SocketAddr;

use crate::address::{Address, Protocol, socket_addr};

/// Value of the map `backends`, keyed by backend id (`u32`, host order, never 0): one endpoint.
///
/// Written by the agent, read by the programs that choose a backend. A slot holds the id; an empty slot holds 0.
/// STABLE FORMAT.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// The endpoint's address.
    pub address: Address,
    /// The endpoint's port, network order.
    pub port_be: u16,
    /// IANA protocol number, see [`Protocol`].
    pub protocol: u8,
    /// Reserved, zero.
    pub flags: u8,
    /// The cluster that the endpoint belongs to, host order; the programs do not use it.
    pub cluster_id: u16,
    /// Zero.
    pub pad: u16,
}

impl Backend {
    /// A backend at this address, in this cluster.
    pub fn new(endpoint: SocketAddr, protocol: Protocol, cluster_id: u16) -> Self {
        Self {
            address: endpoint.ip().into(),
            port_be: endpoint.port().to_be(),
            protocol: protocol.number(),
            flags: 0,
            cluster_id,
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

const _: () = {
    assert!(size_of::<Backend>() == 24);
    assert!(core::mem::offset_of!(Backend, address) == 0);
    assert!(core::mem::offset_of!(Backend, port_be) == 16);
    assert!(core::mem::offset_of!(Backend, protocol) == 18);
    assert!(core::mem::offset_of!(Backend, flags) == 19);
    assert!(core::mem::offset_of!(Backend, cluster_id) == 20);
    assert!(core::mem::offset_of!(Backend, pad) == 22);
};
