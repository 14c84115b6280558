//! Addresses and protocols as the maps hold them.

use core::cmp::Ordering;
use core::fmt;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};

/// An IP address of either family in 16 bytes, network order; IPv4 is `::ffff:a.b.c.d`.
///
/// Kept as the four words of `bpf_sock_addr.user_ip6`: each holds four bytes as they lie in memory, so that the
/// programs move and compare words, not bytes. STABLE FORMAT.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address([u32; 4]);

impl Address {
    /// The unspecified address `::`, used where there is no address.
    pub const UNSPECIFIED: Self = Self([0; 4]);

    /// Third word of an IPv4-mapped address.
    const MAPPED_WORD: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

    /// Makes an address from its 16 bytes in network order.
    pub const fn from_octets(octets: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = octets;
        Self([
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, g, h]),
            u32::from_ne_bytes([i, j, k, l]),
            u32::from_ne_bytes([m, n, o, p]),
        ])
    }

    /// The 16 bytes in network order.
    pub const fn octets(&self) -> [u8; 16] {
        let [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]] = [
            self.0[0].to_ne_bytes(),
            self.0[1].to_ne_bytes(),
            self.0[2].to_ne_bytes(),
            self.0[3].to_ne_bytes(),
        ];
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// Makes an address from four words as they lie in `bpf_sock_addr.user_ip6`.
    #[inline(always)]
    pub const fn from_words(words: [u32; 4]) -> Self {
        Self(words)
    }

    /// The four words as they lie in `bpf_sock_addr.user_ip6`.
    #[inline(always)]
    pub const fn words(&self) -> [u32; 4] {
        self.0
    }

    /// Makes an IPv4-mapped address from the word in `bpf_sock_addr.user_ip4` (network order).
    #[inline(always)]
    pub const fn from_ip4_word(word: u32) -> Self {
        Self([0, 0, Self::MAPPED_WORD, word])
    }

    /// Whether this is an IPv4-mapped address.
    #[inline(always)]
    pub const fn is_ip4(&self) -> bool {
        let [a, b, c, _] = self.0;
        a == 0 && b == 0 && c == Self::MAPPED_WORD
    }
}

impl Ord for Address {
    /// Orders as the addresses do, not as the words.
    fn cmp(&self, other: &Self) -> Ordering {
        self.octets().cmp(&other.octets())
    }
}

impl PartialOrd for Address {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Self::from_octets(v4.to_ipv6_mapped().octets()),
            IpAddr::V6(v6) => Self::from_octets(v6.octets()),
        }
    }
}

impl From<Address> for IpAddr {
    /// The address in its own family: an IPv4-mapped one becomes IPv4.
    fn from(address: Address) -> Self {
        Ipv6Addr::from(address.octets()).to_canonical()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        IpAddr::from(*self).fmt(f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        IpAddr::from(*self).fmt(f)
    }
}

/// A transport protocol that the programs balance; its number is the IANA one.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp = 6,
    /// UDP.
    Udp = 17,
}

impl Protocol {
    /// The protocol with this IANA number, if it is one that we balance.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            _ => None,
        }
    }

    /// The IANA number.
    #[inline(always)]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// Joins an address and a port in network order into a `SocketAddr`, in the address's own family.
pub(crate) fn socket_addr(address: Address, port_be: u16) -> SocketAddr {
    SocketAddr::new(address.into(), u16::from_be(port_be))
}

const _: () = assert!(size_of::<Address>() == 16 && align_of::<Address>() == 4);

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("test address")
    }

    #[test]
    fn ip4_is_written_mapped_and_read_back_as_ip4() {
        let address = Address::from(ip("10.96.0.10"));
        assert_eq!(address.octets(), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 96, 0, 10]);
        assert!(address.is_ip4());
        assert_eq!(IpAddr::from(address), ip("10.96.0.10"));
        assert_eq!(address.to_string(), "10.96.0.10");
    }

    #[test]
    fn mapped_and_plain_ip4_are_one_address() {
        assert_eq!(Address::from(ip("::ffff:192.0.2.1")), Address::from(ip("192.0.2.1")));
    }

    #[test]
    fn ip6_keeps_its_bytes() {
        let address = Address::from(ip("fd00::10"));
        assert!(!address.is_ip4());
        assert_eq!(IpAddr::from(address), ip("fd00::10"));
    }

    #[test]
    fn addresses_order_by_their_bytes() {
        assert!(Address::from(ip("1.0.0.2")) < Address::from(ip("2.0.0.1")));
        assert!(Address::from(ip("::1")) < Address::from(ip("1.2.3.4")));
    }

    #[test]
    fn words_are_the_bytes_in_memory_order() {
        let address = Address::from(ip("2001:db8::1"));
        assert_eq!(address.words()[0].to_ne_bytes(), [0x20, 0x01, 0x0d, 0xb8]);
        assert_eq!(Address::from_words(address.words()), address);
        let word = u32::from_ne_bytes([10, 0, 0, 1]);
        assert_eq!(Address::from_ip4_word(word), Address::from(ip("10.0.0.1")));
        assert_eq!(Address::from(ip("10.0.0.1")).words()[3], word);
    }
}
