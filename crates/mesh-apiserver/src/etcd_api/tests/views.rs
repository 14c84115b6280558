//! Whatever happens in whatever order, a filtered peer ends with exactly what its filter shows, and never sees more.
//!
//! A client as etcd's own: it lists in pages at one revision, watches from the next one, resumes after the last revision
//! that it was told of, and lists again when it is told of a compaction. All in one process, without a socket.

mod pages;
mod races;

use super::super::{Calls, Grants, Limits};
use crate::peer_filters::{
    PeerFilters,
    in_force::{self, Peer, publish_now},
};
use axum::{Extension, middleware::AddExtension};
use bytes::Bytes;
use kvstore::{
    KeyRange, Snapshot, Store, StoreOptions,
    proto::{
        etcdserverpb::{
            RangeRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
            kv_client::KvClient, watch_client::WatchClient, watch_request::RequestUnion,
        },
        mvccpb::{KeyValue, event::EventType},
    },
};
use proptest::prelude::*;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};
use topology::{ClusterName, export_filter::Verdict};
use tower::Layer;

const PREFIX: &str = "cilium/state/";

/// Files of filters that are changed between. The client is tokyo.
const FILES: [&str; 6] = [
    "peers: {}",
    "peers: {tokyo: {namespaces: {include: [shop]}}}",
    "peers: {tokyo: {namespaces: {exclude: [shop]}}, lima: {namespaces: {include: [bank]}}}",
    "{peers: {tokyo: {services: {include: ['*/a']}}}, default: {namespaces: {include: [bank]}}}",
    "default: {labels: {matchLabels: {mesh: 'yes'}}}",
    "{peers: {tokyo: {}}, default: {namespaces: {exclude: ['*']}}}",
];

/// What keys can hold: shown by some filters and not by others, and what cannot be read.
fn record(key: u8, variant: u8) -> (String, String) {
    let namespace = if variant & 1 == 0 { "shop" } else { "bank" };
    let mesh = if variant & 2 == 0 { "yes" } else { "no" };
    match key {
        0 | 1 => {
            let (namespace, name) = (if key == 0 { "shop" } else { "bank" }, "a");
            let value = format!(
                r#"{{"namespace":"{namespace}","name":"{name}","labels":{{"mesh":"{mesh}"}},"v":{variant}}}"#
            );
            (format!("{PREFIX}services/v1/north/{namespace}/{name}"), value)
        }
        2 if variant == 4 => (format!("{PREFIX}ip/v1/default/10.0.0.2"), "no JSON".to_owned()),
        2 | 3 => {
            let value = format!(r#"{{"K8sNamespace":"{namespace}","v":{variant}}}"#);
            (format!("{PREFIX}ip/v1/default/10.0.0.{key}"), value)
        }
        4 => {
            let labels =
                format!("k8s:io.kubernetes.pod.namespace={namespace};k8s:mesh={mesh};k8s:v={variant};");
            (format!("{PREFIX}identities/v1/id/70000"), labels)
        }
        _ => (format!("{PREFIX}nodes/v1/north/n1"), format!("{{\"v\":{variant}}}")),
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    Filter(usize),
    /// Forgets all history but the latest revision.
    Compact,
    /// The hub starts anew over the same store, perhaps with another file.
    Restart(Option<usize>),
    /// The client asks for a page, opens its watch, or reads what has come.
    Client,
    Disconnect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0u8..6, 0u8..5).prop_map(|(key, variant)| Step::Put(key, variant)),
        2 => (0u8..6).prop_map(Step::Delete),
        2 => (0..FILES.len()).prop_map(Step::Filter),
        1 => Just(Step::Compact),
        1 => prop::option::of(0..FILES.len()).prop_map(Step::Restart),
        8 => Just(Step::Client),
        1 => Just(Step::Disconnect),
    ]
}

fn tokyo() -> Peer {
    Peer::named(&"tokyo".parse::<ClusterName>().expect("a name"))
}

/// Whether the filter that was in force at a snapshot shows a value.
fn shown(snapshot: &Snapshot, key: &[u8], value: &[u8]) -> bool {
    match tokyo().in_force(snapshot).value {
        None => true,
        Some(filter) => {
            let filter = in_force::filter(filter).expect("a filter of ours");
            filter.is_empty() || filter.judge(key, value) == Verdict::Shown
        }
    }
}

fn set(store: &Store, file: usize) {
    publish_now(store, &PeerFilters::parse(FILES[file]).expect("a file"));
}

type Hub = AddExtension<Calls, Arc<Grants>>;

/// The hub's calls for this peer, and each filter as it came.
struct World {
    store: Store,
    hub: Hub,
    /// The latest snapshot of each revision.
    history: BTreeMap<u64, Snapshot>,
}

impl World {
    fn start(store: Store) -> Self {
        let hub = Self::hub(&store);
        let history = BTreeMap::from([(store.revision(), store.snapshot())]);
        Self { store, hub, history }
    }

    fn hub(store: &Store) -> Hub {
        let grants = Arc::new(Grants::remote("north").seen_by(tokyo()));
        Extension(grants).layer(Calls::new(store.clone(), Limits::default()))
    }

    fn note(&mut self) {
        self.history.insert(self.store.revision(), self.store.snapshot());
    }

    /// The store as it was after a revision.
    fn at(&self, revision: u64) -> &Snapshot {
        self.history.range(..=revision).next_back().expect("the first revision").1
    }
}

#[derive(Default)]
struct Client {
    known: BTreeMap<Bytes, Bytes>,
    state: State,
    relists: usize,
}

#[derive(Default)]
enum State {
    #[default]
    Idle,
    Listing {
        from: Bytes,
        revision: i64,
        found: BTreeMap<Bytes, Bytes>,
    },
    /// A list is complete; the first revision that is not known.
    Away {
        next: i64,
    },
    Watching {
        next: i64,
        requests: mpsc::Sender<WatchRequest>,
        responses: Box<Streaming<WatchResponse>>,
    },
}

impl Client {
    async fn step(&mut self, world: &World) -> Result<(), TestCaseError> {
        let state = std::mem::take(&mut self.state);
        self.state = match state {
            State::Idle => self.page(world, PREFIX.into(), 0, BTreeMap::new()).await?,
            State::Listing { from, revision, found } => self.page(world, from, revision, found).await?,
            State::Away { next } => watch(world, next).await,
            State::Watching { next, requests, responses } => {
                self.read(world, next, requests, responses).await?
            }
        };
        Ok(())
    }

    fn disconnect(&mut self) {
        if let State::Watching { next, .. } = &self.state {
            self.state = State::Away { next: *next };
        }
    }

    async fn page(
        &mut self,
        world: &World,
        from: Bytes,
        revision: i64,
        mut found: BTreeMap<Bytes, Bytes>,
    ) -> Result<State, TestCaseError> {
        let range = KeyRange::prefix(PREFIX);
        let start = from.clone();
        let request = RangeRequest {
            key: from,
            range_end: range.wire_end(),
            limit: 2,
            revision,
            ..RangeRequest::default()
        };
        let answer = KvClient::new(world.hub.clone()).range(request).await;
        let page = match answer {
            Ok(page) => page.into_inner(),
            Err(status) => {
                prop_assert_eq!(status.code(), Code::OutOfRange, "{:?}", status);
                prop_assert!(revision > 0, "a first page is always answered: {:?}", status);
                return Ok(State::Idle);
            }
        };
        let (latest, changed) =
            (page.header.expect("a header").revision, tokyo().in_force(world.at(u64::MAX)).since);
        prop_assert!(revision == 0 || changed <= revision as u64, "pages of two filters in one list");
        let revision = if revision == 0 { latest } else { revision };
        for kv in &page.kvs {
            prop_assert!(shown(world.at(u64::MAX), &kv.key, &kv.value), "a page shows {:?}", kv);
        }
        let (then, now) = (world.at(revision as u64), world.at(u64::MAX));
        let in_range = then.range(&KeyRange::from_wire(start, range.wire_end()));
        let count = in_range.filter(|entry| shown(now, &entry.key, &entry.value)).count();
        prop_assert_eq!(page.count, i64::try_from(count).expect("few"), "at {}", revision);
        let from = page.kvs.last().map(|kv| KeyRange::after_key(&kv.key));
        let left = i64::try_from(page.kvs.len()).expect("few");
        prop_assert_eq!(page.count > left, page.more, "count {} of a page of {}", page.count, left);
        found.extend(page.kvs.into_iter().map(|kv| (kv.key, kv.value)));
        Ok(match from.filter(|_| page.more) {
            Some(from) => State::Listing { from, revision, found },
            None => {
                self.relists += 1;
                self.known = found;
                State::Away { next: revision + 1 }
            }
        })
    }

    /// Reads responses until none comes.
    async fn read(
        &mut self,
        world: &World,
        mut next: i64,
        requests: mpsc::Sender<WatchRequest>,
        mut responses: Box<Streaming<WatchResponse>>,
    ) -> Result<State, TestCaseError> {
        let ask =
            WatchRequest { request_union: Some(RequestUnion::ProgressRequest(WatchProgressRequest {})) };
        // Fails if too many wait to be heard.
        drop(requests.try_send(ask));
        loop {
            let Ok(message) = tokio::time::timeout(Duration::from_millis(200), responses.message()).await
            else {
                return Ok(State::Watching { next, requests, responses });
            };
            let response = message.expect("no error").expect("the stream is open");
            if response.canceled {
                prop_assert!(response.compact_revision > 0, "{:?}", response);
                prop_assert!(response.compact_revision >= next || world.store.snapshot().compacted() > 0);
                return Ok(State::Idle);
            }
            if response.created {
                continue;
            }
            for event in &response.events {
                let kv = event.kv.clone().expect("a key");
                if let Some(previous) = &event.prev_kv {
                    let at = world.at(kv.mod_revision as u64);
                    prop_assert!(shown(at, &previous.key, &previous.value), "shows a hidden {:?}", event);
                }
                self.take(world, event.r#type(), kv)?;
            }
            let revision = response.header.expect("a header").revision;
            prop_assert!(response.events.is_empty() || revision >= next, "{} is before {}", revision, next);
            next = next.max(revision + 1);
        }
    }

    fn take(&mut self, world: &World, kind: EventType, kv: KeyValue) -> Result<(), TestCaseError> {
        match kind {
            EventType::Put => {
                let at = world.at(kv.mod_revision as u64);
                prop_assert!(shown(at, &kv.key, &kv.value), "a watch shows {:?}", kv);
                self.known.insert(kv.key, kv.value);
            }
            EventType::Delete => {
                prop_assert!(kv.value.is_empty() && kv.create_revision == 0 && kv.version == 0, "{:?}", kv);
                self.known.remove(&kv.key);
            }
        }
        Ok(())
    }

    /// The revision up to which everything is known.
    fn reached(&self) -> u64 {
        match &self.state {
            State::Watching { next, .. } => u64::try_from(*next - 1).unwrap_or(0),
            _ => 0,
        }
    }
}

async fn watch(world: &World, next: i64) -> State {
    let (requests, receiver) = mpsc::channel(16);
    let create = WatchCreateRequest {
        key: PREFIX.into(),
        range_end: KeyRange::prefix(PREFIX).wire_end(),
        start_revision: next,
        prev_kv: true,
        ..WatchCreateRequest::default()
    };
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    requests.send(create).await.expect("there is room");
    let answer = WatchClient::new(world.hub.clone()).watch(ReceiverStream::new(receiver)).await;
    let responses = Box::new(answer.expect("a stream").into_inner());
    State::Watching { next, requests, responses }
}

async fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut world = World::start(Store::in_memory(StoreOptions::default()));
    let mut client = Client::default();
    for step in steps {
        match step {
            Step::Put(key, variant) => {
                let (key, value) = record(key, variant);
                world.store.put(key, value).map(drop).expect("put");
            }
            Step::Delete(key) => {
                world.store.delete(&KeyRange::key(record(key, 0).0)).map(drop).expect("deleted");
            }
            Step::Filter(file) => set(&world.store, file),
            // Fails if nothing was written since the last one.
            Step::Compact => drop(world.store.compact(world.store.revision())),
            Step::Restart(file) => {
                client.disconnect();
                if let Some(file) = file {
                    set(&world.store, file);
                }
                world.hub = World::hub(&world.store);
            }
            Step::Client => client.step(&world).await?,
            Step::Disconnect => client.disconnect(),
        }
        world.note();
    }
    for round in 0.. {
        if client.reached() >= world.store.revision() {
            break;
        }
        prop_assert!(round < 100, "never complete");
        client.step(&world).await?;
    }
    let snapshot = world.store.snapshot();
    let expected: BTreeMap<Bytes, Bytes> = snapshot
        .range(&KeyRange::prefix(PREFIX))
        .filter(|entry| shown(&snapshot, &entry.key, &entry.value))
        .map(|entry| (entry.key.clone(), entry.value.clone()))
        .collect();
    prop_assert_eq!(client.known, expected);
    Ok(())
}

proptest! {
    #[test]
    fn a_peer_ends_with_what_its_filter_shows(steps in prop::collection::vec(step(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().start_paused(true).build().expect("a runtime");
        runtime.block_on(run(steps))?;
    }
}
