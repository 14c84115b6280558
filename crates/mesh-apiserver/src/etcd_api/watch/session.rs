//! One watch stream: a task that owns its watches and sends their events.

use super::super::{Api, Grants, range::key_value, wire};
use bytes::Bytes;
use kvstore::{
    Event, EventKind, KeyRange, Watcher,
    proto::{
        Message,
        etcdserverpb::{
            WatchCreateRequest, WatchRequest, WatchResponse, watch_create_request::FilterType,
            watch_request::RequestUnion,
        },
        mvccpb::{self, event::EventType},
    },
    store::{Changes, Compacted},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::Instant};
use tonic::{Status, Streaming};
use tracing::debug;

/// State of one stream. It holds a cursor a watch and at most one piece of events at a time.
pub(super) struct Session {
    api: Api,
    grants: Arc<Grants>,
    out: mpsc::Sender<Result<WatchResponse, Status>>,
    watches: BTreeMap<i64, Watch>,
    next_id: i64,
    /// The client wants to be told when everything has been sent.
    progress_asked: bool,
}

struct Watch {
    watcher: Watcher,
    previous: bool,
    fragment: bool,
    puts: bool,
    deletes: bool,
    /// When to tell the client how far it is, if nothing else is sent; `None` if it did not ask.
    progress_due: Option<Instant>,
}

/// The client is gone.
struct Gone;

impl Session {
    pub(super) fn new(
        api: Api,
        grants: Arc<Grants>,
        out: mpsc::Sender<Result<WatchResponse, Status>>,
    ) -> Self {
        Self { api, grants, out, watches: BTreeMap::new(), next_id: 0, progress_asked: false }
    }

    /// Serves the stream until the client goes or breaks the protocol.
    pub(super) async fn run(mut self, mut requests: Streaming<WatchRequest>) {
        let mut progress = self.api.store.progress();
        let mut requests_open = true;
        loop {
            progress.mark_unchanged();
            let Ok(idle) = self.deliver().await else { return };
            let due = self.watches.values().filter_map(|watch| watch.progress_due).min();
            // Every arm is cancel safe: a stream keeps its half-read message, the rest holds no state.
            tokio::select! {
                biased;
                () = self.out.closed() => return,
                request = requests.message(), if requests_open => match request {
                    Ok(Some(request)) => if self.handle(request).await.is_err() { return },
                    // A client that has said all it wants may go on listening.
                    Ok(None) => requests_open = false,
                    Err(status) => {
                        debug!(error = %status, "watch stream ended");
                        return;
                    }
                },
                () = std::future::ready(()), if !idle => tokio::task::yield_now().await,
                changed = progress.changed() => if changed.is_err() { return },
                () = sleep_until(due), if due.is_some() => {}
            }
        }
    }

    /// Sends one piece of events of each watch that has any. Returns whether nothing is left to send.
    async fn deliver(&mut self) -> Result<bool, Gone> {
        let mut idle = true;
        let mut ended = Vec::new();
        for (id, watch) in &mut self.watches {
            match watch.watcher.take() {
                Ok(Some(changes)) => {
                    idle = false;
                    watch.send(*id, changes, &self.api, &self.out).await?;
                }
                Ok(None) => watch.send_progress(*id, &self.api, &self.out).await?,
                Err(Compacted { compact_revision, .. }) => ended.push((*id, compact_revision)),
            }
        }
        for (id, compact_revision) in ended {
            self.watches.remove(&id);
            let response = WatchResponse {
                watch_id: id,
                canceled: true,
                compact_revision: wire(compact_revision),
                ..self.response(self.api.store.revision())
            };
            self.send(response).await?;
        }
        if idle && self.progress_asked {
            self.progress_asked = false;
            let sent = self.watches.values().map(|watch| watch.watcher.next_revision() - 1).min();
            let revision = self.api.store.revision();
            let revision = sent.map_or(revision, |sent| sent.min(revision));
            self.send(WatchResponse { watch_id: NO_WATCH, ..self.response(revision) }).await?;
        }
        Ok(idle)
    }

    async fn handle(&mut self, request: WatchRequest) -> Result<(), Gone> {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(create).await,
            Some(RequestUnion::CancelRequest(cancel)) => match self.watches.remove(&cancel.watch_id) {
                Some(_) => {
                    let response = self.response(self.api.store.revision());
                    self.send(WatchResponse { watch_id: cancel.watch_id, canceled: true, ..response }).await
                }
                None => Ok(()),
            },
            Some(RequestUnion::ProgressRequest(_)) => {
                self.progress_asked = true;
                Ok(())
            }
            None => Ok(()),
        }
    }

    async fn create(&mut self, create: WatchCreateRequest) -> Result<(), Gone> {
        let filters: Vec<FilterType> = create.filters().collect();
        // As etcd: an empty key is the first possible one.
        let key = if create.key.is_empty() { Bytes::from_static(&[0]) } else { create.key };
        let range = KeyRange::from_wire(key, create.range_end);
        if self.grants.may_read(&range).is_err() {
            return self.refuse(PERMISSION_DENIED.to_owned()).await;
        }
        let most = self.api.limits.watches_per_stream;
        if self.watches.len() >= most {
            return self.refuse(format!("too many watches on one stream, at most {most} are served")).await;
        }
        let id = match create.watch_id {
            0 => self.unused_id(),
            taken if self.watches.contains_key(&taken) => {
                return self.refuse(DUPLICATE_ID.to_owned()).await;
            }
            chosen => chosen,
        };
        let start = u64::try_from(create.start_revision).unwrap_or(0);
        let watcher = self.api.store.watch(range, start);
        let watch = Watch {
            watcher,
            previous: create.prev_kv,
            fragment: create.fragment,
            puts: !filters.contains(&FilterType::Noput),
            deletes: !filters.contains(&FilterType::Nodelete),
            progress_due: create.progress_notify.then(|| Instant::now() + PROGRESS_INTERVAL),
        };
        let revision = self.api.store.revision();
        let response = WatchResponse { watch_id: id, created: true, ..self.response(revision) };
        self.watches.insert(id, watch);
        self.send(response).await
    }

    /// As etcd: created and canceled at once, under an id that no watch has; the others go on.
    async fn refuse(&self, cancel_reason: String) -> Result<(), Gone> {
        let response = self.response(self.api.store.revision());
        let refused =
            WatchResponse { watch_id: NO_WATCH, created: true, canceled: true, cancel_reason, ..response };
        self.send(refused).await
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

    fn response(&self, revision: u64) -> WatchResponse {
        WatchResponse { header: Some(self.api.header(revision)), ..WatchResponse::default() }
    }

    async fn send(&self, response: WatchResponse) -> Result<(), Gone> {
        self.out.send(Ok(response)).await.map_err(|_closed| Gone)
    }
}

impl Watch {
    /// Sends whole revisions. The header's revision is that of the last one, so nothing unsent lies before it.
    async fn send(
        &mut self,
        id: i64,
        changes: Changes,
        api: &Api,
        out: &mpsc::Sender<Result<WatchResponse, Status>>,
    ) -> Result<(), Gone> {
        let wanted = |event: &Event| match event.kind {
            EventKind::Put => self.puts,
            EventKind::Delete => self.deletes,
        };
        let events = changes.events.iter().filter(|event| wanted(event));
        let mut events: Vec<mvccpb::Event> = events.map(|event| wire_event(event, self.previous)).collect();
        if events.is_empty() {
            return Ok(());
        }
        if let Some(due) = &mut self.progress_due {
            *due = Instant::now() + PROGRESS_INTERVAL;
        }
        let mut rest = events.as_mut_slice();
        loop {
            let taken = if self.fragment { fitting(rest) } else { rest.len() };
            let (piece, later) = rest.split_at_mut(taken);
            let response = WatchResponse {
                header: Some(api.header(changes.revision)),
                watch_id: id,
                fragment: !later.is_empty(),
                events: piece.iter_mut().map(std::mem::take).collect(),
                ..WatchResponse::default()
            };
            out.send(Ok(response)).await.map_err(|_closed| Gone)?;
            if later.is_empty() {
                return Ok(());
            }
            rest = later;
        }
    }

    /// Tells the client how far it is, if it is time to.
    async fn send_progress(
        &mut self,
        id: i64,
        api: &Api,
        out: &mpsc::Sender<Result<WatchResponse, Status>>,
    ) -> Result<(), Gone> {
        let Some(due) = self.progress_due.filter(|due| *due <= Instant::now()) else { return Ok(()) };
        self.progress_due = Some(due + PROGRESS_INTERVAL);
        let revision = (self.watcher.next_revision() - 1).min(api.store.revision());
        let response =
            WatchResponse { header: Some(api.header(revision)), watch_id: id, ..WatchResponse::default() };
        out.send(Ok(response)).await.map_err(|_closed| Gone)
    }
}

fn wire_event(event: &Event, previous: bool) -> mvccpb::Event {
    let kv = match event.kind {
        EventKind::Put => key_value(&event.entry, false),
        // As etcd: a deletion has its key and its revision, nothing else.
        EventKind::Delete => mvccpb::KeyValue {
            key: event.entry.key.clone(),
            mod_revision: wire(event.entry.mod_revision),
            ..mvccpb::KeyValue::default()
        },
    };
    let kind = match event.kind {
        EventKind::Put => EventType::Put,
        EventKind::Delete => EventType::Delete,
    };
    let prev_kv = event.previous.as_ref().filter(|_| previous).map(|entry| key_value(entry, false));
    mvccpb::Event { r#type: kind.into(), kv: Some(kv), prev_kv }
}

/// How many of the events fit into one fragment; at least one.
fn fitting(events: &[mvccpb::Event]) -> usize {
    let mut bytes = 0;
    let fit = events.iter().take_while(|event| {
        bytes += event.encoded_len();
        bytes <= FRAGMENT_BYTES
    });
    fit.count().max(1).min(events.len())
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// The id of answers that belong to no watch.
const NO_WATCH: i64 = -1;
/// etcd's text for a refused watch.
const PERMISSION_DENIED: &str = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
/// etcd's text for an id that is taken.
const DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";
/// etcd's interval.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(600);
/// etcd's `--max-request-bytes`, its size of a fragment.
const FRAGMENT_BYTES: usize = 3 << 19;
