//! Records that wait for the disk, or for an object at the API server.
//!
//! A number that a peer has seen must never come to mean something else. So what names a new identity is published once
//! its allocation is on disk, and, where objects say which number labels have, once there is one that says so. It waits
//! while the disk takes no writes, or the API server; everything else goes on.

use std::collections::BTreeSet;
use std::sync::Arc;

use kvstore::{Entry, Write};
use topology::record::Kind;
use topology::record::ip::IpValue;
use topology::{ClusterName, Identity};

use crate::identity::allocator::ALLOCATIONS;

/// The identities whose allocations are not on disk yet, or which have no object yet.
#[derive(Clone, Debug)]
pub(super) struct Held {
    numbers: BTreeSet<u32>,
    without_object: BTreeSet<u32>,
    identities: String,
    addresses: String,
}

impl Held {
    /// None yet, of this cluster.
    pub(super) fn new(cluster: &ClusterName) -> Self {
        let prefix = |kind: Kind| kind.state_prefix(cluster);
        let (identities, addresses) = (prefix(Kind::Identities), prefix(Kind::Ip));
        let (numbers, without_object) = Default::default();
        Self { numbers, without_object, identities, addresses }
    }

    /// Holds back what names the identities of these allocations.
    pub(super) fn add(&mut self, allocations: &[Write]) {
        let number = |write: &Write| {
            let number = write.key().strip_prefix(ALLOCATIONS.as_bytes())?;
            std::str::from_utf8(number).ok()?.parse::<u32>().ok()
        };
        self.numbers.extend(allocations.iter().filter_map(number));
    }

    /// Holds back what names these identities, and no others for want of an object; returns those that it held so far.
    pub(super) fn wait_for_objects(&mut self, identities: impl Iterator<Item = Identity>) -> Vec<Identity> {
        let now: BTreeSet<u32> = identities.map(|identity| identity.0).collect();
        let before = std::mem::replace(&mut self.without_object, now);
        before.difference(&self.without_object).copied().map(Identity).collect()
    }

    /// How many identities wait for an object.
    pub(super) fn without_object(&self) -> usize {
        self.without_object.len()
    }

    /// Nothing waits for the disk any more; returns how many identities did.
    pub(super) fn release(&mut self) -> usize {
        std::mem::take(&mut self.numbers).len()
    }

    /// Whether something waits for the disk.
    pub(super) fn waits_for_disk(&self) -> bool {
        !self.numbers.is_empty()
    }

    /// What becomes of a record: that of such an identity waits, and so does an address that has it. O(value).
    ///
    /// `current` is what is published under the key. If that is of another pod, it goes: nobody may take the new one for it.
    pub(super) fn fate(&self, key: &[u8], value: &[u8], current: Option<&Arc<Entry>>) -> Fate {
        if self.numbers.is_empty() && self.without_object.is_empty() {
            return Fate::Goes;
        }
        let is_held = |number: u32| self.numbers.contains(&number) || self.without_object.contains(&number);
        let holds = |number: Option<u32>| number.is_some_and(is_held);
        if let Some(number) = key.strip_prefix(self.identities.as_bytes()) {
            let number = std::str::from_utf8(number).ok().and_then(|text| text.parse().ok());
            return if holds(number) { Fate::Waits } else { Fate::Goes };
        }
        if !key.starts_with(self.addresses.as_bytes()) {
            return Fate::Goes;
        }
        let address = |value: &[u8]| serde_json::from_slice::<IpValue>(value).ok();
        let Some(wanted) = address(value).filter(|wanted| holds(Some(wanted.id))) else { return Fate::Goes };
        let of_another = |found: IpValue| {
            (found.k8s_namespace, found.k8s_pod_name) != (wanted.k8s_namespace, wanted.k8s_pod_name)
        };
        match current {
            Some(current) if address(&current.value).is_none_or(of_another) => Fate::Withdraws,
            _ => Fate::Waits,
        }
    }
}

/// What becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is published.
    Goes,
    /// It waits; what is published stays.
    Waits,
    /// It waits, and what is published goes.
    Withdraws,
}

#[cfg(test)]
mod tests {
    use kvstore::{Store, StoreOptions};

    use super::*;

    fn address(pod: &str, id: u32) -> String {
        let value =
            IpValue { id, k8s_namespace: "shop".into(), k8s_pod_name: pod.into(), ..IpValue::default() };
        serde_json::to_string(&value).expect("text keys")
    }

    #[test]
    fn what_names_an_identity_that_is_not_on_disk_waits() {
        let mut held = Held::new(&"north".parse().expect("a name"));
        let key = "cilium/state/ip/v1/default/10.9.0.7";
        let identity = "cilium/state/identities/v1/id/589826";
        let store = Store::in_memory(StoreOptions::default());
        store.put(key, address("old", 589_825)).expect("put");
        let snapshot = store.snapshot();
        let current = snapshot.get(key.as_bytes());
        let fate = |held: &Held, key: &str, value: String, current| {
            held.fate(key.as_bytes(), value.as_bytes(), current)
        };
        assert_eq!(fate(&held, key, address("new", 589_826), current), Fate::Goes);
        held.add(&[Write::Put { key: format!("{ALLOCATIONS}589826").into(), value: "k8s:app=new;".into() }]);
        assert_eq!(fate(&held, identity, "k8s:app=new;".to_owned(), None), Fate::Waits);
        assert_eq!(fate(&held, key, address("new", 589_826), None), Fate::Waits);
        assert_eq!(
            fate(&held, key, address("new", 589_826), current),
            Fate::Withdraws,
            "the address has another pod"
        );
        assert_eq!(
            fate(&held, key, address("old", 589_826), current),
            Fate::Waits,
            "the pod has other labels"
        );
        assert_eq!(fate(&held, key, address("new", 589_825), current), Fate::Goes);
        assert_eq!(
            fate(&held, "cilium/state/services/v1/north/shop/cart", "{}".to_owned(), None),
            Fate::Goes
        );
        assert_eq!(held.release(), 1);
        assert_eq!(fate(&held, key, address("new", 589_826), current), Fate::Goes);
        // For want of an object, the same.
        assert!(held.wait_for_objects([Identity(589_826)].into_iter()).is_empty());
        assert_eq!(fate(&held, key, address("new", 589_826), current), Fate::Withdraws);
        assert_eq!(fate(&held, identity, "k8s:app=new;".to_owned(), None), Fate::Waits);
        assert_eq!(held.wait_for_objects(std::iter::empty()), [Identity(589_826)]);
        assert_eq!(fate(&held, key, address("new", 589_826), current), Fate::Goes);
    }
}
