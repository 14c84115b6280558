//! From an address to the identity behind it.

use core::net::IpAddr;

use crate::address::Address;

/// Key of the map `ipcache`: a prefix. The longest prefix that contains an address wins.
///
/// Written by the agent. No program of this version reads it; the policy programs will. STABLE FORMAT.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpcacheKey {
    /// Length in bits of the 16-byte form: an IPv4 prefix counts 96 more. Host order.
    pub prefix_len: u32,
    /// The network address, host bits zero.
    pub address: Address,
}

impl IpcacheKey {
    /// Bits before the IPv4 part of an IPv4-mapped address.
    const IP4_BITS: u32 = 96;

    /// The key of `ip/len` (`len` in bits of the address's own family); host bits are cleared.
    /// Nothing if `len` is greater than 32 or 128 for the family.
    pub fn new(ip: IpAddr, len: u8) -> Option<Self> {
        let (max, base) = if ip.is_ipv4() { (32, Self::IP4_BITS) } else { (128, 0) };
        if len > max {
            return None;
        }
        let prefix_len = base + u32::from(len);
        let bits = u128::from_be_bytes(Address::from(ip).octets());
        let mask = u128::MAX.checked_shl(128 - prefix_len).unwrap_or(0);
        let address = Address::from_octets((bits & mask).to_be_bytes());
        Some(Self { prefix_len, address })
    }

    /// The key of one address.
    pub fn host(ip: IpAddr) -> Self {
        Self { prefix_len: 128, address: ip.into() }
    }

    /// Network address and length in the address's own family.
    pub fn prefix(&self) -> (IpAddr, u8) {
        let ip4 = self.prefix_len >= Self::IP4_BITS && self.address.is_ip4();
        let len = self.prefix_len.min(128) - if ip4 { Self::IP4_BITS } else { 0 };
        let ip = if ip4 { self.address.into() } else { IpAddr::V6(self.address.octets().into()) };
        (ip, len as u8)
    }
}

/// Value of the map `ipcache`: who is behind a prefix.
///
/// Written by the agent. No program of this version reads it; the policy programs will. STABLE FORMAT.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpcacheEntry {
    /// The security identity, host order.
    pub identity: u32,
    /// The cluster that the address belongs to, host order.
    pub cluster_id: u16,
    /// Reserved, zero.
    pub flags: u16,
    /// The node that the address is behind; `::` if unknown.
    pub node: Address,
}

impl IpcacheEntry {
    /// An entry; without a node the field is `::`.
    pub fn new(identity: u32, cluster_id: u16, node: Option<IpAddr>) -> Self {
        Self { identity, cluster_id, flags: 0, node: node.map_or(Address::UNSPECIFIED, Address::from) }
    }
}

const _: () = {
    assert!(size_of::<IpcacheKey>() == 20);
    assert!(core::mem::offset_of!(IpcacheKey, prefix_len) == 0);
    assert!(core::mem::offset_of!(IpcacheKey, address) == 4);
    assert!(size_of::<IpcacheEntry>() == 24);
    assert!(core::mem::offset_of!(IpcacheEntry, identity) == 0);
    assert!(core::mem::offset_of!(IpcacheEntry, cluster_id) == 4);
    assert!(core::mem::offset_of!(IpcacheEntry, flags) == 6);
    assert!(core::mem::offset_of!(IpcacheEntry, node) == 8);
};

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("test address")
    }

    #[test]
    fn prefixes_read_back_what_went_in() {
        for (text, len) in [("10.1.0.0", 16), ("0.0.0.0", 0), ("192.0.2.7", 32), ("fd00::", 8), ("::", 0)] {
            let key = IpcacheKey::new(ip(text), len).expect("test prefix");
            assert_eq!(key.prefix(), (ip(text), len), "{key:?}");
        }
    }

    #[test]
    fn host_bits_are_cleared() {
        let key = IpcacheKey::new(ip("10.1.2.3"), 16).expect("test prefix");
        assert_eq!(key.prefix(), (ip("10.1.0.0"), 16));
        assert_eq!(key.prefix_len, 112);
    }

    #[test]
    fn a_host_is_its_longest_prefix() {
        assert_eq!(Some(IpcacheKey::host(ip("10.1.2.3"))), IpcacheKey::new(ip("10.1.2.3"), 32));
        assert_eq!(Some(IpcacheKey::host(ip("fd00::1"))), IpcacheKey::new(ip("fd00::1"), 128));
    }

    #[test]
    fn a_length_beyond_the_family_is_refused() {
        assert_eq!(IpcacheKey::new(ip("10.0.0.0"), 33), None);
        assert_eq!(IpcacheKey::new(ip("fd00::"), 129), None);
    }
}
