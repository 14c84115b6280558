//! Who is at the other end of a connection: webpki's path building, then the rules that webpki does not have.
//!
//! webpki checks signatures, dates, name constraints and (if present) the extended key usage. `judge` adds the rest:
//! the root's own dates and blocks, the shape of passport and leaf, and above all **a common name counts only under
//! the right issuer**. One verifier value serves one connection, so its result belongs to that connection.
//!
//! What is cryptographically wrong fails the handshake. A sound chain that our rules refuse completes it, and the
//! identity says why: an alert has no text, so answering every call with the reason is the only way to tell the peer.

#[cfg(test)]
mod careless;
#[cfg(test)]
mod fixture;
mod handshake;
mod identity;
mod judge;
mod refusal;
mod role;
mod sentence;
mod store;

pub(crate) use handshake::{PeerVerifier, Side, check_issued};
pub use identity::{Accepted, Expected, Outcome, PeerIdentity, Role};
pub use refusal::Refusal;

#[cfg(test)]
mod tests;
