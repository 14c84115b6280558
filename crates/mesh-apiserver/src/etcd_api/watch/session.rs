//! One watch stream: its watches, in turn, and what the client asks of them.

use super::{
    super::{
        Api, Grants,
        fanout::{Filters, Kind},
        framing::Message,
        room::{Room, Unread},
        wire,
    },
    refiltering::Refiltering,
    watching::{Found, Piece, Told, Watching},
};
use bytes::Bytes;
use futures_util::FutureExt;
use kvstore::{
    KeyRange,
    proto::etcdserverpb::{
        WatchCreateRequest, WatchRequest, WatchResponse, watch_create_request::FilterType,
        watch_request::RequestUnion,
    },
    store::Compacted,
};
use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::Arc,
};
use tokio::{sync::Notify, time::Instant};
use tonic::{Status, Streaming};
use tracing::debug;

/// State of one stream. Beside a cursor a watch it holds one piece of events at most.
pub(super) struct Session {
    api: Api,
    grants: Arc<Grants>,
    room: Room,
    /// Tells of changes of its peer's filter; `None` for those who are never filtered.
    refiltering: Option<Refiltering>,
    requests: Streaming<WatchRequest>,
    /// `false` once the client has said all it wants; it may go on listening.
    requests_open: bool,
    watches: BTreeMap<i64, Watching>,
    /// Told when one of the watches may have events.
    wake: Arc<Notify>,
    /// Responses that come next.
    ready: VecDeque<Message>,
    /// The watch that was served last: the others come first.
    served: i64,
    next_id: i64,
    /// Responses since the client was last listened to.
    unheard: u32,
    /// A watch is looking through the history, and has not found anything yet.
    searching: bool,
    /// A watch has to read the history, for which there is no room.
    waiting: bool,
    /// Room for what was read from the history, until it has been taken.
    reading: Option<Unread>,
    /// The client wants to be told when everything has been sent.
    progress_asked: bool,
    ended: bool,
}

impl Session {
    pub(super) fn new(api: Api, grants: Arc<Grants>, room: Room, requests: Streaming<WatchRequest>) -> Self {
        let wake = Arc::default();
        let refiltering = grants.peer().map(|_| Refiltering::new(&api.fanout, &wake));
        Self {
            api,
            grants,
            room,
            refiltering,
            requests,
            requests_open: true,
            watches: BTreeMap::new(),
            wake,
            ready: VecDeque::new(),
            served: i64::MAX,
            next_id: 0,
            unheard: 0,
            searching: false,
            waiting: false,
            reading: None,
            progress_asked: false,
            ended: false,
        }
    }

    /// The next response; `None` at the end, after an error.
    pub(super) async fn next(&mut self) -> Option<Result<Message, Status>> {
        if self.ready.is_empty() {
            self.reading = None;
        }
        loop {
            if self.ended {
                return None;
            }
            if let Some(message) = self.ready.pop_front() {
                return Some(Ok(message));
            }
            // There may be no end of events, but what the client asks is heard all the same.
            self.unheard += 1;
            if self.requests_open && self.unheard > MOST_UNHEARD {
                self.unheard = 0;
                if let Some(request) = self.requests.message().now_or_never() {
                    if let Err(status) = self.take(request) {
                        return Some(Err(status));
                    }
                    continue;
                }
            }
            self.collect();
            if !self.ready.is_empty() {
                self.keep_room();
                continue;
            }
            self.reading = None;
            if self.searching {
                // Others have their turn between two stretches.
                tokio::task::yield_now().await;
                continue;
            }
            let due = self.watches.values().filter_map(Watching::progress_due).min();
            self.unheard = 0;
            // Every arm is cancel safe: a stream keeps its half-read message, the rest holds no state.
            tokio::select! {
                biased;
                request = self.requests.message(), if self.requests_open => {
                    if let Err(status) = self.take(request) {
                        return Some(Err(status));
                    }
                }
                () = self.wake.notified() => {}
                reading = self.room.unread(), if self.waiting => self.reading = reading,
                () = sleep_until(due), if due.is_some() => {}
            }
        }
    }

    /// Puts one watch's next events among the responses, or says what else there is to say.
    fn collect(&mut self) {
        (self.searching, self.waiting) = (false, false);
        let later = (Bound::Excluded(self.served), Bound::Unbounded);
        let in_turn = self.watches.range(later).chain(self.watches.range(..=self.served));
        let in_turn: Vec<i64> = in_turn.map(|(id, _)| *id).collect();
        for id in in_turn {
            let Some(watch) = self.watches.get_mut(&id) else { continue };
            let (room, reading) = (&self.room, &mut self.reading);
            let has_room = || {
                *reading = reading.take().or_else(|| room.try_unread());
                reading.is_some()
            };
            match watch.next(&self.api.fanout, has_room) {
                Ok(Found::Nothing) => {}
                Ok(Found::NoRoom) => self.waiting = true,
                Ok(Found::More) => {
                    self.served = id;
                    self.searching = true;
                    return;
                }
                Ok(Found::Piece(piece)) => {
                    self.served = id;
                    self.cancel_outdated();
                    // What was made for an outdated watch is not said.
                    if self.watches.contains_key(&id) {
                        self.say_events(id, piece);
                    }
                    return;
                }
                Err(Compacted { compact_revision, .. }) => {
                    self.watches.remove(&id);
                    self.say_compacted(id, compact_revision);
                }
            }
        }
        let due: Vec<i64> =
            self.watches.iter_mut().filter_map(|(id, watch)| watch.take_progress().then_some(*id)).collect();
        let reached = self.api.fanout.reached();
        self.cancel_outdated();
        for id in due {
            let Some(watch) = self.watches.get(&id) else { continue };
            let response = self.response(watch.delivered().min(self.api.store.revision()));
            self.say(&WatchResponse { watch_id: id, ..response });
        }
        if self.progress_asked {
            self.progress_asked = false;
            let delivered = self.watches.values().map(Watching::delivered).min();
            let revision = delivered.unwrap_or(u64::MAX).min(reached);
            self.say(&WatchResponse { watch_id: NO_WATCH, ..self.response(revision) });
        }
    }

    /// Of the room for a piece of the history keeps what the responses need; short ones need none.
    fn keep_room(&mut self) {
        let bytes: usize = self.ready.iter().map(Message::shared_bytes).sum();
        self.reading = self.reading.take().filter(|_| bytes > 0).map(|reading| reading.keep(bytes));
    }

    /// Ends the watches that began under another filter than counts now.
    ///
    /// To be called between finding out what to say and saying it: whatever lies at or after the change of the filter
    /// was handed out after the change was known, so no outdated watch ever gets so far that it could be resumed.
    fn cancel_outdated(&mut self) {
        let Some(refiltering) = &mut self.refiltering else { return };
        if !refiltering.take_change(&self.api.fanout) {
            return;
        }
        let snapshot = self.api.store.snapshot();
        let since = |watch: &Watching| {
            let since = self.api.views.policy(&snapshot, self.grants.peer(), watch.range()).since;
            watch.is_outdated(since).then_some(since)
        };
        let outdated: Vec<(i64, u64)> =
            self.watches.iter().filter_map(|(id, watch)| Some((*id, since(watch)?))).collect();
        for (id, since) in outdated {
            debug!(id, since, "watch ended, its peer's filter changed");
            self.watches.remove(&id);
            self.say_compacted(id, since + 1);
        }
    }

    /// Takes what the client said. Fails if that ends the stream.
    fn take(&mut self, request: Result<Option<WatchRequest>, Status>) -> Result<(), Status> {
        match request {
            Ok(Some(request)) => self.handle(request),
            Ok(None) => self.requests_open = false,
            Err(status) => {
                debug!(error = %status, "watch stream ended");
                self.ended = true;
                return Err(status);
            }
        }
        Ok(())
    }

    fn handle(&mut self, request: WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(create),
            Some(RequestUnion::CancelRequest(cancel)) => self.cancel(cancel.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => self.progress_asked = true,
            None => {}
        }
    }

    /// A watch that is not there is not answered for.
    fn cancel(&mut self, watch_id: i64) {
        if self.watches.remove(&watch_id).is_some() {
            let response = self.response(self.api.store.revision());
            self.say(&WatchResponse { watch_id, canceled: true, ..response });
        }
    }

    fn create(&mut self, create: WatchCreateRequest) {
        let filters: Vec<FilterType> = create.filters().collect();
        // As etcd: an empty key is the first possible one.
        let key = if create.key.is_empty() { Bytes::from_static(&[0]) } else { create.key };
        let is_empty = !matches!(create.range_end.as_ref(), [] | [0]) && create.range_end <= key;
        let range = KeyRange::from_wire(key, create.range_end);
        if self.grants.may_read(&range).is_err() {
            return self.refuse(PERMISSION_DENIED.to_owned());
        }
        if is_empty {
            return self.refuse(EMPTY_RANGE.to_owned());
        }
        let most = self.api.limits.watches_per_stream;
        if self.watches.len() >= most {
            return self.refuse(format!("too many watches on one stream, at most {most} are served"));
        }
        let filters = Filters {
            puts: !filters.contains(&FilterType::Noput),
            deletes: !filters.contains(&FilterType::Nodelete),
            previous: create.prev_kv,
        };
        let Some(place) = self.room.watch(&range, filters) else {
            return self.refuse("too many watches of this client".to_owned());
        };
        let id = match create.watch_id {
            0 => self.unused_id(),
            taken if self.watches.contains_key(&taken) => return self.refuse(DUPLICATE_ID.to_owned()),
            chosen => chosen,
        };
        let start = u64::try_from(create.start_revision).unwrap_or(0);
        let watcher = self.api.store.watch(range.clone(), start);
        // Later than where the watch begins, and the revision that the client is told is no later than the filter.
        let snapshot = self.api.store.snapshot();
        let policy = self.api.views.policy(&snapshot, self.grants.peer(), &range);
        let revision = snapshot.revision();
        self.say(&WatchResponse { watch_id: id, created: true, ..self.response(revision) });
        if let Some(compact_revision) = policy.compacted(start) {
            return self.say_compacted(id, compact_revision);
        }
        let kind = Kind { range, filters, view: policy.view };
        let subscription = self.api.fanout.subscribe(kind, &self.wake);
        let told = Told { fragment: create.fragment, progress: create.progress_notify };
        let watch = Watching::new(watcher, subscription, policy.since, place, told);
        self.watches.insert(id, watch);
    }

    /// As etcd: created and canceled at once, under an id that no watch has; the others go on.
    fn refuse(&mut self, cancel_reason: String) {
        let response = self.response(self.api.store.revision());
        let refused =
            WatchResponse { watch_id: NO_WATCH, created: true, canceled: true, cancel_reason, ..response };
        self.say(&refused);
    }

    fn unused_id(&mut self) -> i64 {
        loop {
            let id = self.next_id;
            self.next_id += 1;
            if !self.watches.contains_key(&id) {
                return id;
            }
        }
    }

    /// The header's revision is that of the last one in the piece, so nothing unsent lies before it.
    fn say_events(&mut self, id: i64, piece: Piece) {
        let count = piece.bodies.len();
        for (n, body) in piece.bodies.into_iter().enumerate() {
            let response = self.response(piece.revision);
            let first = WatchResponse { watch_id: id, fragment: n + 1 < count, ..response };
            self.ready.push_back(Message::new(&first, body));
        }
    }

    /// As after a compaction: the client has to list again.
    fn say_compacted(&mut self, watch_id: i64, compact_revision: u64) {
        let response = self.response(self.api.store.revision());
        let compact_revision = wire(compact_revision);
        self.say(&WatchResponse { watch_id, canceled: true, compact_revision, ..response });
    }

    fn say(&mut self, response: &WatchResponse) {
        self.ready.push_back(Message::new(response, Bytes::new()));
    }

    fn response(&self, revision: u64) -> WatchResponse {
        WatchResponse { header: Some(self.api.header(revision)), ..WatchResponse::default() }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// A request waits for this many responses at most.
const MOST_UNHEARD: u32 = 16;
/// The id of answers that belong to no watch.
const NO_WATCH: i64 = -1;
/// etcd's text for a refused watch.
const PERMISSION_DENIED: &str = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
/// etcd's text for a range that ends before it begins.
const EMPTY_RANGE: &str = "mvcc: watcher range is empty";
/// etcd's text for an id that is taken.
const DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";
