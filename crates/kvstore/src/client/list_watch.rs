//! A remote range as a complete list followed by ordered changes.

use super::{Client, Error, entry};
use crate::{
    proto::{
        etcdserverpb::{RangeRequest, WatchResponse},
        mvccpb::event::EventType,
    },
    range::KeyRange,
    store::Entry,
    watch_request::watch_request,
};
use bytes::Bytes;
use futures_util::{Stream, stream};
use std::convert::Infallible;
use tokio::sync::oneshot;
use tonic::{Code, Streaming};
use tracing::{debug, warn};

/// Follows a range of a remote store. Made by [`Client::list_watch`].
///
/// A task of one range; it holds the pages of a list under way and, after that, one watch stream.
#[derive(Debug)]
pub struct ListWatch {
    client: Client,
    range: KeyRange,
    phase: Phase,
}

/// What a consumer of a [`ListWatch`] has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// Replace everything known of the range by this: it is complete at `revision`. Keys not in it are gone.
    Reset {
        /// All entries, in key order.
        entries: Vec<Entry>,
        /// The revision at which they were read.
        revision: u64,
    },
    /// Apply these in order. The range is then complete up to `revision`.
    Changes {
        /// Events of one or more whole revisions.
        changes: Vec<Change>,
        /// Where to resume after them.
        revision: u64,
    },
    /// The watch of a resumed range is accepted: nothing was missed, what the consumer holds is still true.
    Resumed {
        /// Where the watch resumed.
        revision: u64,
    },
}

/// One change of a remote key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Written.
    Put(Entry),
    /// Deleted; the key need not have been known.
    Delete {
        /// The key.
        key: Bytes,
        /// The revision of the deletion.
        revision: u64,
    },
}

/// Where to go on after a connection was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// The store that the revision belongs to.
    pub cluster_id: u64,
    /// Everything up to and including this revision is known.
    pub revision: u64,
}

#[derive(Debug)]
enum Phase {
    /// Pages so far, all at one revision; `from` is what is left of the range.
    Listing(Listing),
    /// The list is complete and was handed out, or a resume is tried; `next` is the first revision not known.
    Opening {
        next: u64,
        resume: Option<Resume>,
    },
    Watching {
        next: u64,
        stream: Box<WatchStream>,
        created: bool,
        resume: Option<Resume>,
    },
}

/// Both directions of a watch call. Only when both are dropped does HTTP/2 reset the stream, and the server hear of it.
#[derive(Debug)]
struct WatchStream {
    responses: Streaming<WatchResponse>,
    _requests_open: oneshot::Sender<Infallible>,
}

#[derive(Debug)]
struct Listing {
    from: KeyRange,
    entries: Vec<Entry>,
    bytes: usize,
    revision: u64,
    restarts: u32,
}

/// What a step of the state machine led to.
enum Step {
    Emit(Update),
    GoOn,
    /// The history is gone, or the store is another one: the range has to be listed anew.
    Relist,
}

impl ListWatch {
    pub(super) fn new(client: Client, range: KeyRange, resume: Option<Resume>) -> Self {
        let phase = match resume {
            Some(resume) => Phase::Opening { next: resume.revision.saturating_add(1), resume: Some(resume) },
            None => Phase::Listing(Listing::of(&range)),
        };
        Self { client, range, phase }
    }

    /// The followed range.
    pub fn range(&self) -> &KeyRange {
        &self.range
    }

    /// Waits for the next update.
    ///
    /// The first is a `Reset`, or `Resumed` after a successful resume. If the server has compacted what the watch
    /// needs, the range is listed again and a new `Reset` comes: the consumer finds deletions by comparing. Any
    /// other trouble is an error, after which the connection should be made anew.
    ///
    /// Cancel safe: dropping the future loses nothing but a request under way.
    pub async fn next(&mut self) -> Result<Update, Error> {
        loop {
            let step = match &mut self.phase {
                Phase::Listing(listing) => listing.page(&self.client, &self.range).await?,
                Phase::Opening { next, resume } => {
                    let (next, resume) = (*next, *resume);
                    let stream = Box::new(open_watch(&self.client, &self.range, next).await?);
                    self.phase = Phase::Watching { next, stream, created: false, resume };
                    continue;
                }
                Phase::Watching { next, stream, created, resume } => {
                    watch_step(&self.client, next, &mut stream.responses, created, resume).await?
                }
            };
            match step {
                Step::Emit(update) => {
                    if let (Phase::Listing(_), Update::Reset { revision, .. }) = (&self.phase, &update) {
                        self.phase = Phase::Opening { next: revision + 1, resume: None };
                    }
                    return Ok(update);
                }
                Step::GoOn => {}
                Step::Relist => self.phase = Phase::Listing(Listing::of(&self.range)),
            }
        }
    }

    /// The updates as a stream that ends after the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Update, Error>> + Send {
        stream::unfold(Some(self), |state| async move {
            let mut list_watch = state?;
            let update = list_watch.next().await;
            let state = update.is_ok().then_some(list_watch);
            Some((update, state))
        })
    }
}

impl Listing {
    fn of(range: &KeyRange) -> Self {
        Self { from: range.clone(), entries: Vec::new(), bytes: 0, revision: 0, restarts: 0 }
    }

    /// Reads one page. The state changes only once the page is here, so the caller may be dropped meanwhile.
    async fn page(&mut self, client: &Client, range: &KeyRange) -> Result<Step, Error> {
        let limits = client.limits;
        let request = RangeRequest {
            key: self.from.wire_key(),
            range_end: self.from.wire_end(),
            limit: i64::from(limits.page),
            revision: wire(self.revision),
            ..RangeRequest::default()
        };
        let page = match client.range(request).await {
            Ok(page) => page,
            // The list took longer than the server keeps history: begin again, a few times.
            Err(Error::Rpc { source, .. })
                if source.code() == Code::OutOfRange
                    && self.revision > 0
                    && self.restarts < LIST_RESTARTS =>
            {
                debug!(prefix = ?range.start(), revision = self.revision, "list was compacted while under way");
                *self = Self { restarts: self.restarts + 1, ..Self::of(range) };
                return Ok(Step::GoOn);
            }
            Err(error) => return Err(error),
        };
        if self.revision == 0 {
            self.revision = page.revision;
        }
        let more = page.response.more && !page.response.kvs.is_empty();
        for kv in page.response.kvs {
            let in_order = self.entries.last().is_none_or(|last| last.key < kv.key);
            if !in_order || !self.from.contains(&kv.key) {
                return Err(Error::Protocol {
                    method: "Range",
                    found: format!("key {:?}", kv.key),
                    expected: "keys of the range in ascending order",
                });
            }
            self.bytes += kv.key.len() + kv.value.len();
            self.entries.push(entry(kv));
        }
        for (found, limit, unit) in
            [(self.entries.len(), limits.entries, "entries"), (self.bytes, limits.bytes, "bytes")]
        {
            if found > limit {
                return Err(Error::TooLarge { prefix: range.start().clone(), limit, unit });
            }
        }
        if more && let Some(last) = self.entries.last() {
            self.from = self.from.after(&last.key);
            return Ok(Step::GoOn);
        }
        let entries = std::mem::take(&mut self.entries);
        Ok(Step::Emit(Update::Reset { entries, revision: self.revision }))
    }
}

/// Opens a watch stream with one watch on it.
async fn open_watch(client: &Client, range: &KeyRange, next: u64) -> Result<WatchStream, Error> {
    const METHOD: &str = "Watch";
    let (request, requests_open) = watch_request(range, next);
    let mut watch = client.watch.clone();
    let answer = tokio::time::timeout(client.limits.answer, watch.watch(request)).await;
    let answer = answer.map_err(|_elapsed| Error::Timeout { method: METHOD, after: client.limits.answer })?;
    let responses = answer.map_err(|status| Error::from_status(METHOD, status))?.into_inner();
    Ok(WatchStream { responses, _requests_open: requests_open })
}

/// Reads one response. Receiving is cancel safe, and nothing waits after it.
async fn watch_step(
    client: &Client,
    next: &mut u64,
    responses: &mut Streaming<WatchResponse>,
    created: &mut bool,
    resume: &mut Option<Resume>,
) -> Result<Step, Error> {
    const METHOD: &str = "Watch";
    let message = if *created {
        responses.message().await
    } else {
        let answer = tokio::time::timeout(client.limits.answer, responses.message()).await;
        answer.map_err(|_elapsed| Error::Timeout { method: METHOD, after: client.limits.answer })?
    };
    let response = message.map_err(|status| Error::from_status(METHOD, status))?.ok_or(Error::WatchClosed)?;
    let revision = client.check(METHOD, response.header.as_ref())?;
    let found_id = client.cluster_id().unwrap_or_default();
    if let Some(wanted) = resume
        && wanted.cluster_id != found_id
    {
        debug!(expected = wanted.cluster_id, found = found_id, "remote store is another one, listing again");
        return Ok(Step::Relist);
    }
    if response.canceled {
        return match response.compact_revision {
            0 if response.cancel_reason.contains("permission denied") => {
                Err(Error::PermissionDenied { method: METHOD, reason: response.cancel_reason })
            }
            0 => Err(Error::WatchCanceled { reason: response.cancel_reason }),
            compact_revision => {
                debug!(next = *next, compact_revision, "watch fell behind a compaction, listing again");
                Ok(Step::Relist)
            }
        };
    }
    if response.created {
        *created = true;
    }
    if response.created && revision < next.saturating_sub(1) {
        warn!(known = *next - 1, revision, "remote revisions went back under one cluster id, listing again");
        return Ok(Step::Relist);
    }
    if let Some(resume) = resume.take() {
        // A server sends `created` before any event.
        return Ok(Step::Emit(Update::Resumed { revision: resume.revision }));
    }
    if response.events.is_empty() {
        return Ok(Step::GoOn);
    }
    let mut changes = Vec::with_capacity(response.events.len());
    for event in response.events {
        let is_delete = event.r#type() == EventType::Delete;
        let Some(kv) = event.kv else {
            let found = "an event without a key".to_owned();
            return Err(Error::Protocol { method: METHOD, found, expected: "an event with a key" });
        };
        let entry = entry(kv);
        changes.push(if is_delete {
            Change::Delete { key: entry.key, revision: entry.mod_revision }
        } else {
            Change::Put(entry)
        });
    }
    *next = (*next).max(revision.saturating_add(1));
    Ok(Step::Emit(Update::Changes { changes, revision }))
}

/// A revision as the wire has it.
fn wire(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// How often a list may begin again because it was compacted while under way.
const LIST_RESTARTS: u32 = 5;
