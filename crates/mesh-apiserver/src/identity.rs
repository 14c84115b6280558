//! Security identities of the own cluster: equal labels, equal number, for as long as the store lives.
//!
//! * [`filter`]: which labels count.
//! * [`Allocator`]: which number they get.

pub mod allocator;
pub mod filter;

pub use allocator::{Allocator, Exhausted};
pub use filter::security_labels;
