//! Places for connections whose TLS handshake is not complete: nobody knows yet who they are.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many handshakes are under way, in all and for each address. One machine that opens connections and says nothing
/// takes its own places, not everybody's. Clones share the places.
#[derive(Clone, Debug, Default)]
pub struct Handshakes {
    held: Arc<Mutex<Held>>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Handshake {
    places: Handshakes,
    of: IpAddr,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl Handshakes {
    /// A place for a connection from this address; `None` if there are too many from there, or in all.
    pub fn begin(&self, from: IpAddr) -> Option<Handshake> {
        let of = subnet(from);
        let mut held = self.held();
        let here = held.by_address.get(&of).copied().unwrap_or(0);
        if held.all >= MAX_HANDSHAKES || here >= MAX_FROM_ONE_ADDRESS {
            return None;
        }
        held.all += 1;
        held.by_address.insert(of, here + 1);
        drop(held);
        Some(Handshake { places: self.clone(), of })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Each change is whole, so a panic elsewhere leaves nothing half done.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut held = self.places.held();
        held.all -= 1;
        let here = held.by_address.get(&self.of).copied().unwrap_or(0);
        if here > 1 {
            held.by_address.insert(self.of, here - 1);
        } else {
            held.by_address.remove(&self.of);
        }
    }
}

/// An IPv6 machine has a whole /64 to send from.
pub(super) fn subnet(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}

/// Handshakes at a time.
pub const MAX_HANDSHAKES: usize = 4096;
/// Handshakes at a time from one IPv4 address or IPv6 /64: after a restart all agents that are behind one translated address
/// come back at once.
pub const MAX_FROM_ONE_ADDRESS: usize = MAX_HANDSHAKES / 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_does_not_take_the_places_of_others() {
        let places = Handshakes::default();
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        for (one, same, other) in [
            ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
            ("2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1"),
        ] {
            let mut silent: Vec<_> =
                (0..MAX_FROM_ONE_ADDRESS).map(|_| places.begin(address(one)).expect("a place")).collect();
            assert!(places.begin(address(same)).is_none(), "{same} after {one}");
            assert!(places.begin(address(other)).is_some(), "{other} after {one}");
            silent.pop();
            assert!(places.begin(address(same)).is_some(), "one of {one} has ended");
        }
        assert!(places.held().by_address.is_empty() && places.held().all == 0, "{places:?}");
        let all: Vec<_> =
            (0..).map_while(|n: u32| places.begin(IpAddr::V4((0x0a00_0000 + n).into()))).collect();
        assert_eq!(all.len(), MAX_HANDSHAKES);
    }
}
