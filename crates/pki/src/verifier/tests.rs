//! Real handshakes through memory, honest and hostile.

mod clients;
mod noise;
mod servers;
mod sessions;
mod stores;
