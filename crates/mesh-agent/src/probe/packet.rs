//! The bytes of a probe and of its answer. STABLE FORMAT.
//!
//! | bytes | content |
//! |---|---|
//! | 0..8 | `ISTHMUS` and the version, 1 |
//! | 8 | 1 probe, 2 answer |
//! | 9..16 | zero |
//! | 16..24 | the probe's number |
//! | 24..40 | answer: the source address that was seen, IPv4 in its mapped form; probe: zero |
//! | 40..42 | answer: the source port that was seen, network order; probe: zero |
//! | 42..64 | zero |

use std::net::SocketAddr;

use topology::block::{from_mapped_bytes, mapped_bytes};

/// The length of both, in bytes.
pub const LEN: usize = 64;

const MAGIC: [u8; 8] = *b"ISTHMUS\x01";
const PROBE: u8 = 1;
const ANSWER: u8 = 2;

/// A packet that makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet {
    /// A question.
    Probe {
        /// Its number.
        nonce: u64,
    },
    /// An answer.
    Answer {
        /// The number of the probe that it answers.
        nonce: u64,
        /// The source that the probe seemed to come from.
        seen: SocketAddr,
    },
}

impl Packet {
    /// The packet's bytes.
    pub fn encode(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        let nonce = match self {
            Self::Probe { nonce } => {
                bytes[8] = PROBE;
                nonce
            }
            Self::Answer { nonce, seen } => {
                bytes[8] = ANSWER;
                bytes[24..40].copy_from_slice(&mapped_bytes(seen.ip()));
                bytes[40..42].copy_from_slice(&seen.port().to_be_bytes());
                nonce
            }
        };
        bytes[16..24].copy_from_slice(&nonce.to_be_bytes());
        bytes
    }

    /// Reads a packet; `None` if it is none of ours.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; LEN] = bytes.try_into().ok()?;
        let (magic, rest) = bytes.split_first_chunk::<8>()?;
        let (kind, rest) = rest.split_first_chunk::<8>()?;
        let (nonce, rest) = rest.split_first_chunk::<8>()?;
        let (address, rest) = rest.split_first_chunk::<16>()?;
        let (port, _) = rest.split_first_chunk::<2>()?;
        let nonce = u64::from_be_bytes(*nonce);
        match (*magic == MAGIC, kind[0]) {
            (true, PROBE) => Some(Self::Probe { nonce }),
            (true, ANSWER) => {
                let seen = SocketAddr::new(from_mapped_bytes(*address), u16::from_be_bytes(*port));
                Some(Self::Answer { nonce, seen })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bytes_are_these() {
        let answer = Packet::Answer { nonce: 0x0102, seen: "10.1.0.5:9971".parse().expect("an address") };
        let bytes = answer.encode();
        assert_eq!(&bytes[..16], b"ISTHMUS\x01\x02\0\0\0\0\0\0\0");
        assert_eq!(&bytes[16..24], &[0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(&bytes[24..42], &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 0, 5, 0x26, 0xf3]);
        assert_eq!(Packet::decode(&bytes), Some(answer));
    }

    proptest! {
        #[test]
        fn anything_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(Packet::decode(&bytes).is_none() || bytes.len() == LEN);
        }

        #[test]
        fn a_probe_reads_back(nonce: u64) {
            prop_assert_eq!(Packet::decode(&Packet::Probe { nonce }.encode()), Some(Packet::Probe { nonce }));
        }
    }
}
