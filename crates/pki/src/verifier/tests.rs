//! Real handshakes through memory, honest and hostile.

mod chains;
mod clients;
mod documents;
mod foreign;
mod kinds;
mod noise;
mod openssl;
mod servers;
mod sessions;
mod stores;
