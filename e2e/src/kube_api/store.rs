//! The objects, one counter of revisions, and per kind a bounded history of changes.
//!
//! One lock guards everything and is held for one request's work, never across an `.await`: every write is atomic, and
//! a list is one moment. Tables are persistent maps, so a snapshot for a paged or long list costs O(1).

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::body::Bytes;
use imbl::OrdMap;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::kinds::{Kind, KindId, built_in};

/// Objects of one kind at one moment, by namespace (empty for cluster-wide kinds) and name.
pub type Objects = OrdMap<Key, Arc<Object>>;

/// Names an object among those of its kind. Ordered by namespace, then name, as lists are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Namespace; empty for cluster-wide kinds.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// An object as it was at one revision. It never changes; its JSON is made once, when first asked for.
#[derive(Debug)]
pub struct Object {
    /// All of it, with `apiVersion` and `kind`.
    pub value: Value,
    /// `metadata.resourceVersion`.
    pub revision: u64,
    bare: OnceLock<Bytes>,
}

/// What happened to one object.
#[derive(Debug)]
pub struct Change {
    /// When.
    pub revision: u64,
    /// The object before; `None` if it is new.
    pub before: Option<Arc<Object>>,
    /// The object after; if it was deleted, its last state with the revision of the deletion.
    pub after: Arc<Object>,
    /// Whether it was deleted.
    pub deleted: bool,
}

/// Says that the asked part of the history is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// The oldest revision from which a watch can go on.
    pub oldest: u64,
}

/// Holds everything; shared by all requests.
#[derive(Debug)]
pub struct Store {
    state: Mutex<State>,
}

/// What the lock guards.
#[derive(Debug)]
pub struct State {
    revision: u64,
    kinds: BTreeMap<KindId, Arc<Kind>>,
    tables: BTreeMap<KindId, Table>,
    snapshots: VecDeque<Snapshot>,
    history_limit: usize,
    /// Number from which the next cluster address is made.
    pub next_service_address: u32,
}

#[derive(Debug)]
struct Table {
    objects: Objects,
    history: VecDeque<Arc<Change>>,
    /// Changes up to this revision are not in the history (any more).
    floor: u64,
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct Snapshot {
    kind: KindId,
    revision: u64,
    objects: Objects,
}

/// Snapshots of paged lists that are kept; the token of an older one gets 410.
const SNAPSHOT_LIMIT: usize = 64;

impl Store {
    /// An empty store of the built-in kinds, which keeps so many changes of each kind.
    pub fn new(history_limit: usize) -> Self {
        let kinds = built_in();
        let tables = kinds.keys().map(|id| (id.clone(), Table::new(1))).collect();
        let (revision, snapshots, next_service_address) = (1, VecDeque::new(), 1);
        Self {
            state: Mutex::new(State {
                revision,
                kinds,
                tables,
                snapshots,
                history_limit,
                next_service_address,
            }),
        }
    }

    /// Does something with all of it, alone. A panic elsewhere does not stop this: each write is one assignment.
    pub fn with<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    /// The revision of the last write.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The kinds that are served.
    pub fn kinds(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.kinds.values()
    }

    /// A kind by group, version and plural.
    pub fn kind(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
        let id = KindId { group: group.to_owned(), plural: plural.to_owned() };
        self.kinds.get(&id).filter(|kind| kind.version == version).cloned()
    }

    /// A kind by the `apiVersion` and `kind` of an object. O(kinds).
    pub fn kind_of(&self, api_version: &str, kind: &str) -> Option<Arc<Kind>> {
        self.kinds.values().find(|k| k.kind == kind && k.api_version() == api_version).cloned()
    }

    /// Serves a kind, or another form of it; its objects stay.
    pub fn serve(&mut self, kind: Kind) {
        let id = kind.id();
        let floor = self.revision;
        self.tables.entry(id.clone()).or_insert_with(|| Table::new(floor));
        self.kinds.insert(id, Arc::new(kind));
    }

    /// Serves a kind no longer: its table goes, and its watches end.
    pub fn stop_serving(&mut self, id: &KindId) {
        self.kinds.remove(id);
        self.tables.remove(id);
        self.snapshots.retain(|snapshot| snapshot.kind != *id);
    }

    /// The objects of a kind at this moment. O(1).
    pub fn objects(&self, id: &KindId) -> Objects {
        self.tables.get(id).map(|table| table.objects.clone()).unwrap_or_default()
    }

    /// An object.
    pub fn get(&self, id: &KindId, key: &Key) -> Option<Arc<Object>> {
        self.tables.get(id)?.objects.get(key).cloned()
    }

    /// Objects of a namespace, or all.
    pub fn select<'a>(
        objects: &'a Objects,
        namespace: Option<&str>,
    ) -> Box<dyn Iterator<Item = (&'a Key, &'a Arc<Object>)> + Send + 'a> {
        match namespace {
            None => Box::new(objects.iter()),
            Some(namespace) => {
                let first = Key { namespace: namespace.to_owned(), name: String::new() };
                let namespace = namespace.to_owned();
                Box::new(objects.range(first..).take_while(move |(key, _)| key.namespace == namespace))
            }
        }
    }

    /// Writes an object under the next revision, which it gets as `metadata.resourceVersion`.
    pub fn put(&mut self, id: &KindId, key: Key, value: Value) -> Arc<Object> {
        self.revision += 1;
        let object = Object::at(self.revision, value);
        if let Some(table) = self.tables.get_mut(id) {
            let before = table.objects.insert(key, Arc::clone(&object));
            let change =
                Change { revision: self.revision, before, after: Arc::clone(&object), deleted: false };
            table.record(change, self.history_limit);
        }
        object
    }

    /// Removes an object, under the next revision. Gives its last state with that revision.
    pub fn remove(&mut self, id: &KindId, key: &Key) -> Option<Arc<Object>> {
        let table = self.tables.get_mut(id)?;
        let before = table.objects.remove(key)?;
        self.revision += 1;
        let after = Object::at(self.revision, before.value.clone());
        let change = Change {
            revision: self.revision,
            before: Some(before),
            after: Arc::clone(&after),
            deleted: true,
        };
        table.record(change, self.history_limit);
        Some(after)
    }

    /// A receiver of the revision of the last change of a kind; it closes when the kind is no longer served.
    pub fn changed(&self, id: &KindId) -> Option<watch::Receiver<u64>> {
        self.tables.get(id).map(|table| table.changed.subscribe())
    }

    /// Changes of a kind after a revision, at most `limit`; fails if some of them are no longer known. O(log n) and what
    /// is given.
    pub fn changes_after(
        &self,
        id: &KindId,
        revision: u64,
        limit: usize,
    ) -> Result<Vec<Arc<Change>>, Compacted> {
        let Some(table) = self.tables.get(id) else { return Ok(Vec::new()) };
        if revision < table.floor {
            return Err(Compacted { oldest: table.floor });
        }
        let first = table.history.partition_point(|change| change.revision <= revision);
        Ok(table.history.iter().skip(first).take(limit).cloned().collect())
    }

    /// Keeps the objects of a kind as they are now for the next pages of a list.
    pub fn keep_snapshot(&mut self, id: &KindId) {
        let objects = self.objects(id);
        let revision = self.revision;
        if self.snapshot(id, revision).is_none() {
            if self.snapshots.len() >= SNAPSHOT_LIMIT {
                self.snapshots.pop_front();
            }
            self.snapshots.push_back(Snapshot { kind: id.clone(), revision, objects });
        }
    }

    /// The objects of a kind as they were, if that was kept.
    pub fn snapshot(&self, id: &KindId, revision: u64) -> Option<Objects> {
        let found = self.snapshots.iter().find(|s| s.revision == revision && s.kind == *id);
        found.map(|snapshot| snapshot.objects.clone())
    }

    /// Forgets all history: a watch from before now, and the next page of a list begun before now, get 410.
    pub fn compact(&mut self) {
        self.snapshots.clear();
        for table in self.tables.values_mut() {
            table.history.clear();
            table.floor = self.revision;
        }
    }
}

impl Table {
    fn new(floor: u64) -> Self {
        Self { objects: OrdMap::new(), history: VecDeque::new(), floor, changed: watch::Sender::new(floor) }
    }

    fn record(&mut self, change: Change, limit: usize) {
        let revision = change.revision;
        self.history.push_back(Arc::new(change));
        while self.history.len() > limit {
            if let Some(gone) = self.history.pop_front() {
                self.floor = gone.revision;
            }
        }
        self.changed.send_replace(revision);
    }
}

impl Object {
    /// An object of this revision, which is written into its metadata.
    pub fn at(revision: u64, mut value: Value) -> Arc<Self> {
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("resourceVersion".to_owned(), json!(revision.to_string()));
        }
        Arc::new(Self { value, revision, bare: OnceLock::new() })
    }

    /// The same content under another revision, as the DELETED event of an object that leaves a selector shows it.
    pub fn seen_at(&self, revision: u64) -> Arc<Self> {
        Self::at(revision, self.value.clone())
    }

    /// A part of the metadata that is text.
    pub fn meta(&self, field: &str) -> Option<&str> {
        self.value.get("metadata")?.get(field)?.as_str()
    }

    /// JSON without `apiVersion` and `kind`, without the opening brace: what lists and single objects share.
    pub fn bare(&self) -> &Bytes {
        self.bare.get_or_init(|| {
            let mut value = self.value.clone();
            if let Some(fields) = value.as_object_mut() {
                fields.remove("apiVersion");
                fields.remove("kind");
            }
            // `Display` of a value is compiled with serde_json, so it is quick in a debug build too.
            Bytes::from(value.to_string()).slice(1..)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services() -> KindId {
        KindId { group: String::new(), plural: "services".to_owned() }
    }

    fn key(name: &str) -> Key {
        Key { namespace: "shop".to_owned(), name: name.to_owned() }
    }

    fn object(name: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"}})
    }

    #[test]
    fn every_write_is_one_revision_and_one_change() {
        let store = Store::new(10);
        store.with(|state| {
            let start = state.revision();
            let first = state.put(&services(), key("a"), object("a"));
            assert_eq!(first.meta("resourceVersion"), Some((start + 1).to_string().as_str()));
            state.put(&services(), key("a"), object("a"));
            let gone = state.remove(&services(), &key("a")).expect("was there");
            assert_eq!(gone.revision, start + 3);
            assert!(state.remove(&services(), &key("a")).is_none());
            let changes = state.changes_after(&services(), start, 10).expect("all known");
            let seen: Vec<_> =
                changes.iter().map(|c| (c.revision - start, c.before.is_some(), c.deleted)).collect();
            assert_eq!(seen, [(1, false, false), (2, true, false), (3, true, true)]);
        });
    }

    #[test]
    fn history_is_bounded_and_says_so() {
        let store = Store::new(2);
        store.with(|state| {
            let start = state.revision();
            for name in ["a", "b", "c"] {
                state.put(&services(), key(name), object(name));
            }
            assert_eq!(
                state.changes_after(&services(), start, 10).unwrap_err(),
                Compacted { oldest: start + 1 }
            );
            assert_eq!(state.changes_after(&services(), start + 1, 10).expect("known").len(), 2);
            assert_eq!(state.changes_after(&services(), start + 1, 1).expect("known").len(), 1);
            state.compact();
            assert!(state.changes_after(&services(), start + 2, 10).is_err());
            assert!(state.changes_after(&services(), start + 3, 10).expect("now").is_empty());
        });
    }

    #[test]
    fn a_snapshot_does_not_move() {
        let store = Store::new(10);
        store.with(|state| {
            state.put(&services(), key("a"), object("a"));
            let revision = state.revision();
            state.keep_snapshot(&services());
            state.put(&services(), key("b"), object("b"));
            assert_eq!(state.snapshot(&services(), revision).expect("kept").len(), 1);
            assert_eq!(state.objects(&services()).len(), 2);
            let other = Objects::new();
            assert_eq!(State::select(&other, Some("shop")).count(), 0);
            assert_eq!(State::select(&state.objects(&services()), Some("shop")).count(), 2);
            assert_eq!(State::select(&state.objects(&services()), Some("sho")).count(), 0);
        });
    }

    #[test]
    fn bare_json_can_be_put_behind_a_type() {
        let store = Store::new(10);
        let object = store.with(|state| state.put(&services(), key("a"), object("a")));
        let text = String::from_utf8(object.bare().to_vec()).expect("text");
        let whole: Value = format!("{{\"kind\":\"Service\",{text}").parse().expect("json");
        assert_eq!(whole["metadata"], object.value["metadata"]);
    }
}
