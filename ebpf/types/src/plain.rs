//! Which types may be copied to and from a map as bytes.

use crate::{
    Address, Backend, FrontendAddr, FrontendKey, IpcacheEntry, IpcacheKey, ReverseKey, ServiceEntry,
};

/// A type whose value is exactly its bytes.
///
/// # Safety
/// The implementor is `#[repr(C)]` or a primitive integer, has no padding that is not a field, holds no
/// reference or pointer, and every pattern of bytes is a value of it.
#[expect(unsafe_code, reason = "the promise cannot be checked by the compiler")]
pub unsafe trait Plain: Copy + 'static {}

/// Implements [`Plain`] for types of this crate.
macro_rules! plain {
    ($($ty:ty),+ $(,)?) => {
        $(
            // SAFETY: repr(C) over integers and byte arrays (or an integer itself); the size is asserted beside
            // the type to be the sum of its fields, so there is no hidden padding.
            #[expect(unsafe_code, reason = "the layout is asserted beside each type")]
            unsafe impl Plain for $ty {}
        )+
    };
}

plain!(
    u32,
    u64,
    Address,
    FrontendKey,
    ServiceEntry,
    FrontendAddr,
    Backend,
    ReverseKey,
    IpcacheKey,
    IpcacheEntry
);
