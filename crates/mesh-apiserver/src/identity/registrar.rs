//! Creates, marks and deletes the objects of identities, until each is as it is wanted.
//!
//! ```text
//!   Hub ── Want of a number, or none ──> task: at most 16 requests at a time ──> API server ──> watch ──> Hub
//! ```
//! What came of a request is not told: the hub sees it as everybody does, in its watch. What failed, and what is still
//! wanted after a while, is tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions,
};
use kube::core::GroupVersionKind;
use kube::{Client, Error};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use topology::{Identity, Labels};
use tracing::debug;

use crate::object::MeshIdentity;
use crate::object::identity::{UNUSED, to_map};
use mesh_resources::mesh_identity;

/// How the object of a number is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// It is to be there, with these labels.
    Exists(Arc<Labels>),
    /// This version of it is to lose its mark.
    Unmarked(Arc<MeshIdentity>),
    /// This version of it is to be marked as unused.
    Marked(Arc<MeshIdentity>),
    /// This version of it is to be deleted.
    Gone(Arc<MeshIdentity>),
}

/// What does not work at present, by verb.
pub type Problems = BTreeMap<&'static str, Problem>;

/// Why objects are not as they are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Whether the API server never takes such requests: 403, or 404 of the kind.
    pub denied: bool,
    /// What it, or the connection, said.
    pub text: String,
}

/// The hub's side. The task ends with it.
#[derive(Debug)]
pub struct Registrar {
    wants: mpsc::UnboundedSender<(Identity, Option<Want>)>,
    problems: watch::Receiver<Problems>,
    _task: JoinSet<()>,
}

impl Registrar {
    /// Starts a task that asks the API server of this client.
    pub fn start(client: Client) -> Self {
        let (wants, receiver) = mpsc::unbounded_channel();
        let (sender, problems) = watch::channel(Problems::new());
        let mut task = JoinSet::new();
        task.spawn(Work::new(Objects::new(client), receiver, sender).run());
        Self { wants, problems, _task: task }
    }

    /// Says how the object of a number is to be from now on; `None`: no matter.
    pub fn want(&self, identity: Identity, want: Option<Want>) {
        // The task lives as long as this.
        drop(self.wants.send((identity, want)));
    }

    /// What does not work at present.
    pub fn problems(&self) -> watch::Receiver<Problems> {
        self.problems.clone()
    }
}

/// The objects at the API server.
#[derive(Clone, Debug)]
struct Objects(Api<DynamicObject>);

/// Why a request was in vain.
#[derive(Debug)]
enum Failure {
    /// The object is not as the hub thinks: its watch will say so.
    Outdated,
    /// It will be so again.
    Denied(String),
    /// It may go next time.
    Failed(String),
}

impl Objects {
    fn new(client: Client) -> Self {
        let kind = GroupVersionKind::gvk(mesh_resources::GROUP, mesh_resources::VERSION, mesh_identity::KIND);
        Self(Api::all_with(client, &ApiResource::from_gvk_with_plural(&kind, mesh_identity::PLURAL)))
    }

    async fn make_so(&self, identity: Identity, want: &Want) -> Result<(), Failure> {
        let name = identity.to_string();
        let done = async {
            match want {
                Want::Exists(labels) => {
                    let object = mesh_identity::object(&name, &to_map(labels));
                    let object = serde_json::from_value(object).map_err(Error::SerdeError)?;
                    let params =
                        PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
                    self.0.create(&params, &object).await.map(drop)
                }
                Want::Unmarked(object) => self.mark(&name, object, false).await,
                Want::Marked(object) => self.mark(&name, object, true).await,
                Want::Gone(object) => {
                    let preconditions = Preconditions {
                        uid: Some(object.uid.to_string()),
                        resource_version: Some(object.version.to_string()),
                    };
                    let params = DeleteParams::default().preconditions(preconditions);
                    self.0.delete(&name, &params).await.map(drop)
                }
            }
        };
        match timeout(ANSWER_TIME, done).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(failure(want, &error)),
            Err(_) => Err(Failure::Failed(format!("no answer within {} s", ANSWER_TIME.as_secs()))),
        }
    }

    /// Only this version of the object is marked: one that somebody began to use meanwhile is another.
    async fn mark(&self, name: &str, object: &MeshIdentity, unused: bool) -> Result<(), Error> {
        let mark = unused.then(|| format!("{:.0}", jiff::Timestamp::now()));
        let patch = json!({"metadata": {
            "uid": object.uid,
            "resourceVersion": object.version,
            "annotations": {UNUSED: mark},
        }});
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        self.0.patch(name, &params, &Patch::Merge(patch)).await.map(drop)
    }
}

fn failure(want: &Want, error: &Error) -> Failure {
    let text = || match error {
        Error::Api(status) => format!("{} {}", status.code, status.message),
        error => mesh_runtime::Chain(error).to_string(),
    };
    match (error, want) {
        (Error::Api(status), Want::Gone(_)) if status.code == 404 => Failure::Outdated,
        (Error::Api(status), Want::Unmarked(_) | Want::Marked(_)) if status.code == 404 => Failure::Outdated,
        (Error::Api(status), _) if status.code == 409 => Failure::Outdated,
        (Error::Api(status), _) if matches!(status.code, 403 | 404) => Failure::Denied(text()),
        _ => Failure::Failed(text()),
    }
}

impl Want {
    fn verb(&self) -> &'static str {
        match self {
            Self::Exists(_) => "create",
            Self::Unmarked(_) | Self::Marked(_) => "patch",
            Self::Gone(_) => "delete",
        }
    }
}

/// Holds what the task knows.
struct Work {
    objects: Objects,
    wants: mpsc::UnboundedReceiver<(Identity, Option<Want>)>,
    problems: watch::Sender<Problems>,
    wanted: BTreeMap<Identity, Wanted>,
    queue: BTreeSet<(Instant, Identity)>,
    under_way: BTreeSet<Identity>,
    requests: JoinSet<(Identity, Want, Result<(), Failure>)>,
    /// Nothing is asked before this: the API server is away or busy.
    rest: Instant,
    failures: u32,
}

struct Wanted {
    want: Want,
    failures: u32,
    /// When it is in the queue, for when.
    at: Option<Instant>,
}

impl Work {
    fn new(
        objects: Objects,
        wants: mpsc::UnboundedReceiver<(Identity, Option<Want>)>,
        problems: watch::Sender<Problems>,
    ) -> Self {
        let (wanted, queue, under_way) = Default::default();
        let (requests, rest) = (JoinSet::new(), Instant::now());
        Self { objects, wants, problems, wanted, queue, under_way, requests, rest, failures: 0 }
    }

    async fn run(mut self) {
        let mut received = Vec::new();
        loop {
            self.begin();
            let free = self.requests.len() < CONCURRENT;
            let next = self.queue.first().filter(|_| free).map(|(at, _)| (*at).max(self.rest));
            // All arms are cancel-safe.
            tokio::select! {
                count = self.wants.recv_many(&mut received, BATCH) => {
                    if count == 0 {
                        return;
                    }
                    for (identity, want) in received.drain(..) {
                        self.set(identity, want);
                    }
                }
                Some(ended) = self.requests.join_next() => match ended {
                    Ok((identity, want, result)) => self.ended(identity, &want, result),
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                },
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
        }
    }

    fn set(&mut self, identity: Identity, want: Option<Want>) {
        if let Some(at) = self.wanted.remove(&identity).and_then(|wanted| wanted.at) {
            self.queue.remove(&(at, identity));
        }
        let Some(want) = want else { return };
        self.wanted.insert(identity, Wanted { want, failures: 0, at: None });
        if !self.under_way.contains(&identity) {
            self.enqueue(identity, Instant::now());
        }
    }

    fn enqueue(&mut self, identity: Identity, at: Instant) {
        if let Some(wanted) = self.wanted.get_mut(&identity) {
            wanted.at = Some(at);
            self.queue.insert((at, identity));
        }
    }

    /// Begins what is due.
    fn begin(&mut self) {
        let now = Instant::now();
        while self.requests.len() < CONCURRENT && self.rest <= now {
            let Some((_, identity)) = self.queue.first().copied().filter(|(at, _)| *at <= now) else {
                return;
            };
            self.queue.pop_first();
            let Some(wanted) = self.wanted.get_mut(&identity) else { continue };
            wanted.at = None;
            self.under_way.insert(identity);
            let (objects, want) = (self.objects.clone(), wanted.want.clone());
            self.requests.spawn(async move {
                let result = objects.make_so(identity, &want).await;
                (identity, want, result)
            });
        }
    }

    fn ended(&mut self, identity: Identity, want: &Want, result: Result<(), Failure>) {
        self.under_way.remove(&identity);
        let now = Instant::now();
        let pause = |failures: u32| LONGEST_PAUSE.min(SHORTEST_PAUSE * (1 << failures.min(12)));
        let (problem, away) = match &result {
            Ok(()) | Err(Failure::Outdated) => (None, false),
            Err(Failure::Denied(text)) => (Some(Problem { denied: true, text: text.clone() }), false),
            Err(Failure::Failed(text)) => (Some(Problem { denied: false, text: text.clone() }), true),
        };
        if let Err(failure) = &result {
            debug!(%identity, verb = want.verb(), ?failure, "object of an identity");
        }
        self.failures = if away { self.failures + 1 } else { 0 };
        if away {
            self.rest = now + pause(self.failures);
        }
        self.tell(want.verb(), problem);
        let Some(wanted) = self.wanted.get_mut(&identity) else { return };
        let at = match &result {
            _ if wanted.want != *want => now,
            Ok(()) => {
                wanted.failures = 0;
                now + LOOK_AGAIN
            }
            Err(_) => {
                wanted.failures += 1;
                now + pause(wanted.failures)
            }
        };
        self.enqueue(identity, at);
    }

    /// More of the same is no news.
    fn tell(&self, verb: &'static str, problem: Option<Problem>) {
        self.problems.send_if_modified(|problems| match (problems.get(verb), problem) {
            (Some(before), Some(now)) if before.denied == now.denied => false,
            (_, Some(now)) => {
                problems.insert(verb, now);
                true
            }
            (_, None) => problems.remove(verb).is_some(),
        });
    }
}

/// The name under which the API server notes who wrote.
const MANAGER: &str = "isthmus-hub";
/// Requests at a time.
const CONCURRENT: usize = 16;
/// Wants that are taken in at once.
const BATCH: usize = 1024;
/// Time for an answer.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// What was done, and is still wanted after this time, is done again.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
