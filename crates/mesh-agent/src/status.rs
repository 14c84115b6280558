//! What the agent says about itself: `/status`, `/services` and `/image`.

use std::collections::BTreeMap;

use ebpf_types::Backend;
use peering::view::{Link, View};
use serde_json::{Value, json};
use tokio::time::Instant;
use topology::ClusterName;

use crate::desired::{Conflict, Decision, Desired};
use crate::image::Image;
use crate::maps::Maps;
use crate::probe::ProbeReport;
use crate::programmer::{Outcome, Programmer};
use crate::sources::Heard;

/// What the reconcile loop last did, and why it does nothing if it does nothing.
#[derive(Clone, Debug)]
pub struct Reconciled {
    /// What is waited for before anything is written, if anything.
    pub inert: Option<String>,
    /// When it last ran.
    pub at: Instant,
    /// How long that took, in microseconds, up to the last map write.
    pub took_micros: u64,
    /// Runs since the start.
    pub runs: u64,
    /// Map entries written since the start.
    pub written: u64,
    /// Map operations that failed since the start.
    pub failed: u64,
    /// Entries that an audit found otherwise than they should have been, since the start.
    pub drift: u64,
    /// What failed in the last run, and is tried again.
    pub failures: Vec<String>,
}

/// Everything that the pages show, at one moment.
#[derive(Clone, Debug)]
pub struct Shown {
    /// What the sources say.
    pub heard: Heard,
    /// What was decided.
    pub decisions: BTreeMap<ebpf_types::FrontendKey, Decision>,
    /// Claims that were not granted.
    pub conflicts: Vec<Conflict>,
    /// What the maps hold.
    pub applied: Image,
    /// Backend ids.
    pub ids: BTreeMap<Backend, u32>,
    /// Free slots.
    pub free_slots: u32,
    /// What the loop did.
    pub reconciled: Reconciled,
}

impl Shown {
    /// Takes down how things are after a run.
    pub fn new<M: Maps>(
        heard: Heard,
        desired: Desired,
        programmer: &Programmer<M>,
        reconciled: Reconciled,
    ) -> Self {
        let applied = programmer.applied().clone();
        let ids = applied.frontends.values().flatten();
        Self {
            heard,
            decisions: desired.decisions,
            conflicts: desired.conflicts,
            ids: ids.filter_map(|b| Some((*b, programmer.backend_id(b)?))).collect(),
            free_slots: programmer.available_slots(),
            applied,
            reconciled,
        }
    }

    /// `/status`: how everything is, in one object.
    pub fn status(&self, probes: &[ProbeReport]) -> Value {
        let snapshot = &self.heard.snapshot;
        let hubs: Vec<Value> = self.heard.views.iter().map(|(name, view)| hub(name, view)).collect();
        json!({
            "cluster": snapshot.own.name,
            "clusterId": snapshot.own.id,
            "node": snapshot.node,
            "ownHub": hubs.first(),
            "peers": hubs.get(1..),
            "peerProblems": self.heard.problems,
            "notHeardYet": self.heard.unheard,
            "nodes": probes,
            "ownFaultPresumed": snapshot.health.own_fault_presumed(),
            "globalServices": snapshot.services.values().filter(|s| s.global).count(),
            "maps": {
                "frontends": self.applied.frontends.len(),
                "backends": self.ids.len(),
                "addresses": self.applied.ipcache.len(),
                "freeSlots": self.free_slots,
            },
            "conflicts": self.conflicts,
            "reconcile": {
                "state": if self.reconciled.inert.is_some() { "inert" } else { "running" },
                "waitingFor": self.reconciled.inert,
                "lastRunAgoMs": u64::try_from(self.reconciled.at.elapsed().as_millis()).unwrap_or(u64::MAX),
                "tookMicros": self.reconciled.took_micros,
                "runs": self.reconciled.runs,
                "written": self.reconciled.written,
                "failed": self.reconciled.failed,
                "drift": self.reconciled.drift,
                "failures": self.reconciled.failures,
            },
        })
    }

    /// `/services`: for each frontend every candidate, whether it gets new connections, and why.
    pub fn services(&self) -> Value {
        let own = &self.heard.snapshot.own.name;
        let frontends = self.decisions.iter().map(|(key, decision)| {
            let candidates: Vec<Value> = decision
                .candidates
                .iter()
                .map(|(c, reason)| {
                    json!({
                        "address": c.address,
                        "port": c.port,
                        "cluster": c.cluster.as_ref().unwrap_or(own),
                        "in": reason.is_in(),
                        "why": reason.to_string(),
                    })
                })
                .collect();
            json!({
                "service": decision.service,
                "frontend": key.socket_addr(),
                "protocol": key.protocol().map(|p| p.to_string()),
                "candidates": candidates,
            })
        });
        Value::Array(frontends.collect())
    }

    /// `/image`: what the maps hold, with backend ids.
    pub fn image(&self) -> Value {
        let id = |backend: &Backend| self.ids.get(backend);
        let frontends: Vec<Value> = self
            .applied
            .frontends
            .iter()
            .map(|(key, backends)| {
                json!({
                    "frontend": key.socket_addr(),
                    "protocol": key.protocol().map(|p| p.to_string()),
                    "service": self.decisions.get(key).map(|d| &d.service),
                    "backends": backends.iter().map(id).collect::<Vec<_>>(),
                })
            })
            .collect();
        let backends: Vec<Value> = self
            .ids
            .iter()
            .map(|(b, id)| {
                json!({
                    "id": id,
                    "address": b.socket_addr().ip(),
                    "port": b.socket_addr().port(),
                    "protocol": b.protocol().map(|p| p.to_string()),
                    "clusterId": b.cluster_id,
                })
            })
            .collect();
        let addresses: Vec<Value> = self
            .applied
            .ipcache
            .iter()
            .map(|(key, entry)| {
                let (ip, len) = key.prefix();
                json!({
                    "block": format!("{ip}/{len}"),
                    "identity": entry.identity,
                    "clusterId": entry.cluster_id,
                    "node": std::net::IpAddr::from(entry.node),
                })
            })
            .collect();
        json!({ "frontends": frontends, "backends": backends, "addresses": addresses })
    }
}

impl Reconciled {
    /// Nothing was done yet.
    pub fn never(waiting_for: &str) -> Self {
        Self {
            inert: Some(waiting_for.to_owned()),
            at: Instant::now(),
            took_micros: 0,
            runs: 0,
            written: 0,
            failed: 0,
            drift: 0,
            failures: Vec::new(),
        }
    }

    /// Takes note of a run.
    pub fn ran(&mut self, started: Instant, outcome: Outcome) {
        self.inert = None;
        self.at = Instant::now();
        self.took_micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.runs += 1;
        self.written += outcome.done as u64;
        self.failed += outcome.failures.len() as u64;
        self.failures = outcome.failures;
    }
}

fn hub(name: &ClusterName, view: &View) -> Value {
    let member = &view.member;
    let age = match &view.link {
        Link::Stale { since, .. } => Some(since.elapsed().as_secs()),
        _ => None,
    };
    let synced: Vec<String> = member.synced.iter().map(ToString::to_string).collect();
    json!({
        "cluster": name,
        "id": member.id,
        "state": view.link.word(),
        "reason": view.link.reason(),
        "lastHeardSecsAgo": age,
        "synced": synced,
        "nodes": member.nodes.len(),
        "services": member.services.len() + view.local_services.len(),
        "endpoints": member.addresses.len(),
        "identities": member.identities.len(),
        "rejected": view.rejections.count,
        "lastRejections": view.rejections.last,
    })
}
