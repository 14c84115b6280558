//! Ranges of keys, as etcd's `key` and `range_end` spell them.

use bytes::Bytes;
use std::ops::Bound;

/// A set of neighbouring keys in byte order: one key, `[start, end)`, or everything from a key on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyRange {
    start: Bytes,
    end: End,
}

/// Where a range stops.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum End {
    /// After `start` itself.
    Single,
    /// Before this key.
    Before(Bytes),
    /// Nowhere.
    Open,
}

impl KeyRange {
    /// Holds one key.
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self { start: key.into(), end: End::Single }
    }

    /// Holds every key that begins with `prefix`; the empty prefix holds every key.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start = prefix.into();
        let end = after_prefix(&start).map_or(End::Open, End::Before);
        Self { start, end }
    }

    /// Holds every key.
    pub fn all() -> Self {
        Self { start: Bytes::new(), end: End::Open }
    }

    /// Reads etcd's pair: no `range_end` is one key, `range_end` of one zero byte is everything from `key` on.
    ///
    /// An inverted pair is an empty range, as in etcd.
    pub fn from_wire(key: Bytes, range_end: Bytes) -> Self {
        let end = match range_end.as_ref() {
            [] => End::Single,
            [0] => End::Open,
            _ => End::Before(range_end),
        };
        Self { start: key, end }
    }

    /// The `key` that spells this range in etcd's API, which refuses an empty one: the first possible key instead.
    pub fn wire_key(&self) -> Bytes {
        if self.start.is_empty() { Bytes::from_static(&[0]) } else { self.start.clone() }
    }

    /// The `range_end` that spells this range in etcd's API.
    pub fn wire_end(&self) -> Bytes {
        match &self.end {
            End::Single => Bytes::new(),
            End::Before(end) => end.clone(),
            End::Open => Bytes::from_static(&[0]),
        }
    }

    /// The first key that can be in the range.
    pub fn start(&self) -> &Bytes {
        &self.start
    }

    /// The same range without the keys up to and including `key`.
    pub fn after(&self, key: &[u8]) -> Self {
        let next = Self::after_key(key);
        let end = match &self.end {
            End::Single => End::Before(Self::after_key(&self.start)),
            other => other.clone(),
        };
        Self { start: next.max(self.start.clone()), end }
    }

    /// The key that follows `key` directly in byte order, as the first key of the next page.
    pub fn after_key(key: &[u8]) -> Bytes {
        let mut next = Vec::with_capacity(key.len() + 1);
        next.extend_from_slice(key);
        next.push(0);
        next.into()
    }

    /// Whether `key` is in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            End::Single => key == self.start,
            End::Before(end) => key >= self.start.as_ref() && key < end.as_ref(),
            End::Open => key >= self.start.as_ref(),
        }
    }

    /// Whether every key of `other` is in this range; an empty `other` counts as the key it starts at.
    pub fn covers(&self, other: &Self) -> bool {
        match (&self.end, &other.end) {
            (_, End::Single) => self.contains(&other.start),
            (End::Single, End::Before(end)) => {
                other.start == self.start && end.as_ref() <= Self::after_key(&self.start).as_ref()
            }
            (End::Single, End::Open) => false,
            (End::Before(ours), End::Before(theirs)) => self.contains(&other.start) && theirs <= ours,
            (End::Before(_), End::Open) => false,
            (End::Open, _) => other.start >= self.start,
        }
    }

    /// Whether no key can be in the range (an inverted pair).
    pub fn is_empty(&self) -> bool {
        matches!(&self.end, End::Before(end) if *end <= self.start)
    }

    /// Whether the range is one key.
    pub fn is_single(&self) -> bool {
        self.end == End::Single
    }

    /// The range as bounds for an ordered map; `None` if it is empty.
    pub fn bounds(&self) -> Option<Bounds<'_>> {
        if self.is_empty() {
            return None;
        }
        let start = self.start.as_ref();
        Some(match &self.end {
            End::Single => (Bound::Included(start), Bound::Included(start)),
            End::Before(end) => (Bound::Included(start), Bound::Excluded(end.as_ref())),
            End::Open => (Bound::Included(start), Bound::Unbounded),
        })
    }
}

/// First and last key of a range, as ordered maps take them.
pub type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// The first key after all keys that begin with `prefix`; `None` if there is none (`prefix` is all 0xff).
fn after_prefix(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix.get(..=last)?.to_vec();
    *end.last_mut()? += 1;
    Some(end.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prefix_ends_after_its_last_byte() {
        assert_eq!(KeyRange::prefix("cilium/.heartbeat").wire_end(), "cilium/.heartbeau");
        assert_eq!(KeyRange::prefix("cilium/state/").wire_end(), "cilium/state0");
        assert_eq!(KeyRange::prefix(vec![b'a', 0xff]).wire_end(), "b");
        assert_eq!(KeyRange::prefix(vec![0xff, 0xff]).wire_end(), Bytes::from_static(&[0]));
    }

    #[test]
    fn an_inverted_pair_is_empty() {
        let range = KeyRange::from_wire("b".into(), "a".into());
        assert!(range.is_empty());
        assert_eq!(range.bounds(), None);
        assert!(!range.contains(b"a") && !range.contains(b"b"));
    }

    #[test]
    fn grants_cover_only_what_lies_wholly_inside() {
        let granted = KeyRange::prefix("cilium/state/");
        assert!(granted.covers(&KeyRange::prefix("cilium/state/nodes/v1/")));
        assert!(granted.covers(&KeyRange::key("cilium/state/nodes")));
        assert!(!granted.covers(&KeyRange::prefix("cilium/")));
        assert!(!granted.covers(&KeyRange::from_wire("cilium/state/a".into(), Bytes::from_static(&[0]))));
        assert!(!granted.covers(&KeyRange::key("cilium/state")));
        assert!(KeyRange::all().covers(&KeyRange::all()));
        assert!(!KeyRange::key("a").covers(&KeyRange::prefix("a")));
    }

    fn range() -> impl Strategy<Value = KeyRange> {
        let key = prop::collection::vec(0u8..3, 0..3);
        (key.clone(), key).prop_map(|(key, end)| KeyRange::from_wire(key.into(), end.into()))
    }

    proptest! {
        #[test]
        fn covering_means_containing_each_key(
            a in range(), b in range(), keys in prop::collection::vec(prop::collection::vec(0u8..3, 0..4), 0..40)
        ) {
            if a.covers(&b) {
                for key in keys {
                    prop_assert!(!b.contains(&key) || a.contains(&key), "{a:?} covers {b:?} but not {key:?}");
                }
            }
        }

        #[test]
        fn after_drops_exactly_the_keys_up_to_it(a in range(), at in prop::collection::vec(0u8..3, 0..3), key in prop::collection::vec(0u8..3, 0..4)) {
            prop_assert_eq!(a.after(&at).contains(&key), a.contains(&key) && key > at);
        }
    }
}
