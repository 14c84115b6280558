//! Places for connections whose TLS handshake is not complete: nobody knows yet who they are.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// How many handshakes are under way, in all and for each address. One machine that opens connections and says nothing
/// takes its own places, not everybody's; where many do and all places are taken, whoever has the most loses its
/// oldest to one who has fewer. Clones share the places.
#[derive(Clone, Debug, Default)]
pub struct Handshakes {
    held: Arc<Mutex<Held>>,
}

/// A place, until it is dropped or given to another.
#[derive(Debug)]
pub struct Handshake {
    places: Handshakes,
    of: IpAddr,
    number: u64,
    lost: oneshot::Receiver<()>,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    begun: u64,
    /// Oldest first; none is empty.
    by_address: HashMap<IpAddr, VecDeque<Place>>,
}

#[derive(Debug)]
struct Place {
    number: u64,
    /// Dropped when somebody else gets the place.
    _kept: oneshot::Sender<()>,
}

impl Handshakes {
    /// A place for a connection from this address; `None` if there are too many from there, or all places are taken and
    /// nobody has more than one more of them. Looks through the addresses only when all places are taken.
    pub fn begin(&self, from: IpAddr) -> Option<Handshake> {
        let of = subnet(from);
        let mut held = self.held();
        let here = held.by_address.get(&of).map_or(0, VecDeque::len);
        if here >= MAX_FROM_ONE_ADDRESS || (held.all >= MAX_HANDSHAKES && !held.make_room(here)) {
            return None;
        }
        let (kept, lost) = oneshot::channel();
        let number = held.begun;
        held.begun += 1;
        held.all += 1;
        held.by_address.entry(of).or_default().push_back(Place { number, _kept: kept });
        drop(held);
        Some(Handshake { places: self.clone(), of, number, lost })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Each change is whole, so a panic elsewhere leaves nothing half done.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Takes the oldest place from an address that has most of them, if it still has no fewer than `here` and the
    /// newcomer's then: otherwise places would only go round.
    fn make_room(&mut self, here: usize) -> bool {
        let oldest = |places: &VecDeque<Place>| std::cmp::Reverse(places.front().map(|place| place.number));
        let most = self.by_address.iter().max_by_key(|(_, places)| (places.len(), oldest(places)));
        let Some((&of, places)) = most else { return false };
        let Some(number) = places.front().map(|place| place.number).filter(|_| places.len() > here + 1)
        else {
            return false;
        };
        self.end(of, number);
        true
    }

    fn end(&mut self, of: IpAddr, number: u64) {
        let Some(places) = self.by_address.get_mut(&of) else { return };
        // Sorted: numbers only grow.
        let Ok(at) = places.binary_search_by_key(&number, |place| place.number) else { return };
        places.remove(at);
        self.all -= 1;
        if places.is_empty() {
            self.by_address.remove(&of);
        }
    }
}

impl Handshake {
    /// Returns when somebody else has got the place.
    pub async fn lost(&mut self) {
        // Nothing is ever sent: the sender is dropped with the place.
        drop((&mut self.lost).await);
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.places.held().end(self.of, self.number);
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

    #[test]
    fn who_has_most_makes_room_for_who_has_fewer() {
        let places = Handshakes::default();
        let address = |n: usize| IpAddr::V4((0x0a00_0000 + u32::try_from(n).expect("small")).into());
        let mut silent: Vec<_> =
            (0..MAX_HANDSHAKES).map(|n| places.begin(address(n % 4)).expect("a place")).collect();
        let is_lost =
            |place: &mut Handshake| place.lost.try_recv() == Err(oneshot::error::TryRecvError::Closed);
        let mut late = places.begin(address(7)).expect("room was made");
        assert!(is_lost(&mut silent[0]) && !is_lost(&mut silent[1]) && !is_lost(&mut late));
        // Its end is that of the other's, whenever it notices.
        drop(silent.remove(0));
        assert_eq!(places.held().all, MAX_HANDSHAKES);
        assert!(places.begin(address(1)).is_none(), "nobody has more than it may have");
        let more: Vec<_> = (0..2000).map_while(|_| places.begin(address(7))).collect();
        drop(late);
        let held = [0, 1, 2, 3, 7].map(|n| places.held().by_address[&address(n)].len());
        assert!(held.iter().all(|count| (818..=820).contains(count)), "{held:?} after {}", more.len());
        drop((silent, more));
        assert!(places.held().by_address.is_empty() && places.held().all == 0, "{places:?}");
    }
}
