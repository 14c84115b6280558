//! Who the peers are that the hub itself follows: one map, fed by a folder, by a Secret in ClusterMesh's layout, and by
//! `ClusterPeer` objects.
//!
//! ```text
//!   --peers FOLDER ────────┐
//!   --peers-secret NS/NAME ┼─ Said ─> merged (pure) ─> Followers ─> views ─> remote_slices
//!   ClusterPeer objects ───┘              │                          │
//!           └────────── conditions <──────┴───────── Standing <──────┘
//! ```
//! * [`merged`]: which input counts for which peer; pure.
//! * [`secret`]: the Secret, followed.
//! * [`objects`]: what `ClusterPeer` objects say.
//! * [`follow`]: the task.
//! * [`metrics`]: what it counts.
//!
//! Nobody is followed before each input has been read once, or has said why it cannot be: a pause may be in the one that is
//! not read yet. What an input said before counts for as long as it says nothing else.

pub mod follow;
pub mod merged;
pub mod metrics;
pub mod objects;
pub mod secret;

pub use follow::{PeerTask, Peers, Standing, Standings};
pub use merged::{Input, Said};
pub use objects::FromObjects;
