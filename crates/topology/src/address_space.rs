//! A set of addresses, such as those that a cluster's passport covers.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// Addresses of both families, as blocks. Two sets of the same addresses are equal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressSpace {
    /// By their first address; none overlaps another, and none could be joined with its neighbour.
    blocks: Vec<IpNet>,
}

impl AddressSpace {
    /// True if `address` is in it; an IPv4-mapped address counts as the IPv4 address it is. O(log blocks), no allocation.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.contains_block(address.to_canonical().into())
    }

    /// True if every address of `block` is in it. O(log blocks), no allocation.
    pub fn contains_block(&self, block: IpNet) -> bool {
        let after = self.blocks.partition_point(|own| own.network() <= block.network());
        // Blocks that could be joined are joined, so what spans two of them is not covered.
        after.checked_sub(1).and_then(|at| self.blocks.get(at)).is_some_and(|own| own.contains(&block))
    }
}

impl FromIterator<IpNet> for AddressSpace {
    fn from_iter<I: IntoIterator<Item = IpNet>>(blocks: I) -> Self {
        let blocks: Vec<IpNet> = blocks.into_iter().map(|block| block.trunc()).collect();
        let mut blocks = IpNet::aggregate(&blocks);
        blocks.sort_unstable_by_key(IpNet::network);
        Self { blocks }
    }
}

impl fmt::Display for AddressSpace {
    /// The first few blocks, separated by `, `, and how many there are beyond them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.blocks.is_empty() {
            return f.write_str("no address");
        }
        for (at, block) in self.blocks.iter().take(SHOWN).enumerate() {
            let separator = if at == 0 { "" } else { ", " };
            write!(f, "{separator}{block}")?;
        }
        match self.blocks.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Blocks that are printed; a passport can have very many.
const SHOWN: usize = 8;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::block::parse_block;

    fn space(texts: &[&str]) -> AddressSpace {
        texts.iter().map(|text| parse_block(text).expect("a block")).collect()
    }

    #[test]
    fn neighbours_are_one_block() {
        let joined = space(&["10.1.128.0/17", "10.1.0.0/17", "10.1.2.0/24", "fd00::/48"]);
        assert_eq!(joined, space(&["10.1.0.0/16", "fd00::/48"]));
        assert!(joined.contains_block("10.1.64.0/18".parse().expect("a block")));
        assert!(!joined.contains_block("10.0.0.0/15".parse().expect("a block")));
        assert!(joined.contains("::ffff:10.1.0.9".parse().expect("an address")));
        assert!(!joined.contains("fd01::1".parse().expect("an address")));
        assert_eq!(joined.to_string(), "10.1.0.0/16, fd00::/48");
    }

    #[test]
    fn all_and_nothing() {
        let all = space(&["0.0.0.0/0", "::/0"]);
        for address in ["0.0.0.0", "255.255.255.255", "::1", "ffff::ffff"] {
            assert!(all.contains(address.parse().expect("an address")), "{address}");
        }
        assert!(!AddressSpace::default().contains("10.0.0.1".parse().expect("an address")));
        assert_eq!(AddressSpace::default().to_string(), "no address");
        let many: AddressSpace =
            (0..20u8).map(|n| IpNet::from(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2 * n)))).collect();
        assert!(many.to_string().ends_with("10.0.0.14/32 and 12 more"), "{many}");
    }

    proptest! {
        /// Over a small space, membership is that of the blocks one by one.
        #[test]
        fn membership_equals_brute_force(
            blocks in prop::collection::vec((0u32..256, 24u8..=32), 0..8),
            block in (0u32..256, 24u8..=32),
        ) {
            let net = |(host, length): (u32, u8)| {
                IpNet::new(Ipv4Addr::from(0x0a00_0000 | host).into(), length).expect("24 to 32").trunc()
            };
            let blocks: Vec<IpNet> = blocks.into_iter().map(net).collect();
            let space: AddressSpace = blocks.iter().copied().collect();
            let is_in = |address: IpAddr| blocks.iter().any(|block| block.contains(&address));
            let all = (0..256u32).map(|host| IpAddr::V4(Ipv4Addr::from(0x0a00_0000 | host)));
            for address in all.clone() {
                prop_assert_eq!(space.contains(address), is_in(address), "{}", address);
            }
            let asked = net(block);
            let covered = all.filter(|address| asked.contains(address)).all(is_in);
            prop_assert_eq!(space.contains_block(asked), covered, "{} in {}", asked, space);
        }
    }
}
