//! What runs inside a pod (the binary `lab-pod`): echo servers that say who they are, and clients that say who answered.

pub mod ask;
pub mod connect_cost;
pub mod flip;
pub mod serve;

pub use ask::{Pattern, Target};
pub use serve::Identity;
