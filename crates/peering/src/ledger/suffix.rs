//! The last parts of keys: what a key says below the prefix of its feed.

use ipnet::IpNet;
use topology::record::key::Kind;

use super::Feed;

/// What `key` says below `prefix`; `None` if it is not below it, or says nothing.
pub(super) fn suffix<'a>(prefix: &str, key: &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(key).ok()?.strip_prefix(prefix).filter(|suffix| !suffix.is_empty())
}

/// A key's last part as [`Ledger::known`](super::Ledger) writes it: one block can have two keys, with and without its length.
pub(super) fn canonical(feed: Feed, suffix: &str) -> String {
    let block = (feed == Feed::Records(Kind::Ip)).then(|| block_of(suffix)).flatten();
    block.map_or_else(|| suffix.to_owned(), |block| key_of_block(&block))
}

/// The block that an `ip` key stands for: an address, or an address and a length.
pub(super) fn block_of(suffix: &str) -> Option<IpNet> {
    match suffix.contains('/') {
        true => suffix.parse().ok(),
        false => topology::block::parse_address(suffix).map(IpNet::from),
    }
}

pub(super) fn key_of_block(block: &IpNet) -> String {
    if block.prefix_len() == block.max_prefix_len() { block.addr().to_string() } else { block.to_string() }
}
