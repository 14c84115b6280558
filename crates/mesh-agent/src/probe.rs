//! UDP probes between agents: does the data path to that node work, and which source address does it see?
//!
//! A probe and its answer are [`packet::LEN`] bytes each, so that a forged source gains nothing. An answer counts
//! only with the number of a probe that was really sent, 64 bits that cannot be guessed.

pub mod packet;
pub mod prober;
pub mod responder;

pub use prober::{ProbeReport, Prober, Timing};
