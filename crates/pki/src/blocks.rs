//! The address space that a certificate carries (RFC 3779), as sorted ranges.
//!
//! The encoding and its strict reader are in `der`; here is the value: two lists of ranges, one a family, each
//! sorted, without overlap, neighbours merged. That is RFC 3779's canonical form, so equal address spaces are equal
//! values and equal bytes.

mod der;
#[cfg(test)]
mod golden;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

pub(crate) use der::MAX_RANGES;
pub use der::{InvalidBlocks, OID};

/// A set of IPv4 and IPv6 addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    v4: Vec<Range>,
    v6: Vec<Range>,
}

/// One run of addresses of one family, both ends included, as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Range {
    low: u128,
    high: u128,
}

/// An address family: how wide its addresses are, and its number in the encoding (AFI).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Blocks {
    /// All addresses of both families: what a mesh root carries.
    pub fn everything() -> Self {
        let all = |family: Family| vec![Range { low: 0, high: family.max() }];
        Self { v4: all(Family::V4), v6: all(Family::V6) }
    }

    /// True if it holds no address.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// True if `address` is in it; an IPv4-mapped address counts as the IPv4 address it is. O(log ranges), no allocation.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (ranges, number) = match address.to_canonical() {
            IpAddr::V4(v4) => (&self.v4, u128::from(u32::from(v4))),
            IpAddr::V6(v6) => (&self.v6, u128::from(v6)),
        };
        find(ranges, number).is_some()
    }

    /// True if every address of `block` is in it.
    pub fn contains_block(&self, block: IpNet) -> bool {
        self.covers(&Self::from_iter([block]))
    }

    /// True if every address of `other` is in it.
    pub fn covers(&self, other: &Self) -> bool {
        let within = |inner: &[Range], outer: &[Range]| {
            inner.iter().all(|range| find(outer, range.low).is_some_and(|around| around.high >= range.high))
        };
        within(&other.v4, &self.v4) && within(&other.v6, &self.v6)
    }

    /// True if an IPv6 range reaches into `::ffff:0:0/96`, where IPv4 addresses would be claimed unseen.
    pub fn reaches_mapped(&self) -> bool {
        let low = u128::from(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped());
        let high = u128::from(Ipv4Addr::BROADCAST.to_ipv6_mapped());
        self.v6.iter().any(|range| range.low <= high && range.high >= low)
    }

    /// The prefixes that make up exactly these addresses, those of IPv4 first. A range can need up to 254 of them.
    pub fn prefixes(&self) -> impl Iterator<Item = IpNet> {
        let v4 = self.v4.iter().filter_map(|range| match range.ends(Family::V4) {
            (IpAddr::V4(low), IpAddr::V4(high)) => Some(Ipv4Subnets::new(low, high, 0).map(IpNet::V4)),
            _ => None,
        });
        let v6 = self.v6.iter().filter_map(|range| match range.ends(Family::V6) {
            (IpAddr::V6(low), IpAddr::V6(high)) => Some(Ipv6Subnets::new(low, high, 0).map(IpNet::V6)),
            _ => None,
        });
        v4.flatten().chain(v6.flatten())
    }

    /// How many ranges it has, both families together.
    pub fn ranges(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    fn family(&self, family: Family) -> &[Range] {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

impl FromIterator<IpNet> for Blocks {
    fn from_iter<I: IntoIterator<Item = IpNet>>(blocks: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for block in blocks {
            match block {
                IpNet::V4(net) => v4.push(Range {
                    low: u128::from(u32::from(net.network())),
                    high: u128::from(u32::from(net.broadcast())),
                }),
                IpNet::V6(net) => {
                    v6.push(Range { low: u128::from(net.network()), high: u128::from(net.broadcast()) });
                }
            }
        }
        Self { v4: merge(v4), v6: merge(v6) }
    }
}

impl fmt::Display for Blocks {
    /// Prefixes where a range is one, `low-high` where not, separated by `, `.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for family in [Family::V4, Family::V6] {
            for range in self.family(family) {
                f.write_str(separator)?;
                separator = ", ";
                let (low, high) = range.ends(family);
                match range.prefix_length(family) {
                    Some(length) => write!(f, "{low}/{length}")?,
                    None => write!(f, "{low}-{high}")?,
                }
            }
        }
        Ok(())
    }
}

impl Range {
    /// The first and the last address.
    fn ends(self, family: Family) -> (IpAddr, IpAddr) {
        (family.address(self.low), family.address(self.high))
    }

    /// The length of the prefix that covers exactly this range, if one does.
    fn prefix_length(self, family: Family) -> Option<u32> {
        let differing = self.low ^ self.high;
        let host_bits = u128::BITS - differing.leading_zeros();
        let mask = differing;
        let exact = (mask & mask.wrapping_add(1)) == 0 && self.low & mask == 0 && self.high & mask == mask;
        exact.then(|| family.width() - host_bits)
    }
}

impl Family {
    fn width(self) -> u32 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    fn max(self) -> u128 {
        u128::MAX >> (u128::BITS - self.width())
    }

    fn address(self, number: u128) -> IpAddr {
        match self {
            // Numbers of this family never exceed 32 bits, by construction and by the reader.
            Self::V4 => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
            Self::V6 => IpAddr::V6(Ipv6Addr::from(number)),
        }
    }
}

/// The range that holds `number`.
fn find(ranges: &[Range], number: u128) -> Option<&Range> {
    let after = ranges.partition_point(|range| range.low <= number);
    after.checked_sub(1).and_then(|at| ranges.get(at)).filter(|range| range.high >= number)
}

/// Sorts, and joins ranges that overlap or touch.
fn merge(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut merged: Vec<Range> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.low <= last.high.saturating_add(1) => last.high = last.high.max(range.high),
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use topology::block::parse_block;

    pub(super) fn blocks(texts: &[&str]) -> Blocks {
        texts.iter().map(|text| parse_block(text).expect("a block")).collect()
    }

    #[test]
    fn neighbours_merge_and_containment_follows() {
        let space = blocks(&[
            "10.9.2.0/24",
            "10.9.0.0/24",
            "10.9.1.0/24",
            "10.1.0.0/16",
            "fd00:1::/48",
            "10.1.2.0/24",
        ]);
        assert_eq!(space.to_string(), "10.1.0.0/16, 10.9.0.0-10.9.2.255, fd00:1::/48");
        for inside in ["10.1.255.255", "10.9.2.255", "fd00:1::1", "::ffff:10.1.0.0"] {
            assert!(space.contains(inside.parse().expect("an address")), "{inside}");
        }
        for outside in ["10.0.255.255", "10.9.3.0", "fd00:2::", "0.0.0.0", "255.255.255.255"] {
            assert!(!space.contains(outside.parse().expect("an address")), "{outside}");
        }
        assert!(space.contains_block(parse_block("10.9.1.0/24").expect("a block")));
        assert!(!space.contains_block(parse_block("10.9.2.0/23").expect("a block")));
        assert!(Blocks::everything().covers(&space));
        assert!(!space.covers(&Blocks::everything()));
    }

    #[test]
    fn prefixes_are_the_same_addresses() {
        let space = blocks(&["10.9.0.0/24", "10.9.1.0/24", "10.9.2.0/24", "10.1.0.0/16", "fd00:1::/48"]);
        let prefixes: Vec<String> = space.prefixes().map(|prefix| prefix.to_string()).collect();
        assert_eq!(prefixes, ["10.1.0.0/16", "10.9.0.0/23", "10.9.2.0/24", "fd00:1::/48"]);
        assert_eq!(space.prefixes().collect::<Blocks>(), space);
        assert_eq!(Blocks::everything().prefixes().collect::<Blocks>(), Blocks::everything());
    }

    #[test]
    fn everything_is_two_prefixes() {
        assert_eq!(Blocks::everything().to_string(), "0.0.0.0/0, ::/0");
        assert_eq!(Blocks::everything(), blocks(&["0.0.0.0/0", "::/0"]));
        assert!(Blocks::everything().reaches_mapped());
        assert!(!blocks(&["fd00::/8", "0.0.0.0/0"]).reaches_mapped());
    }
}
