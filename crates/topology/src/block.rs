//! Address blocks: whose addresses are whose, and where two claims meet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

/// Why a text is not an address block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("address block {found:?}: {expected}")]
pub struct InvalidBlock {
    found: String,
    expected: &'static str,
}

/// Reads a CIDR and brings it to its canonical form: host bits cleared; an IPv4 block written in the
/// IPv4-mapped form (`::ffff:10.0.0.0/104`) becomes the IPv4 block that it means.
///
/// Fails if the text is no CIDR, or if it is an IPv6 block that covers the whole mapped range and more
/// (shorter than /96 around `::ffff:0:0`), which would claim every IPv4 address unseen.
pub fn parse_block(text: &str) -> Result<IpNet, InvalidBlock> {
    let invalid = |expected| InvalidBlock { found: text.to_owned(), expected };
    let net: Result<IpNet, _> = text.parse();
    let Ok(net) = net else {
        return Err(invalid(
            "expected an address and a prefix length, such as 10.1.0.0/16 or fd00:10:1::/48",
        ));
    };
    let IpNet::V6(v6) = net.trunc() else { return Ok(net.trunc()) };
    let mapped = v6.network().to_ipv4_mapped();
    match (mapped, v6.prefix_len()) {
        (Some(v4), length @ 96..=128) => Ok(IpNet::V4(Ipv4Net::new_assert(v4, length - 96))),
        (_, 1..) if v6.contains(&Ipv4Addr::UNSPECIFIED.to_ipv6_mapped()) => {
            Err(invalid("expected IPv4 blocks to be written as IPv4"))
        }
        _ => Ok(IpNet::V6(v6)),
    }
}

/// The part that two blocks share, if any: of two CIDRs one always contains the other, so it is the longer one.
pub fn overlap(a: IpNet, b: IpNet) -> Option<IpNet> {
    if a.contains(&b) {
        Some(b)
    } else if b.contains(&a) {
        Some(a)
    } else {
        None
    }
}

/// True if `address` lies in one of `blocks`; an IPv4-mapped address counts as the IPv4 address it is.
pub fn contains(blocks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    blocks.iter().any(|block| block.contains(&address))
}

/// An address as 16 bytes, IPv4 in its mapped form: the one form that the kernel maps use.
pub fn mapped_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The address that 16 bytes stand for: the inverse of [`mapped_bytes`].
pub fn from_mapped_bytes(bytes: [u8; 16]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
}

/// Reads an address in the only text form that is unambiguous on the wire: IPv4 dotted quad or IPv6, without a
/// zone. An IPv4-mapped IPv6 text is returned as IPv4, as Go's `net.IP` does.
pub fn parse_address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(text: &str) -> IpNet {
        parse_block(text).expect("a block")
    }

    #[test]
    fn mapped_forms_are_ipv4() {
        assert_eq!(block("::ffff:10.1.2.3/112"), block("10.1.0.0/16"));
        assert_eq!(block("10.1.2.3/16").to_string(), "10.1.0.0/16");
        assert!(parse_block("::/64").is_err());
        assert!(parse_block("::ffff:0:0/90").is_err());
        assert_eq!(block("::/0").prefix_len(), 0);
    }

    #[test]
    fn overlap_is_the_longer_block_either_way() {
        let (wide, narrow) = (block("10.0.0.0/8"), block("10.1.0.0/16"));
        assert_eq!(overlap(wide, narrow), Some(narrow));
        assert_eq!(overlap(narrow, wide), Some(narrow));
        assert_eq!(overlap(block("10.1.0.0/16"), block("10.2.0.0/16")), None);
        assert_eq!(overlap(block("0.0.0.0/0"), block("fd00::/8")), None);
    }

    #[test]
    fn zones_are_no_addresses() {
        assert_eq!(parse_address("fe80::1%eth0"), None);
        assert_eq!(parse_address("10.0.0.1@3"), None);
        assert_eq!(parse_address("::ffff:10.0.0.1"), parse_address("10.0.0.1"));
    }

    proptest! {
        /// Over a small space, two blocks overlap exactly if some address is in both.
        #[test]
        fn overlap_equals_brute_force(a in 0u32..256, la in 24u8..=32, b in 0u32..256, lb in 24u8..=32) {
            let net = |host: u32, len| IpNet::V4(Ipv4Net::new(Ipv4Addr::from(0x0a00_0000 | host), len).expect("24 to 32").trunc());
            let (x, y) = (net(a, la), net(b, lb));
            let both = (0..256u32).map(|h| IpAddr::V4(Ipv4Addr::from(0x0a00_0000 | h))).any(|ip| x.contains(&ip) && y.contains(&ip));
            prop_assert_eq!(overlap(x, y).is_some(), both);
            prop_assert_eq!(overlap(x, y), overlap(y, x));
        }

        #[test]
        fn mapped_bytes_round_trip(v4 in any::<u32>(), v6 in any::<u128>()) {
            let four = IpAddr::V4(v4.into());
            prop_assert_eq!(from_mapped_bytes(mapped_bytes(four)), four);
            let six = IpAddr::V6(v6.into()).to_canonical();
            prop_assert_eq!(from_mapped_bytes(mapped_bytes(six)), six);
        }
    }
}
