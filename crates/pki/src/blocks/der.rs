//! The bytes of the IPAddrBlocks extension (RFC 3779, section 2.2.3), written and read in canonical form only.
//!
//! ```text
//! IPAddrBlocks     ::= SEQUENCE OF IPAddressFamily                   -- ascending by family
//! IPAddressFamily  ::= SEQUENCE { addressFamily OCTET STRING,        -- 0001 IPv4, 0002 IPv6
//!                                 addressesOrRanges SEQUENCE OF IPAddressOrRange }
//! IPAddressOrRange ::= CHOICE { addressPrefix BIT STRING, addressRange SEQUENCE { min, max BIT STRING } }
//! ```
//! `inherit` and a SAFI octet exist in the standard and are refused here: with `inherit`, a passport would claim
//! all that the root has.

use super::{Blocks, Family, Range, merge};

/// The extension's object identifier: id-pe-ipAddrBlocks.
pub const OID: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 1, 7];

/// Why bytes are no canonical IPAddrBlocks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBlocks {
    /// A value ends too early, has a wrong tag or a length not in DER.
    #[error("address blocks: malformed DER, expected {expected}")]
    Malformed {
        /// What should have been there.
        expected: &'static str,
    },
    /// The family says `inherit`.
    #[error("address blocks: found inherit, expected the blocks themselves")]
    Inherit,
    /// The family is neither plain IPv4 nor plain IPv6.
    #[error("address blocks: family {found:02x?}, expected 0001 (IPv4) or 0002 (IPv6) without a SAFI")]
    Family {
        /// The octets found.
        found: Vec<u8>,
    },
    /// Well-formed, but not the one way to write these addresses.
    #[error("address blocks: not in canonical form, expected sorted, merged, prefixes where possible")]
    NotCanonical,
    /// More ranges than we handle.
    #[error("address blocks: more than {MAX_RANGES} ranges")]
    TooMany,
}

impl Blocks {
    /// The extension's value.
    pub fn to_der(&self) -> Vec<u8> {
        let families: Vec<u8> = [Family::V4, Family::V6]
            .into_iter()
            .filter(|family| !self.family(*family).is_empty())
            .flat_map(|family| {
                let entries: Vec<u8> =
                    self.family(family).iter().flat_map(|range| entry(*range, family)).collect();
                let afi: &[u8] = &[0, family.afi()];
                tlv(SEQUENCE, &[tlv(OCTET_STRING, afi), tlv(SEQUENCE, &entries)].concat())
            })
            .collect();
        tlv(SEQUENCE, &families)
    }

    /// Reads the extension's value; accepts exactly what [`Self::to_der`] writes.
    ///
    /// Fails on anything else that the standard or a careless issuer would allow: `inherit`, a SAFI, an unknown
    /// family, entries out of order, overlapping or unmerged, a range that could be a prefix.
    pub fn from_der(der: &[u8]) -> Result<Self, InvalidBlocks> {
        let mut outer = Reader(der);
        let mut families = Reader(outer.value(SEQUENCE, "a SEQUENCE of families")?);
        outer.end()?;
        let mut blocks = Self::default();
        while !families.is_empty() {
            let mut family = Reader(families.value(SEQUENCE, "a SEQUENCE for a family")?);
            let afi = family.value(OCTET_STRING, "the family's number")?;
            let kind = match afi {
                [0, 1] => Family::V4,
                [0, 2] => Family::V6,
                other => {
                    return Err(InvalidBlocks::Family { found: other.iter().take(8).copied().collect() });
                }
            };
            if family.peek() == Some(NULL) {
                return Err(InvalidBlocks::Inherit);
            }
            let mut entries = Reader(family.value(SEQUENCE, "a SEQUENCE of prefixes and ranges")?);
            family.end()?;
            let mut ranges = Vec::new();
            while !entries.is_empty() {
                if ranges.len() >= MAX_RANGES {
                    return Err(InvalidBlocks::TooMany);
                }
                ranges.push(read_entry(&mut entries, kind)?);
            }
            match kind {
                Family::V4 => blocks.v4.extend(merge(ranges)),
                Family::V6 => blocks.v6.extend(merge(ranges)),
            }
        }
        // Whatever was out of order, doubled, unmerged or padded comes out different when written again.
        if blocks.to_der() == der { Ok(blocks) } else { Err(InvalidBlocks::NotCanonical) }
    }
}

impl Family {
    fn afi(self) -> u8 {
        match self {
            Self::V4 => 1,
            Self::V6 => 2,
        }
    }
}

/// A cursor over DER values.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn end(&self) -> Result<(), InvalidBlocks> {
        if self.is_empty() { Ok(()) } else { Err(InvalidBlocks::Malformed { expected: "no trailing bytes" }) }
    }

    /// The content of the next value, which must have this tag.
    fn value(&mut self, tag: u8, expected: &'static str) -> Result<&'a [u8], InvalidBlocks> {
        let fail = InvalidBlocks::Malformed { expected };
        let (length, rest) = match self.0 {
            [found, short @ 0..=0x7f, rest @ ..] if *found == tag => (usize::from(*short), rest),
            [found, 0x81, one, rest @ ..] if *found == tag => (usize::from(*one), rest),
            [found, 0x82, high, low, rest @ ..] if *found == tag => {
                (usize::from(*high) << 8 | usize::from(*low), rest)
            }
            _ => return Err(fail),
        };
        let (content, after) = rest.split_at_checked(length).ok_or(fail)?;
        self.0 = after;
        Ok(content)
    }
}

fn read_entry(entries: &mut Reader<'_>, family: Family) -> Result<Range, InvalidBlocks> {
    match entries.peek() {
        Some(BIT_STRING) => {
            let (low, length) = read_bits(entries, family)?;
            Ok(Range { low, high: low | ones_below(family, length) })
        }
        _ => {
            let mut range = Reader(entries.value(SEQUENCE, "a BIT STRING or a SEQUENCE of two")?);
            let (low, _) = read_bits(&mut range, family)?;
            let (high, length) = read_bits(&mut range, family)?;
            range.end()?;
            let range = Range { low, high: high | ones_below(family, length) };
            if range.low <= range.high { Ok(range) } else { Err(InvalidBlocks::NotCanonical) }
        }
    }
}

/// A BIT STRING as the leading bits of an address, and how many there are.
fn read_bits(reader: &mut Reader<'_>, family: Family) -> Result<(u128, u32), InvalidBlocks> {
    let expected = "a BIT STRING of at most an address";
    let fail = || InvalidBlocks::Malformed { expected };
    let (unused, bytes) = reader.value(BIT_STRING, expected)?.split_first().ok_or_else(fail)?;
    let bits = u32::try_from(bytes.len() * 8).map_err(|_error| fail())?;
    let length = bits.checked_sub(u32::from(*unused)).ok_or_else(fail)?;
    if *unused > 7 || bits > family.width() {
        return Err(fail());
    }
    let number = bytes.iter().fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
    // A shift by the full width happens only for an empty string, whose number is 0 anyway.
    Ok((number.checked_shl(family.width() - bits).unwrap_or(0), length))
}

/// The numbers' low bits beyond a prefix of `length` bits, all set.
fn ones_below(family: Family, length: u32) -> u128 {
    family.max().checked_shr(length).unwrap_or(0)
}

fn entry(range: Range, family: Family) -> Vec<u8> {
    match range.prefix_length(family) {
        Some(length) => bit_string(range.low, length, family),
        None => {
            let width = family.width();
            // `min` without its trailing zeros, `max` without its trailing ones.
            let low_bits = width - range.low.trailing_zeros().min(width);
            let ones = range.high.trailing_ones().min(width);
            let high = range.high & !ones_below(family, width - ones);
            let bounds = [bit_string(range.low, low_bits, family), bit_string(high, width - ones, family)];
            tlv(SEQUENCE, &bounds.concat())
        }
    }
}

fn bit_string(number: u128, length: u32, family: Family) -> Vec<u8> {
    let bytes = length.div_ceil(8);
    let aligned = number << (u128::BITS - family.width());
    // At most 7 unused bits and 16 bytes: both casts are exact.
    let mut content = vec![(bytes * 8 - length) as u8];
    content.extend(aligned.to_be_bytes().into_iter().take(bytes as usize));
    tlv(BIT_STRING, &content)
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let [.., b2, b1, b0] = content.len().to_be_bytes();
    let mut out = match content.len() {
        0..=0x7f => vec![tag, b0],
        0x80..=0xff => vec![tag, 0x81, b0],
        0x100..=0xffff => vec![tag, 0x82, b1, b0],
        _ => vec![tag, 0x83, b2, b1, b0],
    };
    out.extend_from_slice(content);
    out
}

const SEQUENCE: u8 = 0x30;
const OCTET_STRING: u8 = 0x04;
const BIT_STRING: u8 = 0x03;
const NULL: u8 = 0x05;
/// Far more than a cluster has; keeps a certificate well under the 64 KiB that webpki accepts.
pub(crate) const MAX_RANGES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::super::tests::blocks;
    use super::*;
    use ipnet::{IpNet, Ipv4Net, Ipv6Net};
    use proptest::prelude::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let hex: Vec<char> = hex.chars().filter(|c| !c.is_whitespace()).collect();
        hex.chunks(2)
            .map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).expect("hex"))
            .collect()
    }

    /// Wraps entries of one family as a whole extension.
    fn one_family(afi: &str, entries: &str) -> Vec<u8> {
        let family = [tlv(OCTET_STRING, &bytes(afi)), tlv(SEQUENCE, &bytes(entries))].concat();
        tlv(SEQUENCE, &tlv(SEQUENCE, &family))
    }

    #[test]
    fn only_canonical_forms_are_read() {
        let inherit = bytes("30 10 30 06 04 02 00 01 05 00 30 06 04 02 00 02 05 00");
        assert_eq!(Blocks::from_der(&inherit), Err(InvalidBlocks::Inherit));
        let safi = one_family("000101", "03 02 00 0a");
        assert_eq!(Blocks::from_der(&safi), Err(InvalidBlocks::Family { found: vec![0, 1, 1] }));
        for (name, entries) in [
            ("two adjacent /25", "03 05 07 0a 01 00 00  03 05 07 0a 01 00 80"),
            ("overlap", "03 03 00 0a 01  03 04 00 0a 01 01"),
            ("wrong order", "03 03 00 0a 09  03 03 00 0a 01"),
            ("twice", "03 03 00 0a 01  03 03 00 0a 01"),
            ("range that is a prefix", "30 0a 03 03 00 0a 01 03 03 00 0a 01"),
            ("range upside down", "30 0a 03 03 00 0a 09 03 03 00 0a 01"),
            ("unused bits set", "03 03 04 0a 1f"),
            ("no entry", ""),
        ] {
            assert_eq!(
                Blocks::from_der(&one_family("0001", entries)),
                Err(InvalidBlocks::NotCanonical),
                "{name}"
            );
        }
        let v6_first = bytes("30 16 30 09 04 02 00 02 30 03 03 01 00 30 09 04 02 00 01 30 03 03 01 00");
        assert_eq!(Blocks::from_der(&v6_first), Err(InvalidBlocks::NotCanonical));
        for (name, der) in [
            ("empty", ""),
            ("long form for a short length", "30 81 0b 30 09 04 02 00 01 30 03 03 01 00"),
            ("indefinite length", "30 80 30 09 04 02 00 01 30 03 03 01 00 00 00"),
            ("trailing byte", "30 0b 30 09 04 02 00 01 30 03 03 01 00 00"),
            ("33 bits of IPv4", "30 10 30 0e 04 02 00 01 30 08 03 06 07 0a 00 00 00 80"),
            ("8 unused bits", "30 0c 30 0a 04 02 00 01 30 04 03 02 08 0a"),
            ("cut", "30 0b 30 09 04 02 00 01 30 03 03"),
        ] {
            assert!(Blocks::from_der(&bytes(der)).is_err(), "{name}");
        }
    }

    fn net() -> impl Strategy<Value = IpNet> {
        // Small spaces, so that neighbours and overlaps are common.
        let v4 = (0_u32..64, 24_u8..=32).prop_map(|(n, len)| {
            IpNet::V4(Ipv4Net::new((0x0a00_0000 | n << 3).into(), len).expect("at most 32").trunc())
        });
        let v6 = (any::<u128>(), 0_u8..=128)
            .prop_map(|(n, len)| IpNet::V6(Ipv6Net::new(n.into(), len).expect("at most 128").trunc()));
        let wide = (any::<u32>(), 0_u8..=32)
            .prop_map(|(n, len)| IpNet::V4(Ipv4Net::new(n.into(), len).expect("at most 32").trunc()));
        prop_oneof![6 => v4, 2 => v6, 1 => wide]
    }

    proptest! {
        #[test]
        fn decoding_undoes_encoding(nets in proptest::collection::vec(net(), 0..24)) {
            let blocks: Blocks = nets.iter().copied().collect();
            prop_assert_eq!(Blocks::from_der(&blocks.to_der()), Ok(blocks.clone()));
            for net in nets {
                prop_assert!(blocks.contains_block(net));
                prop_assert!(blocks.contains(net.addr()));
            }
        }

        #[test]
        fn a_block_is_contained_exactly_if_its_addresses_are(nets in proptest::collection::vec(net(), 0..8), n in 0_u32..512) {
            let blocks: Blocks = nets.iter().copied().collect();
            let address = std::net::IpAddr::V4((0x0a00_0000 | n).into());
            prop_assert_eq!(blocks.contains(address), nets.iter().any(|net| net.contains(&address)));
        }

        /// A peer's bytes never panic, and whatever is read is written back the same.
        #[test]
        fn any_bytes_are_read_or_refused(mut der in proptest::collection::vec(any::<u8>(), 0..64), flips in proptest::collection::vec((0_usize..45, any::<u8>()), 0..3)) {
            if let Ok(blocks) = Blocks::from_der(&der) {
                prop_assert_eq!(blocks.to_der(), der.clone());
            }
            der = blocks(&["10.1.0.0/16", "10.9.0.0/24", "10.9.1.0/24", "10.9.2.0/24", "fd00:1::/48"]).to_der();
            for (at, byte) in flips {
                der[at] = byte;
            }
            if let Ok(blocks) = Blocks::from_der(&der) {
                prop_assert_eq!(blocks.to_der(), der);
            }
        }
    }
}
