//! How much of the hub's memory a client may take: lists that it has not read, messages that it has not finished, and
//! watches.

use super::{Limits, fanout::Filters};
use http::Extensions;
use kvstore::{KeyRange, proto::etcdserverpb::RangeRequest};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

/// Room of one connection; clones are the same room. A client that asks for many lists and reads none waits for itself: its
/// further lists are not even looked for.
#[derive(Clone, Debug)]
pub(super) struct Room {
    held: Arc<Held>,
    shared: SharedRoom,
}

/// Room that several connections share: those of one holder. Clones are the same room.
#[derive(Clone, Debug)]
pub struct SharedRoom {
    share: Arc<Share>,
}

/// What a connection holds.
#[derive(Debug)]
struct Held {
    share: Share,
    lists: Mutex<Lists>,
}

/// What is taken from.
#[derive(Debug)]
struct Share {
    records: Arc<Semaphore>,
    watches: Arc<Semaphore>,
    /// KiB.
    unread: Arc<Semaphore>,
    arriving: AtomicUsize,
    /// Turns to look for a list.
    turns: Arc<Semaphore>,
    /// What is watched, and by how many watches.
    watched: Mutex<HashMap<Watched, usize>>,
    most_watched: usize,
}

/// What the fan-out encodes events for once, however many watch it.
type Watched = (KeyRange, Filters);

/// Room that a list takes until it has been handed to the connection; `None` in tests that need none.
pub(super) type Taken = Option<List>;

/// A list on its way.
#[derive(Debug)]
pub(super) struct List {
    _begun: Begun,
    _records: [OwnedSemaphorePermit; 2],
}

/// Room for events that a watch read from the history for itself, until the connection has taken them.
#[derive(Debug)]
pub(super) struct Unread {
    held: Arc<Held>,
    begun: Option<Begun>,
    places: [OwnedSemaphorePermit; 2],
}

/// On its way since a moment that is noted, until it is dropped.
#[derive(Debug)]
struct Begun {
    number: u64,
    held: Arc<Held>,
}

/// A watch's place, until it is dropped.
#[derive(Debug)]
pub(super) struct WatchPlace {
    share: Arc<Share>,
    watched: Watched,
    _places: [OwnedSemaphorePermit; 2],
}

/// Bytes of messages that are not complete yet.
#[derive(Debug)]
pub(super) struct Unfinished {
    room: Room,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Lists {
    next: u64,
    begun: BTreeMap<u64, Instant>,
}

impl Default for SharedRoom {
    fn default() -> Self {
        Self { share: Arc::new(Share::new(SHARED_RECORDS, SHARED_WATCHES, SHARED_PIECES, SHARED_WATCHED)) }
    }
}

impl Share {
    fn new(records: usize, watches: usize, pieces: usize, most_watched: usize) -> Self {
        let [records, watches, unread] =
            [records, watches, pieces * PIECE as usize].map(|places| Arc::new(Semaphore::new(places)));
        let turns = Arc::new(Semaphore::new(TURNS));
        let (arriving, watched) = (AtomicUsize::new(0), Mutex::default());
        Self { records, watches, unread, arriving, turns, watched, most_watched }
    }
}

impl SharedRoom {
    /// Room of another cluster: it has less reason to watch many different things.
    pub fn of_another_cluster() -> Self {
        Self { share: Arc::new(Share::new(SHARED_RECORDS, SHARED_WATCHES, SHARED_PIECES, OTHERS_WATCHED)) }
    }

    /// Whether this is the same room.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.share, &other.share)
    }
}

impl Room {
    /// The room of a new connection, within that of its holder.
    pub(super) fn new(shared: SharedRoom, limits: &Limits) -> Self {
        let share = Share::new(RECORDS as usize, limits.watches_per_connection, PIECES, 0);
        Self { held: Arc::new(Held { share, lists: Mutex::default() }), shared }
    }

    /// The room of a request's connection.
    pub(super) fn of(extensions: &Extensions) -> Self {
        let room = extensions.get::<Self>().cloned();
        room.unwrap_or_else(|| Self::new(SharedRoom::default(), &Limits::default()))
    }

    /// Waits for the room that a request needs: a list without a limit needs all that a connection has.
    pub(super) async fn take(&self, request: &RangeRequest) -> Taken {
        let records = records(request);
        // The semaphores are never closed. Own room first, so that nobody waits with others' room in hand.
        let own = self.held.share.records.clone().acquire_many_owned(records).await.ok()?;
        let shared = self.shared.share.records.clone().acquire_many_owned(records).await.ok()?;
        Some(List { _begun: Begun::now(&self.held), _records: [own, shared] })
    }

    /// Waits for room for a piece of the history.
    pub(super) async fn unread(&self) -> Option<Unread> {
        // As for lists.
        let own = self.held.share.unread.clone().acquire_many_owned(PIECE).await.ok()?;
        let shared = self.shared.share.unread.clone().acquire_many_owned(PIECE).await.ok()?;
        Some(Unread { held: self.held.clone(), begun: None, places: [own, shared] })
    }

    /// The same without waiting; `None` if there is none.
    pub(super) fn try_unread(&self) -> Option<Unread> {
        let own = self.held.share.unread.clone().try_acquire_many_owned(PIECE).ok()?;
        let shared = self.shared.share.unread.clone().try_acquire_many_owned(PIECE).ok()?;
        Some(Unread { held: self.held.clone(), begun: None, places: [own, shared] })
    }

    /// Waits until fewer than [`TURNS`] lists of the holder are being looked for. To look keeps a processor busy, and those
    /// of one holder queue here, not where everybody does. The turn is to be dropped when the list is found.
    pub(super) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        self.shared.share.turns.clone().acquire_owned().await.ok()
    }

    /// A place for one more watch; `None` if there are too many, or too many different ones.
    pub(super) fn watch(&self, range: &KeyRange, filters: Filters) -> Option<WatchPlace> {
        let own = self.held.share.watches.clone().try_acquire_owned().ok()?;
        let shared = self.shared.share.watches.clone().try_acquire_owned().ok()?;
        let (share, watched) = (self.shared.share.clone(), (range.clone(), filters));
        let mut all = lock(&share.watched);
        if all.len() >= share.most_watched && !all.contains_key(&watched) {
            return None;
        }
        *all.entry(watched.clone()).or_insert(0) += 1;
        drop(all);
        Some(WatchPlace { share, watched, _places: [own, shared] })
    }

    /// Nothing yet of a message.
    pub(super) fn unfinished(&self) -> Unfinished {
        Unfinished { room: self.clone(), bytes: 0 }
    }

    /// Returns once a list has not been taken by the client for `most`.
    pub(super) async fn overdue(&self, most: Duration) {
        loop {
            let now = Instant::now();
            let oldest = lock(&self.held.lists).begun.first_key_value().map(|(_, begun)| *begun + most);
            if oldest.is_some_and(|oldest| oldest <= now) {
                return;
            }
            tokio::time::sleep_until(oldest.unwrap_or(now + most)).await;
        }
    }
}

impl Unread {
    /// Keeps room for what was read.
    pub(super) fn keep(mut self, bytes: usize) -> Self {
        let surplus = (PIECE as usize).saturating_sub(bytes.div_ceil(1 << 10));
        // Split off, they are given back.
        self.places.iter_mut().for_each(|places| drop(places.split(surplus)));
        self.begun = Some(Begun::now(&self.held));
        self
    }
}

impl Begun {
    fn now(held: &Arc<Held>) -> Self {
        let mut lists = lock(&held.lists);
        let number = lists.next;
        lists.next += 1;
        lists.begun.insert(number, Instant::now());
        Self { number, held: held.clone() }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        lock(&self.held.lists).begun.remove(&self.number);
    }
}

impl Drop for WatchPlace {
    fn drop(&mut self) {
        let mut all = lock(&self.share.watched);
        let left = all.get(&self.watched).map_or(0, |watches| watches.saturating_sub(1));
        if left > 0 {
            all.insert(self.watched.clone(), left);
        } else {
            all.remove(&self.watched);
        }
    }
}

impl Unfinished {
    /// Says how many bytes of a message are held now. Fails, and holds what it held, if that is more than there is room for.
    pub(super) fn holds(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let before = self.bytes;
        self.set(bytes);
        let (own, shared) = self.counters();
        // Two connections that grow at the same moment may both be told that there is no room.
        let fits = own.load(Ordering::Relaxed) <= ARRIVING_BYTES
            && shared.load(Ordering::Relaxed) <= SHARED_ARRIVING_BYTES;
        if bytes <= before || fits {
            return Ok(());
        }
        self.set(before);
        Err(NoRoom)
    }

    fn set(&mut self, bytes: usize) {
        let (own, shared) = self.counters();
        for counter in [own, shared] {
            counter.fetch_add(bytes, Ordering::Relaxed);
            counter.fetch_sub(self.bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }

    fn counters(&self) -> (&AtomicUsize, &AtomicUsize) {
        (&self.room.held.share.arriving, &self.room.shared.share.arriving)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// There is no room for what a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRoom;

fn lock<T>(lists: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is whole, so a panic elsewhere leaves nothing half done.
    lists.lock().unwrap_or_else(PoisonError::into_inner)
}

fn records(request: &RangeRequest) -> u32 {
    if request.range_end.is_empty() || request.count_only {
        return 1;
    }
    match request.limit {
        ..=0 => RECORDS,
        limit => u32::try_from(limit).unwrap_or(RECORDS).min(RECORDS),
    }
}

/// Records on the way to one connection: dozens of pages as clients ask for them, or one whole list.
const RECORDS: u32 = 32 << 10;
/// Records on the way to all connections of one holder: four whole lists, or 512 pages as stock clients ask for them.
const SHARED_RECORDS: usize = 4 * RECORDS as usize;
/// Watches of all connections of one holder: each of a thousand agents follows about ten prefixes.
const SHARED_WATCHES: usize = 64 << 10;
/// KiB of the longest piece of the history, but for single revisions that are longer.
const PIECE: u32 = 1 << 10;
/// Such pieces on the way to one connection.
const PIECES: usize = 16;
/// Such pieces on the way to all connections of one holder; shorter ones are more.
const SHARED_PIECES: usize = 64;
/// Lists of one holder that are looked for at a time, however many it has asked for.
const TURNS: usize = 4;
/// Different ranges that one holder watches: each costs the fan-out something with every event. Own agents behind a mirror of
/// other clusters follow about ten of each of them.
const SHARED_WATCHED: usize = 6144;
/// The same, of another cluster, whose clients all follow the same ten.
const OTHERS_WATCHED: usize = 256;
/// Bytes of unfinished messages on one connection: two of the longest, or hundreds as clients send them.
const ARRIVING_BYTES: usize = 4 << 20;
/// The same, of all connections of one holder.
const SHARED_ARRIVING_BYTES: usize = 32 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn room(shared: &SharedRoom) -> Room {
        Room::new(shared.clone(), &Limits::default())
    }

    fn list(limit: i64) -> RangeRequest {
        RangeRequest { range_end: "b".into(), limit, ..RangeRequest::default() }
    }

    #[test]
    fn whole_lists_go_one_by_one_and_pages_together() {
        let room = room(&SharedRoom::default());
        let pages: Vec<Taken> = (0..65).filter_map(|_| room.take(&list(500)).now_or_never()).collect();
        assert_eq!(pages.len(), 65);
        assert!(room.take(&list(500)).now_or_never().is_none(), "the next page waits");
        assert!(room.take(&RangeRequest::default()).now_or_never().is_some(), "a single key does not");
        drop(pages);
        for limit in [0, -1, i64::MAX] {
            let whole = room.take(&list(limit)).now_or_never().expect("there is room");
            assert!(room.take(&list(1)).now_or_never().is_none());
            drop(whole);
        }
    }

    #[test]
    fn many_connections_of_one_holder_wait_for_each_other() {
        let (berlin, tokyo) = (SharedRoom::default(), SharedRoom::default());
        let lists: Vec<Taken> = (0..4).filter_map(|_| room(&berlin).take(&list(0)).now_or_never()).collect();
        assert_eq!(lists.len(), 4);
        assert!(room(&berlin).take(&list(256)).now_or_never().is_none(), "berlin's fifth waits");
        assert!(room(&tokyo).take(&list(0)).now_or_never().is_some(), "tokyo's does not");
        drop(lists);
        assert!(room(&berlin).take(&list(256)).now_or_never().is_some());
    }

    #[test]
    fn one_holder_watches_only_so_many_different_things() {
        let room = room(&SharedRoom::of_another_cluster());
        let filters = Filters { puts: true, deletes: true, previous: false };
        let watch = |n: usize| room.watch(&KeyRange::key(n.to_string()), filters);
        let mut held: Vec<_> = (0..300).filter_map(watch).collect();
        assert_eq!(held.len(), OTHERS_WATCHED);
        held.push(watch(7).expect("what others watch, too"));
        assert!(watch(300).is_none());
        held.remove(7);
        assert!(watch(300).is_none(), "it is still watched");
        held.pop();
        held.push(watch(300).expect("one has ended"));
        drop(held);
        assert!(lock(&room.shared.share.watched).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn pieces_of_the_history_take_what_they_hold() {
        let (shared, most) = (SharedRoom::default(), Duration::from_secs(300));
        let (one, other) = (room(&shared), room(&shared));
        let large: Vec<_> = (0..100).map_while(|_| Some(one.try_unread()?.keep(1 << 20))).collect();
        assert_eq!(large.len(), PIECES);
        assert!(one.unread().now_or_never().is_none(), "the next one waits");
        let small: Vec<_> = (0..100).map_while(|_| Some(other.try_unread()?.keep(9 << 10))).collect();
        assert_eq!(small.len(), 100);
        let begin = Instant::now();
        one.overdue(most).await;
        assert_eq!(begin.elapsed(), most);
        drop((large, small));
        assert!(tokio::time::timeout(most * 3, one.overdue(most)).await.is_err(), "all was taken");
        assert_eq!(shared.share.unread.available_permits(), SHARED_PIECES * PIECE as usize);
    }

    #[test]
    fn one_holder_has_a_few_turns() {
        let (berlin, tokyo) = (SharedRoom::default(), SharedRoom::default());
        let turns: Vec<_> = (0..100).filter_map(|_| room(&berlin).turn().now_or_never()).collect();
        assert_eq!(turns.len(), TURNS);
        assert!(room(&tokyo).turn().now_or_never().is_some(), "another's is free");
        drop(turns);
        assert!(room(&berlin).turn().now_or_never().is_some());
    }

    #[test]
    fn unfinished_messages_are_bounded_and_given_back() {
        let shared = SharedRoom::default();
        let one = room(&shared);
        let (mut first, mut second) = (one.unfinished(), one.unfinished());
        first.holds(3 << 20).expect("there is room");
        assert_eq!(second.holds(2 << 20), Err(NoRoom));
        second.holds(1 << 20).expect("what is left");
        first.holds(0).expect("it is complete");
        second.holds(4 << 20).expect("all of it");
        let others: Vec<Room> = (0..8).map(|_| room(&shared)).collect();
        let mut held: Vec<Unfinished> = others.iter().map(Room::unfinished).collect();
        let fitting = held.iter_mut().filter_map(|unfinished| unfinished.holds(4 << 20).ok()).count();
        assert_eq!(fitting, 7, "with the first connection's, 32 MiB");
        drop((first, second, held));
        assert!(
            others.iter().all(|room| room.held.share.arriving.load(Ordering::Relaxed) == 0),
            "{others:?}"
        );
        assert_eq!(shared.share.arriving.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_nobody_takes_is_overdue() {
        let room = room(&SharedRoom::default());
        let most = Duration::from_secs(300);
        let taken = room.take(&list(1)).await;
        let begin = Instant::now();
        room.overdue(most).await;
        assert_eq!(begin.elapsed(), most);
        drop(taken);
        assert!(tokio::time::timeout(most * 3, room.overdue(most)).await.is_err(), "it was taken");
    }
}
