//! Security identities of the own cluster: equal labels, equal number, for as long as the objects or the store live.
//!
//! * [`filter`]: which labels count.
//! * [`Allocator`]: which number they get.
//! * [`numbering`]: who says so: the hub's store, objects at the API server, or Cilium.
//! * [`mesh_resources::mesh_identity`]: the definition of those objects.
//! * [`registry`]: what they say; pure.
//! * [`collector`]: which of them nobody uses any more; pure.
//! * [`registrar`]: creates, marks and deletes them.

pub mod allocator;
pub mod collector;
pub mod filter;
pub mod numbering;
pub mod registrar;
pub mod registry;

pub use allocator::{Allocator, Exhausted};
pub use filter::{LabelFilter, security_labels};
pub use numbering::{Numbering, Options};
pub use registry::Registry;
