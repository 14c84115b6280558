//! Watching: one line of JSON for each event, from a revision or from the present state.
//!
//! As in the API server, a watch that cannot begin where it is asked to is answered with 200 and an ERROR event that
//! holds the `Status` (410): clients are built for that. The HTTP status 410 can be had by a fault.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::stream;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep_until};

use super::failure::{Cause, Failure};
use super::faults::WatchEnd;
use super::kinds::{Kind, KindId};
use super::read::{revision, write_object};
use super::request::{Form, Query};
use super::selector::Selector;
use super::store::{Change, Compacted, Object, Objects, State, Store};

/// One watch of one client.
pub struct Watch {
    store: Arc<Store>,
    kind: Arc<Kind>,
    id: KindId,
    namespace: Option<String>,
    selector: Selector,
    form: Form,
    bookmarks: Option<Duration>,
    /// All changes up to this revision were sent, or lie before the watch.
    seen: u64,
    /// The state with which the watch begins, in reverse.
    initial: Vec<Arc<Object>>,
    /// Whether the end of the initial state is to be marked.
    mark: bool,
    failure: Option<Failure>,
    changed: watch::Receiver<u64>,
    ends: watch::Receiver<WatchEnd>,
    next_bookmark: Instant,
    deadline: Instant,
    ended: bool,
    _permit: OwnedSemaphorePermit,
}

/// How watches of this server behave.
#[derive(Clone, Copy, Debug)]
pub struct WatchRules {
    /// How often a bookmark is sent to those who want them.
    pub bookmark_interval: Duration,
    /// Whether a watch can begin with the state (`sendInitialEvents`).
    pub streaming_lists: bool,
}

/// Changes that are sent at once.
const BATCH: usize = 256;
/// How long a watch lasts whose client does not say (the API server: 30 to 60 minutes).
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30 * 60);

impl Watch {
    /// Begins a watch. Fails for options that do not go together.
    #[expect(clippy::too_many_arguments, reason = "what a request has, and what it shares with all others")]
    pub fn begin(
        store: &Arc<Store>,
        kind: &Arc<Kind>,
        namespace: Option<&str>,
        query: &Query,
        form: Form,
        rules: WatchRules,
        ends: watch::Receiver<WatchEnd>,
        permit: OwnedSemaphorePermit,
    ) -> Result<Self, Failure> {
        let selector = Selector::parse(kind, query.text("labelSelector"), query.text("fieldSelector"))?;
        let asked = revision(query)?;
        let wants_state = query.flag("sendInitialEvents")?;
        let wants_bookmarks = query.flag("allowWatchBookmarks")?;
        check_options(query, wants_state, rules)?;
        let timeout = query.number("timeoutSeconds")?.filter(|secs| *secs > 0);
        let timeout = timeout.map_or(DEFAULT_TIMEOUT, |secs| Duration::from_secs(secs.min(24 * 3600)));
        let id = kind.id();
        let begun = store.with(|state| {
            let changed = state.changed(&id)?;
            let initial = wants_state || asked == 0;
            let compacted = state.changes_after(&id, asked, 0).err().filter(|_| !initial);
            let objects = if initial { state.objects(&id) } else { Objects::new() };
            let seen = if initial { state.revision() } else { asked };
            Some((changed, compacted, objects, seen))
        });
        let (changed, compacted, objects, seen) = begun.ok_or_else(Failure::no_such_path)?;
        let chosen = State::select(&objects, namespace).filter(|(_, object)| selector.matches(&object.value));
        let mut initial: Vec<_> = chosen.map(|(_, object)| Arc::clone(object)).collect();
        initial.reverse();
        let now = Instant::now();
        Ok(Self {
            store: Arc::clone(store),
            kind: Arc::clone(kind),
            id,
            namespace: namespace.map(str::to_owned),
            selector,
            form,
            bookmarks: wants_bookmarks.then_some(rules.bookmark_interval),
            seen,
            initial,
            mark: wants_state && wants_bookmarks,
            failure: compacted.map(|compacted| too_old(asked, compacted)),
            changed,
            ends,
            next_bookmark: now + rules.bookmark_interval,
            deadline: now + timeout,
            ended: false,
            _permit: permit,
        })
    }

    /// The events, for as long as the client reads and nothing ends them.
    pub fn into_body(self) -> Body {
        Body::from_stream(stream::unfold(self, |mut watch| async move {
            let piece = watch.next().await?;
            Some((piece, watch))
        }))
    }

    /// The next lines; `None` at the end, an error to break the connection.
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        if self.ended {
            return None;
        }
        if let Some(failure) = self.failure.take() {
            return Some(Ok(self.fail(&failure)));
        }
        loop {
            if let Some(lines) = self.initial_lines() {
                return Some(Ok(lines));
            }
            let changes =
                self.store.with(|state| (state.changes_after(&self.id, self.seen, BATCH), state.revision()));
            let lines = match changes {
                (Err(compacted), _) => return Some(Ok(self.fail(&too_old(self.seen, compacted)))),
                (Ok(changes), now) => self.lines(&changes, now),
            };
            if !lines.is_empty() {
                return Some(Ok(Bytes::from(lines)));
            }
            let bookmark = self.bookmarks.map(|_| self.next_bookmark);
            // All arms may be dropped half way: receivers keep what they did not give, timers hold nothing.
            tokio::select! {
                changed = self.changed.changed() => {
                    if changed.is_err() {
                        // The kind is no longer served.
                        return None;
                    }
                }
                end = self.ends.changed() => {
                    if end.is_err() {
                        return None;
                    }
                    let end = self.ends.borrow_and_update().clone();
                    return match end {
                        WatchEnd::None => continue,
                        WatchEnd::Clean => None,
                        WatchEnd::Broken => Some(Err(io::Error::other("watch broken on request"))),
                        WatchEnd::Failed(failure) => Some(Ok(self.fail(&failure))),
                    };
                }
                () = sleep_until(bookmark.unwrap_or(self.deadline)), if bookmark.is_some_and(|at| at < self.deadline) => {
                    self.next_bookmark = Instant::now() + self.bookmarks.unwrap_or_default();
                    return Some(Ok(self.bookmark(false)));
                }
                () = sleep_until(self.deadline) => {
                    self.ended = true;
                    return self.bookmarks.map(|_| Ok(self.bookmark(false)));
                }
            }
        }
    }

    fn initial_lines(&mut self) -> Option<Bytes> {
        let mut lines = Vec::new();
        for _ in 0..BATCH {
            let Some(object) = self.initial.pop() else { break };
            self.write("ADDED", &object, &mut lines);
        }
        if self.initial.is_empty() && std::mem::take(&mut self.mark) {
            lines.extend_from_slice(&self.bookmark(true));
        }
        (!lines.is_empty()).then(|| Bytes::from(lines))
    }

    /// The lines of some changes; afterwards they are seen. With fewer than a batch, everything up to `now` is.
    fn lines(&mut self, changes: &[Arc<Change>], now: u64) -> Vec<u8> {
        let mut lines = Vec::new();
        for change in changes {
            self.seen = change.revision;
            let before = change.before.as_ref().filter(|before| self.selects(before));
            let after = Some(&change.after).filter(|after| !change.deleted && self.selects(after));
            match (before, after) {
                (None, Some(after)) => self.write("ADDED", after, &mut lines),
                (Some(_), Some(after)) => self.write("MODIFIED", after, &mut lines),
                (Some(_), None) if change.deleted => self.write("DELETED", &change.after, &mut lines),
                // It left the selector: it goes as it was, at the revision of the change.
                (Some(before), None) => self.write("DELETED", &before.seen_at(change.revision), &mut lines),
                (None, None) => {}
            }
        }
        if changes.len() < BATCH {
            self.seen = self.seen.max(now);
        }
        lines
    }

    fn selects(&self, object: &Object) -> bool {
        let here =
            self.namespace.as_deref().is_none_or(|namespace| object.meta("namespace") == Some(namespace));
        here && self.selector.matches(&object.value)
    }

    fn write(&self, event: &str, object: &Object, lines: &mut Vec<u8>) {
        lines.extend_from_slice(format!("{{\"type\":\"{event}\",\"object\":").as_bytes());
        write_object(&self.kind, self.form, object, lines);
        lines.extend_from_slice(b"}\n");
    }

    fn bookmark(&self, ends_state: bool) -> Bytes {
        let (kind, api_version) = match self.form {
            Form::Whole => (self.kind.kind.clone(), self.kind.api_version()),
            Form::Metadata => ("PartialObjectMetadata".to_owned(), "meta.k8s.io/v1".to_owned()),
        };
        let mut metadata = json!({"resourceVersion": self.seen.to_string(), "creationTimestamp": null});
        if ends_state {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = json!({"kind": kind, "apiVersion": api_version, "metadata": metadata});
        Bytes::from(format!("{}\n", json!({"type": "BOOKMARK", "object": object})))
    }

    fn fail(&mut self, failure: &Failure) -> Bytes {
        self.ended = true;
        Bytes::from(format!("{}\n", json!({"type": "ERROR", "object": failure.status()})))
    }
}

fn too_old(asked: u64, compacted: Compacted) -> Failure {
    Failure::expired(format!("too old resource version: {asked} ({})", compacted.oldest))
}

/// As `ValidateListOptions` of the API server says.
fn check_options(query: &Query, wants_state: bool, rules: WatchRules) -> Result<(), Failure> {
    let has_state = query.text("sendInitialEvents").is_some();
    let matching = query.text("resourceVersionMatch");
    let cause = if has_state && !rules.streaming_lists {
        let message = "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled";
        Cause::forbidden("sendInitialEvents", message)
    } else if has_state && matching != Some("NotOlderThan") {
        let message = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        Cause::forbidden("resourceVersionMatch", message)
    } else if matching.is_some() && !has_state {
        let message = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
        Cause::forbidden("resourceVersionMatch", message)
    } else if wants_state && !query.flag("allowWatchBookmarks")? {
        // The API server takes it, and then never says where the state ends: certainly a mistake of the client.
        return Err(
            Failure::not_built("sendInitialEvents without allowWatchBookmarks").with_code(400, "BadRequest")
        );
    } else {
        return Ok(());
    };
    Err(Failure::invalid("ListOptions", "", vec![cause]))
}
