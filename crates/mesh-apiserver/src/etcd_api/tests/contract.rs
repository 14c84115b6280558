//! One suite over our server and over a real etcd: each case writes down what it was answered, and both
//! transcripts must be the same. Both start empty, so revisions are the same too; ids and the raft term are not.

mod leases;

use super::{Etcd, Server, soon};
use crate::etcd_api::Grants;
use kvstore::proto::{
    etcdserverpb::{
        CompactionRequest, Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, ResponseHeader,
        TxnRequest, WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest,
        WatchResponse,
        compare::{CompareResult, CompareTarget, TargetUnion},
        kv_client::KvClient,
        lease_client::LeaseClient,
        range_request::{SortOrder, SortTarget},
        request_op::Request,
        watch_client::WatchClient,
        watch_create_request::FilterType,
        watch_request::RequestUnion,
    },
    mvccpb::{Event, KeyValue},
};
use std::fmt::Write as _;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming, transport::Channel};

#[tokio::test]
async fn our_answers_are_those_of_etcd() {
    let (ours, etcd) = tokio::join!(Server::start(Grants::admin()), Etcd::start());
    let ours = transcript(ours.channel().await).await;
    let theirs = transcript(super::connect(&etcd.address).await).await;
    assert_same(&ours, &theirs);
}

/// Fails with the first answer of ours that is not etcd's.
pub(super) fn assert_same(ours: &str, theirs: &str) {
    let mut asked = "";
    for (ours, theirs) in ours.lines().zip(theirs.lines()) {
        assert_eq!(ours, theirs, "left: ours, right: etcd's answer to: {asked}");
        asked = if ours.starts_with(' ') { asked } else { ours };
    }
    assert_eq!(ours.lines().count(), theirs.lines().count(), "lines of the two transcripts");
}

pub(super) async fn transcript(channel: Channel) -> String {
    let lease = LeaseClient::new(channel.clone());
    let mut case = Case { kv: KvClient::new(channel.clone()), lease, channel, out: String::new() };
    case.puts().await;
    case.ranges().await;
    case.old_revisions().await;
    case.deletions().await;
    case.transactions().await;
    case.refusals().await;
    case.watches().await;
    case.compaction().await;
    case.leases().await;
    case.out
}

/// Talks to one server and writes down what it answers.
struct Case {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    channel: Channel,
    out: String,
}

impl Case {
    fn title(&mut self, title: &str) {
        writeln!(self.out, "\n# {title}").expect("write to a string");
    }

    async fn put(&mut self, request: PutRequest) {
        let asked = format!("put {:?} = {:?}", request.key, request.value);
        let answer = self.kv.put(request).await.map(|response| {
            let response = response.into_inner();
            format!("{} previous {:?}", header(response.header), response.prev_kv.as_ref().map(pair))
        });
        self.note(&asked, answer);
    }

    async fn set(&mut self, key: &str, value: &str) {
        self.put(PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..Default::default()
        })
        .await;
    }

    async fn range(&mut self, request: RangeRequest) {
        let asked = format!("range {request:?}");
        let answer = self.kv.range(request).await.map(|response| {
            let response = response.into_inner();
            let kvs: Vec<String> = response.kvs.iter().map(pair).collect();
            let header = header(response.header);
            format!("{header} count {} more {} {}", response.count, response.more, kvs.join(", "))
        });
        self.note(&asked, answer);
    }

    async fn delete(&mut self, key: &str, range_end: &str, prev_kv: bool) {
        let (key, range_end) = (key.to_owned().into(), range_end.to_owned().into());
        let request = DeleteRangeRequest { key, range_end, prev_kv };
        let asked = format!("delete {request:?}");
        let answer = self.kv.delete_range(request).await.map(|response| {
            let response = response.into_inner();
            let previous: Vec<String> = response.prev_kvs.iter().map(pair).collect();
            format!("{} deleted {} {}", header(response.header), response.deleted, previous.join(", "))
        });
        self.note(&asked, answer);
    }

    async fn txn(&mut self, request: TxnRequest) {
        let asked = format!("txn {request:?}");
        let answer = self.kv.txn(request).await.map(|response| {
            let response = response.into_inner();
            format!("{} {} {:?}", header(response.header), response.succeeded, response.responses)
        });
        self.note(&asked, answer);
    }

    async fn compact(&mut self, revision: i64) {
        let answer = self.kv.compact(CompactionRequest { revision, physical: true }).await;
        let answer = answer.map(|response| header(response.into_inner().header));
        self.note(&format!("compact {revision}"), answer);
    }

    fn note(&mut self, asked: &str, answer: Result<String, Status>) {
        let answer = answer.unwrap_or_else(|status| format!("{:?} {}", status.code(), status.message()));
        writeln!(self.out, "{asked}\n    -> {answer}").expect("write to a string");
    }

    async fn puts(&mut self) {
        self.title("puts");
        self.set("a", "1").await;
        self.set("a", "2").await;
        self.set("b", "").await;
        let put = |key: &str, value: &str| PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..PutRequest::default()
        };
        self.put(PutRequest { prev_kv: true, ..put("a", "3") }).await;
        self.put(PutRequest { prev_kv: true, ..put("new", "3") }).await;
        self.put(PutRequest { ignore_value: true, prev_kv: true, ..put("a", "") }).await;
        self.put(PutRequest { ignore_lease: true, ..put("a", "4") }).await;
    }

    async fn ranges(&mut self) {
        self.title("ranges and pages");
        for key in ["p/1", "p/3", "p/2", "p/5", "p/4", "q"] {
            self.set(key, &format!("value of {key}")).await;
        }
        self.set("p/2", "a").await;
        self.range(range("a", "")).await;
        self.range(range("missing", "")).await;
        self.range(range("p/", "p0")).await;
        self.range(range("p/3", "\0")).await;
        self.range(range("\0", "\0")).await;
        self.range(range("p0", "p/")).await;
        self.range(range("p/", "p/")).await;
        for limit in [1, 2, 5, 6, -1] {
            self.range(RangeRequest { limit, ..range("p/", "p0") }).await;
        }
        self.range(RangeRequest { limit: 2, ..range("p/2\0", "p0") }).await;
        self.range(RangeRequest { keys_only: true, ..range("p/", "p0") }).await;
        self.range(RangeRequest { count_only: true, limit: 2, ..range("p/", "p0") }).await;
        self.range(RangeRequest { serializable: true, ..range("a", "") }).await;
        for target in
            [SortTarget::Key, SortTarget::Version, SortTarget::Create, SortTarget::Mod, SortTarget::Value]
        {
            for order in [SortOrder::None, SortOrder::Ascend, SortOrder::Descend] {
                // Versions repeat, and the order of equal ones is nobody's promise: ask for one only.
                let limit = if target == SortTarget::Version { 1 } else { 3 };
                let (sort_order, sort_target) = (order.into(), target.into());
                if target != SortTarget::Version || order == SortOrder::Descend {
                    self.range(RangeRequest { limit, sort_order, sort_target, ..range("p/", "p0") }).await;
                }
            }
        }
        self.range(RangeRequest { min_mod_revision: 11, ..range("p/", "p0") }).await;
        self.range(RangeRequest { max_mod_revision: 11, limit: 2, ..range("p/", "p0") }).await;
        self.range(RangeRequest { min_create_revision: 10, max_create_revision: 11, ..range("p/", "p0") })
            .await;
    }

    async fn old_revisions(&mut self) {
        self.title("old revisions");
        self.delete("p/3", "", false).await;
        for revision in [1, 2, 3, 9, 11, 15, 16, 17, 1000, -5] {
            self.range(RangeRequest { revision, limit: 3, ..range("\0", "\0") }).await;
            self.range(RangeRequest { revision, ..range("p/3", "") }).await;
        }
    }

    async fn deletions(&mut self) {
        self.title("deletions");
        self.delete("missing", "", true).await;
        self.delete("p/5", "", true).await;
        self.delete("p/", "p/3", true).await;
        self.delete("z", "a", false).await;
        self.set("p/1", "again").await;
        self.range(range("p/", "p0")).await;
    }

    async fn transactions(&mut self) {
        self.title("transactions");
        let put = |key: &str, value: &str| {
            op(Request::RequestPut(PutRequest {
                key: key.to_owned().into(),
                value: value.to_owned().into(),
                prev_kv: true,
                ..PutRequest::default()
            }))
        };
        let get = |key: &str, end: &str| op(Request::RequestRange(range(key, end)));
        let delete = |key: &str, end: &str| {
            let (key, range_end) = (key.to_owned().into(), end.to_owned().into());
            op(Request::RequestDeleteRange(DeleteRangeRequest { key, range_end, prev_kv: true }))
        };
        let absent = compare("t/1", CompareTarget::Version, CompareResult::Equal, TargetUnion::Version(0));
        let create = TxnRequest {
            compare: vec![absent.clone()],
            success: vec![put("t/1", "x"), get("t/", "t0"), put("t/2", "y"), get("t/", "t0")],
            failure: vec![get("t/1", "")],
        };
        self.txn(create.clone()).await;
        self.txn(create).await;
        self.txn(TxnRequest {
            success: vec![delete("t/1", ""), put("t/3", "z"), get("t/", "t0")],
            ..TxnRequest::default()
        })
        .await;
        self.txn(TxnRequest { success: vec![get("t/", "t0")], ..TxnRequest::default() }).await;
        self.txn(TxnRequest::default()).await;
        let nested = TxnRequest {
            compare: vec![absent],
            success: vec![put("t/5", "then")],
            failure: vec![put("t/5", "else")],
        };
        self.txn(TxnRequest {
            success: vec![put("t/4", "outer"), op(Request::RequestTxn(nested)), get("t/", "t0")],
            ..TxnRequest::default()
        })
        .await;
        let value = |wanted: &str| TargetUnion::Value(wanted.to_owned().into());
        for (key, end, target, result, wanted) in [
            ("t/2", "", CompareTarget::Value, CompareResult::Equal, value("y")),
            ("t/2", "", CompareTarget::Value, CompareResult::Less, value("yy")),
            ("t/2", "", CompareTarget::Value, CompareResult::Greater, value("x")),
            ("none", "", CompareTarget::Value, CompareResult::NotEqual, value("x")),
            ("none", "", CompareTarget::Mod, CompareResult::Less, TargetUnion::ModRevision(1)),
            ("t/2", "", CompareTarget::Create, CompareResult::Greater, TargetUnion::CreateRevision(1)),
            ("t/2", "", CompareTarget::Mod, CompareResult::NotEqual, TargetUnion::ModRevision(1)),
            ("t/2", "", CompareTarget::Lease, CompareResult::Equal, TargetUnion::Lease(0)),
            ("t/", "t0", CompareTarget::Version, CompareResult::Equal, TargetUnion::Version(1)),
            ("t/", "t0", CompareTarget::Value, CompareResult::Equal, value("y")),
        ] {
            let compare =
                Compare { range_end: end.to_owned().into(), ..compare(key, target, result, wanted) };
            self.txn(TxnRequest { compare: vec![compare], ..TxnRequest::default() }).await;
        }
        self.title("refused transactions");
        for success in [
            vec![put("t/1", "1"), put("t/1", "2")],
            vec![put("t/1", "1"), delete("t/", "t0")],
            vec![delete("t/1", ""), put("t/1", "1")],
            vec![put("", "1")],
            vec![get("", "")],
            vec![op(Request::RequestRange(RangeRequest { revision: 9999, ..range("a", "") }))],
            (0..129).map(|n| put(&format!("t/{n}"), "v")).collect(),
        ] {
            let asked = success.len();
            let answer = self.kv.txn(TxnRequest { success, ..TxnRequest::default() }).await;
            let answer = answer.map(|response| header(response.into_inner().header));
            self.note(&format!("txn of {asked} operations"), answer);
        }
        self.range(range("t/", "t0")).await;
    }

    async fn refusals(&mut self) {
        self.title("refusals");
        self.set("", "x").await;
        self.range(range("", "")).await;
        self.range(range("", "z")).await;
        self.delete("", "z", false).await;
        let put = || PutRequest { key: "a".into(), ..PutRequest::default() };
        self.put(PutRequest { ignore_value: true, value: "x".into(), ..put() }).await;
        self.put(PutRequest { ignore_lease: true, lease: 7, ..put() }).await;
        self.put(PutRequest { ignore_value: true, key: "missing".into(), ..put() }).await;
        self.put(PutRequest { lease: 7, ..put() }).await;
        let large = "x".repeat((3 << 19) + 1);
        let answer = self.kv.put(PutRequest { key: "a".into(), value: large.into(), ..put() }).await;
        self.note("put of 1.5 MiB and more", answer.map(|_| "taken".to_owned()));
    }

    async fn watches(&mut self) {
        self.title("watch: new events, one response a revision");
        let mut watch = Watch::open(&self.channel);
        watch.create(WatchCreateRequest { prev_kv: true, ..watched("w/", "w0") }).await;
        watch.expect("created", 1, &mut self.out).await;
        self.set("w/1", "1").await;
        watch.expect("put", 1, &mut self.out).await;
        self.set("w/1", "2").await;
        watch.expect("put again", 1, &mut self.out).await;
        self.set("elsewhere", "2").await;
        self.delete("w/", "w0", false).await;
        watch.expect("delete", 1, &mut self.out).await;
        let put = |key: &str| {
            let (key, value) = (key.to_owned().into(), "txn".into());
            op(Request::RequestPut(PutRequest { key, value, ..PutRequest::default() }))
        };
        self.txn(TxnRequest { success: vec![put("w/2"), put("x"), put("w/1")], ..TxnRequest::default() })
            .await;
        watch.expect("transaction", 2, &mut self.out).await;

        self.title("watch: several on one stream, filters, cancel");
        let filters = vec![FilterType::Noput.into()];
        watch.create(WatchCreateRequest { filters, ..watched("w/1", "") }).await;
        watch.expect("created", 1, &mut self.out).await;
        watch.create(WatchCreateRequest { watch_id: 77, ..watched("w/1", "") }).await;
        watch.expect("created", 1, &mut self.out).await;
        watch.create(WatchCreateRequest { watch_id: 77, ..watched("w/2", "") }).await;
        watch.expect("refused", 1, &mut self.out).await;
        watch.cancel(0).await;
        watch.expect("canceled", 1, &mut self.out).await;
        watch.cancel(4711).await;
        self.set("w/1", "3").await;
        watch.expect("put", 1, &mut self.out).await;
        watch.cancel(77).await;
        watch.expect("canceled", 1, &mut self.out).await;
        self.delete("w/1", "", false).await;
        watch.expect("delete", 1, &mut self.out).await;

        self.title("watch: from an old revision");
        for (key, end, start_revision) in [("a", "", 2), ("a", "", 5), ("p/", "p0", 16), ("\0", "\0", 30)] {
            let mut watch = Watch::open(&self.channel);
            watch.create(WatchCreateRequest { start_revision, ..watched(key, end) }).await;
            let what = format!("{key:?} from {start_revision}");
            let last = if key == "p/" { "p/9" } else { "a" };
            watch.history(&what, &mut self.out, last, &mut self.kv).await;
        }

        self.title("watch: in the future");
        let mut watch = Watch::open(&self.channel);
        let now = self.revision().await;
        watch.create(WatchCreateRequest { start_revision: now + 3, ..watched("f", "") }).await;
        watch.expect("created", 1, &mut self.out).await;
        for value in ["1", "2", "3", "4"] {
            self.set("f", value).await;
        }
        watch.events("the third and fourth", 2, &mut self.out).await;
    }

    async fn compaction(&mut self) {
        self.title("compaction");
        let now = self.revision().await;
        self.compact(now + 1).await;
        self.compact(now - 10).await;
        self.compact(now - 10).await;
        self.compact(now - 11).await;
        for revision in [1, now - 11, now - 10, now] {
            self.range(RangeRequest { revision, limit: 2, ..range("\0", "\0") }).await;
        }
        for start_revision in [1, now - 11] {
            let mut watch = Watch::open(&self.channel);
            watch.create(WatchCreateRequest { start_revision, ..watched("f", "") }).await;
            watch.expect("created and canceled", 2, &mut self.out).await;
        }
        let mut watch = Watch::open(&self.channel);
        watch.create(WatchCreateRequest { start_revision: now - 9, ..watched("f", "") }).await;
        watch.events("what is left", 4, &mut self.out).await;

        self.title("watch: progress on demand");
        let mut watch = Watch::open(&self.channel);
        watch.create(watched("f", "")).await;
        watch.expect("created", 1, &mut self.out).await;
        self.set("f", "5").await;
        watch.expect("put", 1, &mut self.out).await;
        watch.send(RequestUnion::ProgressRequest(WatchProgressRequest {})).await;
        watch.expect("progress", 1, &mut self.out).await;
    }

    async fn revision(&mut self) -> i64 {
        let response = self.kv.range(range("a", "")).await.expect("range").into_inner();
        response.header.expect("a header").revision
    }
}

/// One watch stream. etcd answers the call only with its first response, so the call waits in a task until then.
struct Watch {
    requests: mpsc::Sender<WatchRequest>,
    call: Option<JoinHandle<Result<Response<Streaming<WatchResponse>>, Status>>>,
    responses: Option<Streaming<WatchResponse>>,
}

impl Watch {
    fn open(channel: &Channel) -> Self {
        let (requests, receiver) = mpsc::channel(8);
        let mut client = WatchClient::new(channel.clone());
        let call = tokio::spawn(async move { client.watch(ReceiverStream::new(receiver)).await });
        Self { requests, call: Some(call), responses: None }
    }

    async fn send(&self, request: RequestUnion) {
        self.requests.send(WatchRequest { request_union: Some(request) }).await.expect("the stream is open");
    }

    async fn create(&self, create: WatchCreateRequest) {
        self.send(RequestUnion::CreateRequest(create)).await;
    }

    async fn cancel(&self, watch_id: i64) {
        self.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id })).await;
    }

    async fn next(&mut self, what: &str) -> WatchResponse {
        if let Some(call) = self.call.take() {
            let answer = soon(what, call).await.expect("no panic").expect("a stream");
            self.responses = Some(answer.into_inner());
        }
        let responses = self.responses.as_mut().expect("set with the first response");
        soon(what, responses.message()).await.expect("no error").expect("the stream is open")
    }

    /// Writes down the next responses, sorted by watch where several watches see one revision.
    async fn expect(&mut self, what: &str, responses: usize, out: &mut String) {
        let mut lines = Vec::new();
        let mut events = 0;
        // A server may answer for two keys of one transaction in one response or, to two watches, in two.
        while lines.len() < responses && events < responses {
            let response = self.next(what).await;
            events += response.events.len();
            lines.push(described(&response));
        }
        writeln!(out, "watch, {what}:\n    {}", lines.join("\n    ")).expect("write to a string");
    }

    /// Writes down `count` events, however many responses they come in.
    async fn events(&mut self, what: &str, count: usize, out: &mut String) {
        let mut events = Vec::new();
        while events.len() < count {
            events.extend(self.next(what).await.events);
        }
        let events: Vec<String> = events.iter().map(event).collect();
        writeln!(out, "events, {what}:\n    {}", events.join("\n    ")).expect("write to a string");
    }

    /// Writes down all events up to a put of `watched_key`, one that the watch sees, made now.
    async fn history(&mut self, what: &str, out: &mut String, watched_key: &str, kv: &mut KvClient<Channel>) {
        let end = PutRequest {
            key: watched_key.to_owned().into(),
            value: "the end of history".into(),
            ..PutRequest::default()
        };
        let end = kv.put(end).await.expect("put").into_inner().header.expect("a header").revision;
        let end = format!("modified {end},");
        let mut events: Vec<String> = Vec::new();
        while !events.last().is_some_and(|event| event.contains(&end)) {
            events.extend(self.next(what).await.events.iter().map(event));
        }
        writeln!(out, "history, {what}:\n    {}", events.join("\n    ")).expect("write to a string");
    }
}

fn described(response: &WatchResponse) -> String {
    // The header's revision of a response without events is of the moment.
    let revision = if response.events.is_empty() { String::new() } else { header(response.header) };
    format!(
        "watch {} {revision} created {} canceled {} compact revision {} [{}]",
        response.watch_id,
        response.created,
        response.canceled,
        response.compact_revision,
        response.events.iter().map(event).collect::<Vec<_>>().join(", ")
    )
}

fn event(event: &Event) -> String {
    let kv = event.kv.as_ref().map(pair);
    format!("{:?} {kv:?} previous {:?}", event.r#type(), event.prev_kv.as_ref().map(pair))
}

fn header(header: Option<ResponseHeader>) -> String {
    let header = header.expect("every response has a header");
    assert!(header.cluster_id != 0 && header.member_id != 0, "ids are not zero: {header:?}");
    format!("@{}", header.revision)
}

fn pair(kv: &KeyValue) -> String {
    format!(
        "{:?}={:?} (created {}, modified {}, version {}, lease {})",
        kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease
    )
}

fn range(key: &str, range_end: &str) -> RangeRequest {
    let (key, range_end) = (key.to_owned().into(), range_end.to_owned().into());
    RangeRequest { key, range_end, ..RangeRequest::default() }
}

fn watched(key: &str, range_end: &str) -> WatchCreateRequest {
    let (key, range_end) = (key.to_owned().into(), range_end.to_owned().into());
    WatchCreateRequest { key, range_end, ..WatchCreateRequest::default() }
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn compare(key: &str, target: CompareTarget, result: CompareResult, wanted: TargetUnion) -> Compare {
    Compare {
        key: key.to_owned().into(),
        target: target.into(),
        result: result.into(),
        target_union: Some(wanted),
        ..Compare::default()
    }
}
