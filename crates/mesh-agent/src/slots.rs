//! Which slice of the flat slot array belongs to which service.
//!
//! A service's slots are written into a slice that nobody reads, then its entry is swapped to it; the old slice
//! is given back after a grace period. So a program sees the old list or the new one, never half of one.

use std::collections::BTreeMap;

/// A run of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slice {
    /// The first slot.
    pub offset: u32,
    /// How many.
    pub len: u32,
}

/// Hands out slices of `0..capacity`, first fit; neighbours that are given back are joined.
#[derive(Clone, Debug)]
pub struct SlotAllocator {
    /// Free runs by offset; no two touch.
    free: BTreeMap<u32, u32>,
    capacity: u32,
}

impl SlotAllocator {
    /// All of `0..capacity` is free.
    pub fn new(capacity: u32) -> Self {
        Self { free: BTreeMap::from([(0, capacity)]), capacity }
    }

    /// Takes a slice of `len` slots; `None` if no free run is long enough. O(free runs).
    pub fn take(&mut self, len: u32) -> Option<Slice> {
        if len == 0 {
            return Some(Slice { offset: 0, len: 0 });
        }
        let (offset, run) = self.free.iter().find(|(_, run)| **run >= len).map(|(o, r)| (*o, *r))?;
        self.free.remove(&offset);
        if run > len {
            self.free.insert(offset + len, run - len);
        }
        Some(Slice { offset, len })
    }

    /// Takes exactly this slice, as found in the kernel; false if it is not all free or not inside the array.
    pub fn take_exactly(&mut self, slice: Slice) -> bool {
        if slice.len == 0 {
            return true;
        }
        let Some(end) = slice.offset.checked_add(slice.len).filter(|end| *end <= self.capacity) else {
            return false;
        };
        let Some((start, run)) = self.free.range(..=slice.offset).next_back().map(|(o, r)| (*o, *r)) else {
            return false;
        };
        if start + run < end {
            return false;
        }
        self.free.remove(&start);
        if slice.offset > start {
            self.free.insert(start, slice.offset - start);
        }
        if start + run > end {
            self.free.insert(end, start + run - end);
        }
        true
    }

    /// Gives a slice back. The caller gives back what it took, once.
    pub fn give_back(&mut self, slice: Slice) {
        if slice.len == 0 {
            return;
        }
        let (mut offset, mut len) = (slice.offset, slice.len);
        if let Some((before, run)) = self.free.range(..offset).next_back().map(|(o, r)| (*o, *r)) {
            debug_assert!(before + run <= offset, "a slice is given back once");
            if before + run == offset {
                self.free.remove(&before);
                (offset, len) = (before, run + len);
            }
        }
        if let Some(run) = self.free.remove(&(slice.offset + slice.len)) {
            len += run;
        }
        self.free.insert(offset, len);
    }

    /// How many slots are free, in runs of any length.
    pub fn available(&self) -> u32 {
        self.free.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_full_array_gives_nothing_and_recovers() {
        let mut slots = SlotAllocator::new(10);
        let a = slots.take(6).expect("free");
        let b = slots.take(4).expect("free");
        assert_eq!(slots.take(1), None);
        slots.give_back(a);
        slots.give_back(b);
        assert_eq!(slots.take(10), Some(Slice { offset: 0, len: 10 }));
    }

    #[test]
    fn slices_found_in_the_kernel_are_taken_or_refused() {
        let mut slots = SlotAllocator::new(10);
        assert!(slots.take_exactly(Slice { offset: 3, len: 4 }));
        assert!(!slots.take_exactly(Slice { offset: 6, len: 1 }));
        assert!(!slots.take_exactly(Slice { offset: 9, len: 2 }));
        assert!(!slots.take_exactly(Slice { offset: u32::MAX, len: 2 }));
        assert_eq!(slots.take(4), None, "two runs of three are left");
        assert_eq!(slots.available(), 6);
    }

    proptest! {
        /// Slices in use never overlap, and what is free plus what is used is always everything.
        #[test]
        fn slices_never_overlap(steps in prop::collection::vec((0u32..9, any::<prop::sample::Index>()), 1..80)) {
            let mut slots = SlotAllocator::new(40);
            let mut used: Vec<Slice> = Vec::new();
            for (len, index) in steps {
                if len == 0 {
                    if !used.is_empty() {
                        slots.give_back(used.swap_remove(index.index(used.len())));
                    }
                } else if let Some(slice) = slots.take(len) {
                    for other in &used {
                        prop_assert!(slice.offset >= other.offset + other.len || other.offset >= slice.offset + slice.len);
                    }
                    used.push(slice);
                }
                prop_assert_eq!(slots.available() + used.iter().map(|s| s.len).sum::<u32>(), 40);
            }
            for slice in used.drain(..) {
                slots.give_back(slice);
            }
            prop_assert_eq!(slots.take(40), Some(Slice { offset: 0, len: 40 }));
        }
    }
}
