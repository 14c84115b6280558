//! Conditions and Events: what became of each object, where its owner looks.

use std::collections::BTreeMap;
use std::fmt::Debug;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::ApiResource;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use mesh_resources::condition::conditions;
use mesh_resources::{ClusterPeer, FailoverPolicy};
use mesh_runtime::Chain;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};
use tracing::{debug, info};

use super::decide::{Decision, Judged, status_of};
use super::follow::Seen;
use super::raw::{Custom, Raw};
use crate::finding::{Finding, Reason};

/// Writes conditions and Events.
pub struct Answers {
    client: Client,
    recorder: Recorder,
    /// What was written to each object, by its uid, and when: whoever writes over it does not get an answer at once.
    written: BTreeMap<String, (Value, Instant)>,
    /// Whether Events cannot be written, which is said once.
    mute: bool,
}

impl Answers {
    /// Prepares to write.
    pub fn new(client: Client) -> Self {
        let reporter = Reporter { controller: MANAGER.to_owned(), instance: None };
        let recorder = Recorder::new(client.clone(), reporter);
        Self { client, recorder, written: BTreeMap::new(), mute: false }
    }

    /// Writes what is decided about each object, where its status does not say it already.
    ///
    /// Fails with the first status that cannot be written; the others are written.
    pub async fn answer(
        &mut self,
        peers: &Seen<ClusterPeer>,
        policies: &Seen<FailoverPolicy>,
        decision: &Decision,
    ) -> Result<(), Finding> {
        let mut failed = None;
        let judged = |raw: &Raw<ClusterPeer>| decision.peers.get(raw.name());
        for (raw, judged) in peers.iter().filter_map(|(_, raw)| Some((raw, judged(raw)?))) {
            if let Err(finding) = self.say(raw, judged).await {
                failed.get_or_insert(finding);
            }
        }
        for (raw, judged) in policies.iter().filter_map(|(key, raw)| Some((raw, decision.policies.get(key)?)))
        {
            if let Err(finding) = self.say(raw, judged).await {
                failed.get_or_insert(finding);
            }
        }
        let uids = peers.iter().map(|(_, raw)| &raw.metadata.uid);
        let uids: Vec<&String> =
            uids.chain(policies.iter().map(|(_, raw)| &raw.metadata.uid)).flatten().collect();
        self.written.retain(|uid, _| uids.contains(&uid));
        match failed {
            Some(finding) => Err(finding),
            None => Ok(()),
        }
    }

    async fn say<K: Custom>(&mut self, raw: &Raw<K>, judged: &Judged) -> Result<(), Finding> {
        let before = raw.conditions();
        let generation = raw.metadata.generation;
        let after = conditions(&before, &judged.statements, generation, Timestamp::now());
        let mut status = status_of(judged, generation);
        status["conditions"] = json!(after);
        if status == raw.content.status {
            return Ok(());
        }
        let uid = raw.metadata.uid.clone().unwrap_or_default();
        // Times aside: what is written again would be of another moment.
        let essence =
            json!([generation, judged.cluster, judged.statements.iter().map(essence).collect::<Vec<_>>()]);
        let is_recent = |(written, at): &(Value, Instant)| *written == essence && at.elapsed() < PATIENCE;
        if self.written.get(&uid).is_some_and(is_recent) {
            return Ok(());
        }
        let api = self.api::<K>(raw.metadata.namespace.as_deref());
        let body = json!({"apiVersion": K::api_version(&()), "kind": K::kind(&()),
            "metadata": {"name": raw.name()}, "status": status});
        let params = PatchParams::apply(MANAGER).force();
        match api.patch_status(raw.name(), &params, &Patch::Apply(&body)).await {
            Ok(_) => {}
            // It is gone, or another one by now: the watch says so.
            Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => return Ok(()),
            Err(error) => return Err(failure::<K>(&error)),
        }
        self.written.insert(uid, (essence, Instant::now()));
        for condition in news(&before, &after) {
            info!(
                kind = %K::kind(&()),
                object = raw.name(),
                condition = condition.type_,
                status = condition.status,
                reason = condition.reason,
                "{}",
                condition.message
            );
            self.record::<K>(raw, condition).await;
        }
        Ok(())
    }

    async fn record<K: Custom>(&mut self, raw: &Raw<K>, condition: &Condition) {
        let is_good = condition.status == "True";
        let note = format!("{} is {}: {}", condition.type_, condition.status, condition.message);
        let event = Event {
            type_: if is_good { EventType::Normal } else { EventType::Warning },
            reason: condition.reason.chars().take(128).collect(),
            note: Some(note.chars().take(1000).collect()),
            action: "Follow".to_owned(),
            secondary: None,
        };
        let reference = ObjectReference {
            api_version: Some(K::api_version(&()).into_owned()),
            kind: Some(K::kind(&()).into_owned()),
            name: raw.metadata.name.clone(),
            namespace: raw.metadata.namespace.clone(),
            uid: raw.metadata.uid.clone(),
            resource_version: raw.metadata.resource_version.clone(),
            field_path: None,
        };
        match self.recorder.publish(&event, &reference).await {
            Ok(()) => self.mute = false,
            Err(error) if !std::mem::replace(&mut self.mute, true) => {
                // Conditions say the same.
                info!(error = %Chain(&error), "Events cannot be written (ClusterRole rule: events.k8s.io events create, patch)");
            }
            Err(error) => debug!(error = %Chain(&error), "Event not written"),
        }
    }

    fn api<K: Custom>(&self, namespace: Option<&str>) -> Api<DynamicObject> {
        let resource = ApiResource::erase::<K>(&());
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }
}

impl Debug for Answers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answers").field("objects", &self.written.len()).finish_non_exhaustive()
    }
}

fn essence(said: &mesh_resources::condition::Statement) -> Value {
    json!([said.kind, said.holds, said.reason, said.message])
}

/// The conditions that say something new.
fn news<'a>(before: &'a [Condition], after: &'a [Condition]) -> impl Iterator<Item = &'a Condition> {
    after.iter().filter(|condition| {
        let same = |other: &&Condition| other.type_ == condition.type_;
        let said = |other: &Condition| (other.status.clone(), other.reason.clone());
        before.iter().find(same).map(said) != Some(said(condition))
    })
}

fn failure<K: Resource<DynamicType = ()>>(error: &kube::Error) -> Finding {
    let (kind, plural) = (K::kind(&()), K::plural(&()));
    Finding::error(Reason::SourceDenied, format_args!("status of kind {kind}"))
        .found(Chain(error))
        .expected(format_args!(
            "to be allowed to patch it: ClusterRole rule {{apiGroups: [\"isthmus.dev\"], resources: [{plural}/status], \
             verbs: [patch]}}"
        ))
        .so("what the objects say is in force all the same, and their conditions do not say so")
}

/// The name under which the hub writes.
pub const MANAGER: &str = "isthmus-hub";
/// The same is not written again to one object within this time.
const PATIENCE: Duration = Duration::from_secs(60);
