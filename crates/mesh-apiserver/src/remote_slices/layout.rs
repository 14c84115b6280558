//! Which slice holds which endpoint. Pure.
//!
//! Endpoints stay in the slice that they are in; new ones fill slices that have room, and what is left over makes new
//! slices. So a change of one endpoint writes one slice, and a hub that restarts writes none.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

/// A slice as it is to be: its name, if it is there already, and its endpoints. Without any it is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filled {
    /// The slice that is there; `None` for a new one.
    pub slice: Option<String>,
    /// Addresses of its endpoints, in order.
    pub addresses: BTreeSet<IpAddr>,
}

/// Distributes `wanted` among the slices that there are, by name with the addresses that each holds, and new ones, `limit`
/// at most in each. O((there + wanted) log).
pub fn layout(
    there: &BTreeMap<String, BTreeSet<IpAddr>>,
    wanted: &BTreeSet<IpAddr>,
    limit: usize,
) -> Vec<Filled> {
    let mut placed = BTreeSet::new();
    let mut filled: Vec<Filled> = there
        .iter()
        .map(|(name, held)| {
            let keeps = held.iter().filter(|address| wanted.contains(*address) && !placed.contains(*address));
            let addresses: BTreeSet<IpAddr> = keeps.copied().take(limit).collect();
            placed.extend(addresses.iter().copied());
            Filled { slice: Some(name.clone()), addresses }
        })
        .collect();
    let mut left: VecDeque<IpAddr> = wanted.difference(&placed).copied().collect();
    // The fullest first, so that few slices are touched and those that empty can go.
    let mut order: Vec<usize> = (0..filled.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(filled.get(*at).map_or(0, |slice| slice.addresses.len())));
    for at in order {
        let Some(slice) = filled.get_mut(at) else { continue };
        let room = limit.saturating_sub(slice.addresses.len()).min(left.len());
        slice.addresses.extend(left.drain(..room));
    }
    while !left.is_empty() {
        let addresses = left.drain(..limit.max(1).min(left.len())).collect();
        filled.push(Filled { slice: None, addresses });
    }
    filled
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    fn set(numbers: impl IntoIterator<Item = u8>) -> BTreeSet<IpAddr> {
        numbers.into_iter().map(address).collect()
    }

    #[test]
    fn one_change_is_one_slice() {
        let there = BTreeMap::from([("a".to_owned(), set(0..4)), ("b".to_owned(), set(4..8))]);
        let filled = layout(&there, &set((0..8).filter(|n| *n != 1)), 4);
        assert_eq!(filled[0].addresses, set([0, 2, 3]));
        assert_eq!(filled[1].addresses, set(4..8));
        let filled = layout(&there, &set((0..8).filter(|n| *n != 1).chain([9])), 4);
        assert_eq!(filled[0].addresses, set([0, 2, 3, 9]), "the room is used");
        let filled = layout(&there, &set(0..9), 4);
        assert_eq!(filled[2], Filled { slice: None, addresses: set([8]) });
        assert_eq!(layout(&there, &set(4..8), 4)[0].addresses, set([]), "an empty one is to go");
    }

    proptest! {
        #[test]
        fn every_endpoint_is_in_one_slice(
            there in prop::collection::btree_map("[a-d]", prop::collection::btree_set(0u8..40, 0..12), 0..4),
            wanted in prop::collection::btree_set(0u8..40, 0..40),
            limit in 1usize..8,
        ) {
            let there = there.into_iter().map(|(name, held)| (name, set(held))).collect();
            let wanted = set(wanted);
            let filled = layout(&there, &wanted, limit);
            let all: Vec<IpAddr> = filled.iter().flat_map(|slice| slice.addresses.iter().copied()).collect();
            prop_assert_eq!(all.len(), wanted.len());
            prop_assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), wanted.clone());
            prop_assert!(filled.iter().all(|slice| slice.addresses.len() <= limit));
            prop_assert_eq!(filled.iter().filter(|slice| slice.slice.is_some()).count(), there.len());
            prop_assert!(filled.iter().all(|slice| slice.slice.is_some() || !slice.addresses.is_empty()));
            // What has been laid out stays.
            let named = filled.iter().enumerate().map(|(at, slice)| (format!("{at:03}"), slice.addresses.clone()));
            let named: BTreeMap<_, _> = named.collect();
            let again = layout(&named, &wanted, limit);
            for slice in again {
                prop_assert_eq!(slice.slice.and_then(|name| named.get(&name).cloned()), Some(slice.addresses));
            }
        }
    }
}
