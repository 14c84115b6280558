//! Many objects at once, past the rules for clients: what a benchmark begins with.

use std::io::{self, ErrorKind};

use axum::body::Body;
use futures_util::StreamExt;
use serde_json::{Value, json};

use super::clock::Clock;
use super::defaults;
use super::failure::Failure;
use super::kinds::KindId;
use super::names;
use super::store::{Key, State, Store};

/// Most bytes of a line, hence of an object.
const LINE_LIMIT: usize = 4 * 1024 * 1024;
/// Objects that are written while others wait.
const BATCH: usize = 1000;

/// Writes objects as they are, status too: no check of their content, no owners of fields; an object that is there is
/// replaced. Missing namespaces are made. Watchers see each as a change. Gives their number; stops at the first that has
/// no known kind or no name.
pub fn load(
    store: &Store,
    clock: &Clock,
    objects: impl IntoIterator<Item = Value>,
) -> Result<usize, Failure> {
    let mut objects = objects.into_iter();
    let mut count = 0;
    loop {
        let batch: Vec<Value> = objects.by_ref().take(BATCH).collect();
        if batch.is_empty() {
            return Ok(count);
        }
        count += batch.len();
        store.with(|state| batch.into_iter().try_for_each(|object| put(state, clock, object)))?;
    }
}

/// The same from JSON, one object a line.
pub async fn load_lines(store: &Store, clock: &Clock, body: Body) -> Result<usize, Failure> {
    let mut pieces = body.into_data_stream();
    let mut rest: Vec<u8> = Vec::new();
    let mut count = 0;
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| Failure::bad_request(format!("the body broke off: {error}")))?;
        rest.extend_from_slice(&piece);
        let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else {
            if rest.len() > LINE_LIMIT {
                return Err(Failure::bad_request(format!("a line has more than {LINE_LIMIT} bytes")));
            }
            continue;
        };
        let after = rest.split_off(end + 1);
        count += load(store, clock, read_lines(&rest)?)?;
        rest = after;
    }
    count += load(store, clock, read_lines(&rest)?)?;
    Ok(count)
}

fn read_lines(text: &[u8]) -> Result<Vec<Value>, Failure> {
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    let read = |line: &[u8]| {
        let text =
            std::str::from_utf8(line).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        // `FromStr` of a value is compiled with serde_json, so it is quick in a debug build too.
        text.parse::<Value>().map_err(io::Error::from)
    };
    let objects: Result<Vec<Value>, io::Error> = lines.map(read).collect();
    objects.map_err(|error| Failure::bad_request(format!("a line is not JSON: {error}")))
}

fn put(state: &mut State, clock: &Clock, mut object: Value) -> Result<(), Failure> {
    let text = |object: &Value, field: &str| object[field].as_str().unwrap_or_default().to_owned();
    let (api_version, kind_name) = (text(&object, "apiVersion"), text(&object, "kind"));
    let unknown = || Failure::bad_request(format!("{api_version:?} {kind_name:?} is not served"));
    let kind = state.kind_of(&api_version, &kind_name).ok_or_else(unknown)?;
    if kind.is("apiextensions.k8s.io", "customresourcedefinitions") {
        return Err(Failure::bad_request("definitions are created through the API"));
    }
    let metadata = super::write::metadata_mut(&mut object)?;
    let part = |field: &str| metadata.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let key = Key { namespace: part("namespace"), name: part("name") };
    if key.name.is_empty() || key.namespace.is_empty() == kind.namespaced {
        let what = if kind.namespaced { "a namespace and a name" } else { "a name and no namespace" };
        return Err(Failure::bad_request(format!(
            "{kind_name} {:?} in {:?}: {what} are needed",
            key.name, key.namespace
        )));
    }
    let before = state.get(&kind.id(), &key);
    let before = before.as_ref().map(|before| &before.value);
    let kept = |field: &str| before.and_then(|before| before["metadata"].get(field).cloned());
    metadata.insert("uid".to_owned(), kept("uid").unwrap_or_else(|| json!(names::uid())));
    let created = kept("creationTimestamp").unwrap_or_else(|| json!(clock.now_text()));
    metadata.entry("creationTimestamp").or_insert(created);
    if kind.generation {
        let generation =
            before.and_then(|before| before["metadata"]["generation"].as_i64()).unwrap_or_default();
        metadata.insert("generation".to_owned(), json!(generation + 1));
    }
    defaults::fill_in(&kind, before, &mut object, &mut state.next_service_address);
    if kind.namespaced {
        make_namespace(state, clock, &key.namespace)?;
    }
    state.put(&kind.id(), key, object);
    Ok(())
}

/// Makes a namespace that is not there.
pub fn make_namespace(state: &mut State, clock: &Clock, name: &str) -> Result<(), Failure> {
    let namespaces = KindId { group: String::new(), plural: "namespaces".to_owned() };
    let key = Key { namespace: String::new(), name: name.to_owned() };
    if state.get(&namespaces, &key).is_some() {
        return Ok(());
    }
    put(state, clock, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
}
