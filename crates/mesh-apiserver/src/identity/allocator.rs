//! Numbers for sets of labels.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;

use topology::{Identity, Labels};

/// Below it, the store keeps every allocation: `<number>` to labels. STABLE FORMAT; only administrators may
/// read it.
pub const ALLOCATIONS: &str = "isthmus/v1/hub/identities/";

/// Which set of labels has which number. Equal labels have equal numbers as long as the store lives, whether a pod has
/// them or not; only when the whole range has been given do labels that no pod has lose theirs to new ones.
#[derive(Clone, Debug)]
pub struct Allocator {
    range: RangeInclusive<u32>,
    by_labels: HashMap<Arc<Labels>, Identity>,
    by_number: BTreeMap<Identity, Arc<Labels>>,
    /// Numbers that are not to be given: an object at the API server says whose they are.
    reserved: BTreeSet<Identity>,
    /// The number after the highest one ever given.
    next: u32,
}

/// No number is left in the cluster's range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("all {} identities of the cluster are in use", range.clone().count().saturating_sub(1))]
pub struct Exhausted {
    range: RangeInclusive<u32>,
}

impl Allocator {
    /// Numbers of `range`. The first one stays free, as in stock clusters.
    pub fn new(range: RangeInclusive<u32>) -> Self {
        let next = range.start() + 1;
        let (by_labels, by_number, reserved) = Default::default();
        Self { range, by_labels, by_number, reserved, next }
    }

    /// Takes back an allocation of an earlier run. Returns false, and takes nothing, if the number is not in the
    /// range or if number or labels are known already.
    pub fn restore(&mut self, identity: Identity, labels: Labels) -> bool {
        let sound = self.range.contains(&identity.0)
            && identity.0 != *self.range.start()
            && !self.by_labels.contains_key(&labels)
            && !self.by_number.contains_key(&identity);
        if sound {
            self.insert(identity, Arc::new(labels));
        }
        sound
    }

    /// The number of these labels, and whether it is a new one. `in_use` says whether a pod has a number.
    ///
    /// Fails if it would be a new one and all are in use. O(log numbers); O(numbers) once the range has been given.
    pub fn allocate(
        &mut self,
        labels: &Labels,
        in_use: impl Fn(Identity) -> bool,
    ) -> Result<(Identity, bool), Exhausted> {
        if let Some(identity) = self.by_labels.get(labels) {
            return Ok((*identity, false));
        }
        while self.reserved.contains(&Identity(self.next)) {
            self.next += 1;
        }
        let fresh = (self.next <= *self.range.end()).then_some(self.next);
        let given = |number: &u32| self.reserved.contains(&Identity(*number));
        let free = |number: &u32| !given(number) && !self.by_number.contains_key(&Identity(*number));
        let idle = |number: &u32| !given(number) && !in_use(Identity(*number));
        let number = fresh
            .or_else(|| self.range.clone().skip(1).find(free))
            .or_else(|| self.range.clone().skip(1).find(idle))
            .ok_or_else(|| Exhausted { range: self.range.clone() })?;
        if let Some(labels) = self.by_number.remove(&Identity(number)) {
            self.by_labels.remove(&labels);
        }
        self.insert(Identity(number), Arc::new(labels.clone()));
        Ok((Identity(number), true))
    }

    /// Lets labels have a number, whatever had it or whichever they had. Returns false, and does nothing, if the number is
    /// not one of the range.
    pub fn claim(&mut self, identity: Identity, labels: Arc<Labels>) -> bool {
        if !self.range.contains(&identity.0) || identity.0 == *self.range.start() {
            return false;
        }
        self.forget(identity);
        if let Some(former) = self.by_labels.remove(&labels) {
            self.by_number.remove(&former);
        }
        self.insert(identity, labels);
        true
    }

    /// Forgets whose a number is. It is free then, unless it is reserved.
    pub fn forget(&mut self, identity: Identity) {
        if let Some(labels) = self.by_number.remove(&identity) {
            self.by_labels.remove(&labels);
        }
    }

    /// Says whether a number is to be given to nobody who does not have it.
    pub fn reserve(&mut self, identity: Identity, reserved: bool) {
        match reserved {
            true => self.reserved.insert(identity),
            false => self.reserved.remove(&identity),
        };
    }

    /// Nothing is reserved any more.
    pub fn unreserve_all(&mut self) {
        self.reserved.clear();
    }

    /// The number of labels that have one.
    pub fn number(&self, labels: &Labels) -> Option<Identity> {
        self.by_labels.get(labels).copied()
    }

    /// The labels of a number, to be shared by all who have it.
    pub fn labels(&self, identity: Identity) -> Option<&Arc<Labels>> {
        self.by_number.get(&identity)
    }

    /// All allocations, by number.
    pub fn allocations(&self) -> impl Iterator<Item = (Identity, &Labels)> {
        self.by_number.iter().map(|(identity, labels)| (*identity, &**labels))
    }

    /// Numbers given, and numbers there are.
    pub fn usage(&self) -> (usize, usize) {
        (self.by_number.len(), self.range.clone().count().saturating_sub(1))
    }

    fn insert(&mut self, identity: Identity, labels: Arc<Labels>) {
        self.by_labels.insert(Arc::clone(&labels), identity);
        self.by_number.insert(identity, labels);
        self.next = self.next.max(identity.0 + 1);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    fn labels(n: u32) -> Labels {
        format!("k8s:app=a{n};").parse().expect("labels")
    }

    #[test]
    fn numbers_are_stable_and_not_given_twice() {
        let mut allocator = Allocator::new(589_824..=589_827);
        assert_eq!(allocator.allocate(&labels(1), |_| true), Ok((Identity(589_825), true)));
        assert_eq!(allocator.allocate(&labels(2), |_| true), Ok((Identity(589_826), true)));
        assert_eq!(allocator.allocate(&labels(1), |_| true), Ok((Identity(589_825), false)));
        assert!(allocator.allocate(&labels(3), |_| true).is_ok());
        let error = allocator.allocate(&labels(4), |_| true).expect_err("three numbers are taken");
        assert_eq!(error.to_string(), "all 3 identities of the cluster are in use");
        assert_eq!(allocator.usage(), (3, 3));
    }

    #[test]
    fn labels_that_nobody_has_lose_their_number_when_the_range_is_full() {
        let mut allocator = Allocator::new(256..=258);
        assert_eq!(allocator.allocate(&labels(1), |_| false), Ok((Identity(257), true)));
        assert_eq!(allocator.allocate(&labels(2), |_| false), Ok((Identity(258), true)));
        assert_eq!(allocator.allocate(&labels(1), |_| false), Ok((Identity(257), false)), "not before");
        let only_257 = |identity: Identity| identity.0 == 257;
        assert_eq!(allocator.allocate(&labels(3), only_257), Ok((Identity(258), true)));
        assert_eq!(allocator.labels(Identity(258)).map(|found| &**found), Some(&labels(3)));
        assert!(allocator.allocate(&labels(2), |_| true).is_err());
        assert_eq!(allocator.usage(), (2, 2));
    }

    #[test]
    fn a_claim_beats_what_was_given() {
        let mut allocator = Allocator::new(256..=511);
        let (one, two) = (Identity(257), Identity(258));
        assert_eq!(allocator.allocate(&labels(1), |_| true), Ok((one, true)));
        assert_eq!(allocator.allocate(&labels(2), |_| true), Ok((two, true)));
        assert!(allocator.claim(one, Arc::new(labels(2))));
        assert_eq!(allocator.number(&labels(2)), Some(one));
        assert_eq!((allocator.number(&labels(1)), allocator.labels(two)), (None, None));
        assert!(!allocator.claim(Identity(512), Arc::new(labels(2))), "another cluster's");
        assert!(!allocator.claim(Identity(256), Arc::new(labels(2))), "the first one stays free");
        // What others have is not given.
        for reserved in [259, 260] {
            allocator.reserve(Identity(reserved), true);
        }
        assert_eq!(allocator.allocate(&labels(3), |_| true), Ok((Identity(261), true)));
        let mut full = Allocator::new(256..=258);
        full.reserve(one, true);
        assert_eq!(full.allocate(&labels(1), |_| false), Ok((two, true)));
        assert_eq!(
            full.allocate(&labels(2), |_| false),
            Ok((two, true)),
            "nobody has it, and it has no object"
        );
        full.reserve(two, true);
        assert!(full.allocate(&labels(3), |_| false).is_err());
        full.reserve(one, false);
        assert_eq!(full.allocate(&labels(3), |_| true), Ok((one, true)));
    }

    #[test]
    fn an_earlier_run_is_continued() {
        let mut allocator = Allocator::new(256..=511);
        assert!(allocator.restore(Identity(300), labels(1)));
        assert!(!allocator.restore(Identity(300), labels(2)), "the number is taken");
        assert!(!allocator.restore(Identity(301), labels(1)), "the labels are");
        assert!(!allocator.restore(Identity(512), labels(2)), "another cluster's");
        assert_eq!(allocator.allocate(&labels(1), |_| true), Ok((Identity(300), false)));
        assert_eq!(allocator.allocate(&labels(2), |_| true), Ok((Identity(301), true)));
    }

    proptest! {
        /// Whatever is asked for in whatever order, numbers and labels are one to one, also after a restart.
        #[test]
        fn numbers_and_labels_are_one_to_one(asked in proptest::collection::vec(0u32..30, 0..60), cut in 0usize..60) {
            let mut allocator = Allocator::new(256..=275);
            let mut given: BTreeMap<u32, Identity> = BTreeMap::new();
            for (at, n) in asked.iter().enumerate() {
                if at == cut {
                    let mut restored = Allocator::new(256..=275);
                    for (identity, labels) in allocator.allocations() {
                        prop_assert!(restored.restore(identity, labels.clone()));
                    }
                    allocator = restored;
                }
                match allocator.allocate(&labels(*n), |_| true) {
                    Ok((identity, new)) => prop_assert_eq!(new, given.insert(*n, identity).is_none_or(|old| old != identity)),
                    Err(_) => prop_assert!(given.len() == 19 && !given.contains_key(n)),
                }
            }
            let distinct: BTreeSet<_> = given.values().collect();
            prop_assert_eq!(distinct.len(), given.len());
        }
    }
}
