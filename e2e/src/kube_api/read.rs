//! Getting and listing: one moment, whole or in pages.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::stream;
use serde_json::{Value, json};

use super::failure::{Cause, Failure};
use super::kinds::Kind;
use super::request::{Form, Query};
use super::selector::Selector;
use super::store::{Key, Object, State, Store};

/// What a list has to say, before it is written.
#[derive(Debug)]
pub struct List {
    kind: Arc<Kind>,
    form: Form,
    revision: u64,
    next: Option<(String, u64)>,
    objects: Vec<Arc<Object>>,
}

/// About how many bytes of a list are handed to the connection at once.
const CHUNK: usize = 128 * 1024;

/// Reads a revision from a query; none and 0 mean any.
pub fn revision(query: &Query) -> Result<u64, Failure> {
    let Some(text) = query.text("resourceVersion") else { return Ok(0) };
    let wrong =
        |_| Failure::bad_request(format!("Invalid value: {text:?}: a resource version must be a number"));
    text.parse().map_err(wrong)
}

/// Makes a list. Fails with 410 if the rest of an older list is asked for that is not kept.
pub fn list(
    store: &Store,
    kind: &Arc<Kind>,
    namespace: Option<&str>,
    query: &Query,
    form: Form,
) -> Result<List, Failure> {
    let selector = Selector::parse(kind, query.text("labelSelector"), query.text("fieldSelector"))?;
    let limit = query.number("limit")?.filter(|limit| *limit > 0);
    let asked = revision(query)?;
    let matching = query.text("resourceVersionMatch");
    let token = query.text("continue").map(read_token).transpose()?;
    if matching.is_some() && (query.text("resourceVersion").is_none() || token.is_some()) {
        let message = "resourceVersionMatch is forbidden unless resourceVersion is provided";
        return Err(Failure::invalid(
            "ListOptions",
            "",
            vec![Cause::forbidden("resourceVersionMatch", message)],
        ));
    }
    if !matches!(matching, None | Some("NotOlderThan" | "Exact")) {
        let message = format!("{:?}", matching.unwrap_or_default());
        return Err(Failure::invalid(
            "ListOptions",
            "",
            vec![Cause::not_supported("resourceVersionMatch", message)],
        ));
    }
    let (revision, objects) =
        store.with(|state| snapshot(state, kind, token.as_ref(), asked, matching, limit.is_some()))?;
    let mut chosen = Vec::new();
    let mut next = None;
    let mut last: Option<&Key> = None;
    let mut remaining = 0_u64;
    for (key, object) in State::select(&objects, namespace) {
        let is_seen = token.as_ref().is_some_and(|(_, after)| key <= after);
        if is_seen || !selector.matches(&object.value) {
            continue;
        }
        if limit.is_some_and(|limit| chosen.len() as u64 >= limit) {
            remaining += 1;
            continue;
        }
        last = Some(key);
        chosen.push(Arc::clone(object));
    }
    if let (Some(last), true) = (last, remaining > 0) {
        next = Some((write_token(revision, last), remaining));
    }
    if !selector.is_empty() {
        // As the API server: with a selector it does not count what remains.
        next = next.map(|(token, _)| (token, 0));
    }
    Ok(List { kind: Arc::clone(kind), form, revision, next, objects: chosen })
}

fn snapshot(
    state: &mut State,
    kind: &Kind,
    token: Option<&(u64, Key)>,
    asked: u64,
    matching: Option<&str>,
    paged: bool,
) -> Result<(u64, super::store::Objects), Failure> {
    let id = kind.id();
    let now = state.revision();
    if let Some((revision, _)) = token {
        let kept = state.snapshot(&id, *revision);
        let message = "The provided continue parameter is too old to display a consistent list result. You can start a \
            new list without the continue parameter.";
        return Ok((*revision, kept.ok_or_else(|| Failure::expired(message))?));
    }
    if asked > now {
        let cause = Cause {
            reason: "ResourceVersionTooLarge",
            message: "Too large resource version".to_owned(),
            field: String::new(),
        };
        let failure =
            Failure::new(504, "Timeout", format!("Too large resource version: {asked}, current: {now}"));
        return Err(Failure { causes: vec![cause], ..failure }.with_retry_after(1));
    }
    if matching == Some("Exact") && asked != now {
        let kept = state.snapshot(&id, asked).ok_or_else(|| {
            Failure::expired(format!(
                "The resourceVersion for the provided list is too old: {asked}, current: {now}"
            ))
        });
        return Ok((asked, kept?));
    }
    if paged {
        state.keep_snapshot(&id);
    }
    Ok((now, state.objects(&id)))
}

fn write_token(revision: u64, last: &Key) -> String {
    URL_SAFE_NO_PAD.encode(json!([revision, last.namespace, last.name]).to_string())
}

fn read_token(token: &str) -> Result<(u64, Key), Failure> {
    let read = || {
        let text = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (revision, namespace, name) = serde_json::from_slice(&text).ok()?;
        Some((revision, Key { namespace, name }))
    };
    read().ok_or_else(|| Failure::bad_request("continue key is not valid"))
}

impl List {
    /// The list as JSON, made piece by piece.
    pub fn into_body(self) -> Body {
        let Self { kind, form, revision, next, objects } = self;
        let (list_kind, api_version) = match form {
            Form::Whole => (format!("{}List", kind.kind), kind.api_version()),
            Form::Metadata => ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned()),
        };
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if let Some((token, remaining)) = next {
            metadata["continue"] = json!(token);
            if remaining > 0 {
                metadata["remainingItemCount"] = json!(remaining);
            }
        }
        let head = format!(
            "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{metadata},\"items\":[",
            json!(list_kind),
            json!(api_version)
        );
        let objects: VecDeque<_> = objects.into();
        let start = (Some(head), objects, true, false);
        let pieces = stream::unfold(start, move |(mut head, mut objects, mut is_first, done)| {
            let mut chunk = head.take().unwrap_or_default().into_bytes();
            while !done && chunk.len() < CHUNK {
                let Some(object) = objects.pop_front() else { break };
                if !is_first {
                    chunk.push(b',');
                }
                is_first = false;
                write_item(&kind, form, &object, &mut chunk);
            }
            let ended = objects.is_empty();
            if ended && !done {
                chunk.extend_from_slice(b"]}\n");
            }
            let piece = (!done).then(|| Ok::<_, Infallible>(Bytes::from(chunk)));
            async move { piece.map(|piece| (piece, (head, objects, is_first, ended))) }
        });
        Body::from_stream(pieces)
    }
}

/// An item of a list: those of built-in kinds do not repeat their type, as in the API server.
fn write_item(kind: &Kind, form: Form, object: &Object, out: &mut Vec<u8>) {
    match form {
        Form::Metadata => out.extend_from_slice(partial(object).to_string().as_bytes()),
        Form::Whole if kind.is_custom() => write_object(kind, form, object, out),
        Form::Whole => {
            out.push(b'{');
            out.extend_from_slice(object.bare());
        }
    }
}

/// One object, with its type.
pub fn write_object(kind: &Kind, form: Form, object: &Object, out: &mut Vec<u8>) {
    if form == Form::Metadata {
        out.extend_from_slice(partial(object).to_string().as_bytes());
        return;
    }
    let head = format!("{{\"kind\":{},\"apiVersion\":{}", json!(kind.kind), json!(kind.api_version()));
    out.extend_from_slice(head.as_bytes());
    if object.bare().len() > 1 {
        out.push(b',');
    }
    out.extend_from_slice(object.bare());
}

fn partial(object: &Object) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object.value["metadata"]})
}
