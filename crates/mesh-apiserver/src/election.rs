//! Which of several hubs leads: whoever holds a Lease of the API server (`coordination.k8s.io/v1`), as Kubernetes' own
//! components do it; the election in etcd stays the fence.
//!
//! ```text
//!   Lease ── every 2 s ──> Campaign: View (pure) ──> Standing ──> Election ──> Replica: a mandate
//!                                                                                 │
//!                       etcd: key of the leader <── stands for election, deposes ─┘
//!                         └─> every transaction to the store          Permit ──> every write to the API server
//! ```
//! * **The Lease says who is to lead.** Its holder stands for election in etcd, and takes the key from a replica that leads
//!   without the Lease.
//! * **etcd says who can write.** A replica that was paused, or is cut off, writes nothing once another holds the key,
//!   whatever it believes.
//! * **A Lease that cannot be used elects nobody, and stops nobody.** A leader that cannot renew it goes on: while the API
//!   server is away, nobody else can have taken it. Where it is no use for longer than it lasts (the API server is away,
//!   or refuses), etcd alone elects.
//! * **To the API server** the leader writes only for as long as it knows that it has both ([`Permit`]).
//!
//! Times in a Lease are for people: what counts is how long its holder was seen to do nothing, on the own monotonic clock.
//!
//! * [`settings`]: name, namespace and times.
//! * [`view`]: what is known of the Lease and what to do about it; pure.
//! * [`campaign`]: the task that asks the API server; [`standing`]: what is known by it.
//! * [`mod@permit`]: between the hub's clients and the API server.
//! * [`metrics`]: for Prometheus.

pub mod campaign;
pub mod metrics;
pub mod permit;
pub mod settings;
pub mod standing;
pub mod view;

pub use self::campaign::Campaign;
pub use self::permit::Permit;
pub use self::settings::Settings;
pub use self::standing::{Election, Mandate, Standing};
