//! The shell around a long-running process of the mesh: what every daemon needs and none should invent.
//!
//! ```text
//!   logging::init                      one line an event, text or JSON, filtered by RUST_LOG
//!   open_files::raise_limit            as many connections as the machine allows
//!   Shutdown::on_signals               SIGTERM or SIGINT asks to stop; the second one exits at once
//!   TaskSet::spawn("name", future)     a task that ends early ends the process with its error
//!   Readiness::block("first sync …")   ready = every guard dropped
//!   Admin::bind(..).serve(..)          /livez /readyz /status /metrics
//! ```
//!
//! A daemon binds its listeners, spawns its tasks, and returns what [`TaskSet::run`] returns. On shutdown it is
//! first not ready, then its tasks see [`Shutdown::requested`], drain and end; what has not ended at the deadline
//! is aborted and named in the log.
//!
//! The crate knows processes. It never knows clusters, records or the kernel.

pub mod admin;
pub mod chain;
pub mod logging;
pub mod open_files;
pub mod readiness;
pub mod shutdown;
pub mod tasks;

pub use admin::{Admin, AdminPages, StatusSource};
pub use chain::Chain;
pub use logging::LogFormat;
pub use readiness::{BlockReady, Readiness};
pub use shutdown::Shutdown;
pub use tasks::{TaskError, TaskSet};
