//! What `/status` shows.

use std::time::Duration;

use jiff::Timestamp;
use kvstore::{KeyRange, Snapshot, Store};
use pki::LiveCredentials;
use serde_json::{Value, json};
use tokio::sync::watch;
use topology::record::{Kind, key};

use crate::election::Election;
use crate::export::Cluster;
use crate::finding::Finding;
use crate::hub::report::Report;
use crate::peer_filters::in_force;
use crate::remote_slices;
use crate::serve::clients::{Client, Clients};
use crate::store::replica::Shared;

/// Where the status page gets its facts.
#[derive(Clone, Debug)]
pub struct Status {
    /// The own cluster.
    pub cluster: Cluster,
    /// Its region, if given.
    pub region: Option<String>,
    /// The store.
    pub store: Store,
    /// The etcd that it is the mirror of, if it is.
    pub shared: Option<Shared>,
    /// The hub at its last update.
    pub report: watch::Receiver<Report>,
    /// The own certificate.
    pub credentials: LiveCredentials,
    /// Who is connected.
    pub clients: Clients,
    /// Why the file of peer filters does not count as it is.
    pub peer_filters: watch::Receiver<Option<Finding>>,
    /// What is odd about custom resources, if they are followed.
    pub resources: Option<watch::Receiver<Vec<Finding>>>,
    /// The slices of other clusters' backends, if there are to be any.
    pub remote_slices: Option<watch::Receiver<remote_slices::report::Report>>,
    /// When the process started.
    pub started: Timestamp,
}

impl Status {
    /// The page at this moment. O(keys in the store).
    pub fn show(&self) -> Value {
        let snapshot = self.store.snapshot();
        let count = |prefix: &str| snapshot.range(&KeyRange::prefix(prefix.to_owned())).count();
        let mut records: serde_json::Map<String, Value> = Kind::ALL
            .iter()
            .map(|kind| {
                (kind.segment().to_owned(), Value::from(count(&kind.state_prefix(&self.cluster.name))))
            })
            .collect();
        records.insert("local services".to_owned(), Value::from(count(key::LOCAL_SERVICES)));
        let heartbeat = snapshot.get(key::HEARTBEAT.as_bytes());
        let heartbeat = heartbeat.map(|entry| String::from_utf8_lossy(&entry.value).into_owned());
        let credentials = self.credentials.current();
        let report = self.report.borrow().clone();
        let clients: Vec<Value> =
            self.clients.connected().iter().map(|client| shown(client, &snapshot)).collect();
        let mut findings = report.findings;
        findings.extend(self.peer_filters.borrow().clone());
        findings.extend(self.resources.iter().flat_map(|findings| findings.borrow().clone()));
        let election = self.shared.as_ref().and_then(|shared| shared.candidacy.election());
        findings.extend(election.and_then(|election| election.standing().borrow().unusable.clone()));
        let remote_slices = self.remote_slices.as_ref().map(|report| report.borrow().clone());
        findings.extend(remote_slices.iter().flat_map(|report| &report.findings).cloned());
        findings.sort();
        json!({
            "cluster": self.cluster.name,
            "id": self.cluster.id,
            "region": self.region,
            "version": env!("CARGO_PKG_VERSION"),
            "started": self.started,
            "revision": snapshot.revision(),
            "heartbeat": heartbeat,
            "store": {
                "clusterId": format!("{:x}", self.store.cluster_id()),
                "keys": snapshot.len(),
                "compactRevision": snapshot.compacted(),
                "diskFailure": self.store.disk_failure().map(|failure| json!({
                    "reason": failure.reason(),
                    "since": failure.since(),
                })),
                "kind": if self.shared.is_some() { "etcd" } else { "embedded" },
                "etcd": self.shared.as_ref().map(shared),
            },
            "source": report.source,
            "objects": report.objects,
            "records": records,
            "publishedRevision": report.published_revision,
            "identities": {
                "keptBy": report.numbering,
                "allocated": report.identities_allocated,
                "inUse": report.identities_in_use,
                "waiting": report.identities_waiting,
                "available": report.identities_available,
            },
            "certificate": {
                "subject": credentials.subject(),
                "expires": Timestamp::try_from(credentials.expires()).ok(),
                "problem": self.credentials.problem(),
            },
            "clients": clients,
            "refused": self.clients.lately_refused(),
            "remoteSlices": remote_slices,
            "findings": findings,
        })
    }
}

/// A client with the export filter that applies to it, and since which revision.
fn shown(client: &Client, snapshot: &Snapshot) -> Value {
    let mut shown = json!(client);
    if let (Some(peer), Value::Object(members)) = (&client.peer, &mut shown) {
        let in_force = peer.in_force(snapshot);
        let filter = in_force.value.map(|value| match in_force::filter(value) {
            Some(filter) => json!(filter),
            None => json!({ "unreadable": String::from_utf8_lossy(value) }),
        });
        members.insert("exportFilter".to_owned(), json!({ "filter": filter, "since": in_force.since }));
    }
    shown
}

/// What there is to say about the etcd behind a mirror: above all, how old what is served may be.
fn shared(shared: &Shared) -> Value {
    let endpoint = shared.etcd.endpoint();
    json!({
        "connected": endpoint.is_some(),
        "endpoint": endpoint,
        "ageSeconds": seconds(shared.etcd.age()),
        "replica": shared.name,
        "leader": shared.candidacy.leader(),
        "leads": *shared.leads.borrow(),
        "lease": shared.candidacy.election().map(lease),
    })
}

/// What there is to say about the Lease that elects.
fn lease(election: &Election) -> Value {
    let standing = election.standing().borrow().clone();
    json!({
        "lease": election.settings().place(),
        "holder": standing.holder,
        "held": standing.holds(),
        "renewedSecondsAgo": standing.renewed.map(|renewed| seconds(renewed.elapsed())),
        "transitions": standing.transitions,
        "usable": standing.unusable.is_none(),
    })
}

/// To the millisecond.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}
