//! Records that wait for the disk.
//!
//! A number that a peer has seen must never come to mean something else. So what names a new identity is published once
//! its allocation is on disk, and waits while the disk takes no writes; everything else goes on.

use std::collections::BTreeSet;

use kvstore::Write;
use topology::ClusterName;
use topology::record::Kind;
use topology::record::ip::IpValue;

use crate::identity::allocator::ALLOCATIONS;

/// The identities whose allocations are not on disk yet.
#[derive(Clone, Debug)]
pub(super) struct Held {
    numbers: BTreeSet<u32>,
    identities: String,
    addresses: String,
}

impl Held {
    /// None yet, of this cluster.
    pub(super) fn new(cluster: &ClusterName) -> Self {
        let prefix = |kind: Kind| kind.state_prefix(cluster);
        let (identities, addresses) = (prefix(Kind::Identities), prefix(Kind::Ip));
        Self { numbers: BTreeSet::new(), identities, addresses }
    }

    /// Holds back what names the identities of these allocations.
    pub(super) fn add(&mut self, allocations: &[Write]) {
        let number = |write: &Write| {
            let number = write.key().strip_prefix(ALLOCATIONS.as_bytes())?;
            std::str::from_utf8(number).ok()?.parse::<u32>().ok()
        };
        self.numbers.extend(allocations.iter().filter_map(number));
    }

    /// Holds nothing back any more; returns how many identities there were.
    pub(super) fn release(&mut self) -> usize {
        std::mem::take(&mut self.numbers).len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// Whether a record has to wait: that of such an identity, or an address that has it. O(value).
    pub(super) fn holds(&self, key: &[u8], value: &[u8]) -> bool {
        if self.numbers.is_empty() {
            return false;
        }
        let number = if let Some(number) = key.strip_prefix(self.identities.as_bytes()) {
            std::str::from_utf8(number).ok().and_then(|text| text.parse().ok())
        } else if key.starts_with(self.addresses.as_bytes()) {
            serde_json::from_slice(value).ok().map(|value: IpValue| value.id)
        } else {
            None
        };
        number.is_some_and(|number| self.numbers.contains(&number))
    }
}
