//! Counting what the programs do.

use ebpf_types::Counter;

use crate::maps::COUNTERS;

/// Adds one to this CPU's counter.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter.index()) {
        // SAFETY: the kernel gave the pointer for this CPU's own slot of a per-CPU array, which stays where it is.
        // A program that interrupts this one on the same CPU may cost one count, nothing else.
        unsafe { *value += 1 };
    }
}
