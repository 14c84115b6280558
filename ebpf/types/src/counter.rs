//! What the programs count.

/// An index into the map `counters`: what a program did, counted per CPU.
///
/// Written by the programs, read by the agent for its metrics. Numbers are never reused. STABLE FORMAT.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Counter {
    /// A TCP connect was sent to a backend.
    TranslatedTcp = 0,
    /// A UDP connect or datagram was sent to a backend.
    TranslatedUdp = 1,
    /// A peer's address was shown as the frontend (recvmsg, getpeername).
    ReverseTranslated = 2,
    /// A client was refused because its service had no usable backend.
    NoBackend = 3,
    /// A slot was empty or named a backend that does not exist; another slot was tried.
    StaleSlot = 4,
    /// A slot named a backend of the other address family; another slot was tried.
    FamilyMismatch = 5,
    /// The kernel refused an entry in `reverse`; the client was sent on, but sees the backend's address.
    ReverseFailed = 6,
}

impl Counter {
    /// Every counter, in order of its index.
    pub const ALL: [Self; 7] = [
        Self::TranslatedTcp,
        Self::TranslatedUdp,
        Self::ReverseTranslated,
        Self::NoBackend,
        Self::StaleSlot,
        Self::FamilyMismatch,
        Self::ReverseFailed,
    ];

    /// The index in the map.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self as u32
    }

    /// The name for a metric label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TranslatedTcp => "translated_tcp",
            Self::TranslatedUdp => "translated_udp",
            Self::ReverseTranslated => "reverse_translated",
            Self::NoBackend => "no_backend",
            Self::StaleSlot => "stale_slot",
            Self::FamilyMismatch => "family_mismatch",
            Self::ReverseFailed => "reverse_failed",
        }
    }
}

const _: () = {
    let mut i = 0;
    while i < Counter::ALL.len() {
        assert!(Counter::ALL[i] as usize == i);
        i += 1;
    }
    assert!(Counter::ALL.len() <= crate::maps::COUNTERS_CAPACITY);
};
