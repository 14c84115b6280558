//! Lets aya copy our types.

use ebpf_types::Plain;

/// A value that goes into a map as its bytes.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Raw<T>(pub(super) T);

// SAFETY: `Raw<T>` has T's layout, and `Plain` promises what `Pod` asks for: no hidden padding, and every pattern of
// bytes is a value.
#[expect(unsafe_code, reason = "Plain carries the promise; this repeats it in aya's words")]
unsafe impl<T: Plain> aya::Pod for Raw<T> {}
