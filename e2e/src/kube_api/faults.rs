//! Things that go wrong on request: the same from Rust and over `POST /_lab/faults`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use super::clock::Clock;
use super::failure::Failure;
use super::rbac::{self, User};
use super::request::{Address, Verb};
use super::store::Store;

/// Something that goes wrong. As JSON: `{"fault": "answer", "verb": "list", "status": 429, "count": 3}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Fault {
    /// Ends all watches that there are now; the clients may come back at once.
    DropWatches {
        /// Whether the connection breaks in the middle, instead of an orderly end.
        #[serde(default)]
        broken: bool,
    },
    /// Ends all watches that there are now with an ERROR event of this status (410: they must list again).
    FailWatches {
        /// HTTP status code in the `Status`.
        status: u16,
    },
    /// Answers the next requests with this status instead of doing anything.
    Answer {
        /// Which requests.
        #[serde(flatten)]
        only: Requests,
        /// HTTP status code, e.g. 410, 429, 500, 503.
        status: u16,
        /// The `Retry-After` header, in seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_secs: Option<u32>,
        /// How many requests; none: until cleared.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        count: Option<u32>,
    },
    /// Lets requests wait before anything is done.
    Delay {
        /// Which requests.
        #[serde(flatten)]
        only: Requests,
        /// How long, in milliseconds.
        millis: u64,
        /// How many requests; none: until cleared.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        count: Option<u32>,
    },
    /// Answers 403 as RBAC does, until cleared.
    Deny {
        /// Which requests.
        #[serde(flatten)]
        only: Requests,
    },
    /// Closes all connections and does not listen for a while: connecting is refused.
    RefuseConnections {
        /// How long, in milliseconds.
        millis: u64,
    },
    /// Restarts: as `RefuseConnections`; the objects stay.
    Restart {
        /// How long it is away, in milliseconds.
        #[serde(default)]
        millis: u64,
        /// Whether the history of changes is lost, so that no watch can go on where it was (410).
        #[serde(default)]
        new_history: bool,
    },
    /// Forgets the history: a watch from before now gets 410, and so does the next page of a list.
    Compact,
    /// Sets the server's clock ahead; negative: behind; 0: right.
    ClockSkew {
        /// Seconds.
        secs: i64,
    },
    /// Takes away all `Answer`, `Delay` and `Deny`, and sets the clock right.
    Clear,
}

/// Which requests a fault is for; what is absent does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Requests {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `apply`, `delete`, `deletecollection`. `patch` means
    /// `apply` too, as in RBAC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verb: Option<String>,
    /// `plural[.group][/subresource]`, e.g. `endpointslices.discovery.k8s.io` or `services/status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// What the path begins with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// How all present watches end.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum WatchEnd {
    /// They go on.
    #[default]
    None,
    /// In order, as when the time is up.
    Clean,
    /// The connection breaks.
    Broken,
    /// With an ERROR event.
    Failed(Failure),
}

/// Closes all connections and listens again after a time.
#[derive(Debug)]
pub struct Absence {
    /// How long nobody listens.
    pub length: Duration,
    /// Told once nobody listens and every connection is to end.
    pub begun: oneshot::Sender<()>,
}

/// Resolves once a fault is in force: at once, or for an absence when connecting is refused. Need not be awaited.
#[derive(Debug)]
pub struct Begun(Option<oneshot::Receiver<()>>);

impl IntoFuture for Begun {
    type Output = ();
    type IntoFuture = BoxFuture<'static, ()>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            if let Some(begun) = self.0 {
                // Not told means that the server has ended: nobody listens then either.
                drop(begun.await);
            }
        })
    }
}

/// Makes things go wrong.
#[derive(Clone, Debug)]
pub struct Faults {
    store: Arc<Store>,
    clock: Arc<Clock>,
    active: Arc<Mutex<Vec<Fault>>>,
    ends: watch::Sender<WatchEnd>,
    absences: mpsc::Sender<Absence>,
}

impl Requests {
    /// All requests.
    pub fn all() -> Self {
        Self::default()
    }

    /// Requests with this verb for this resource.
    pub fn of(verb: &str, resource: &str) -> Self {
        Self { verb: Some(verb.to_owned()), resource: Some(resource.to_owned()), ..Self::default() }
    }

    fn matches(&self, path: &str, objects: Option<(Verb, &Address)>) -> bool {
        let same = |asked: &Option<String>, found: Option<&str>| {
            asked.as_deref().is_none_or(|asked| Some(asked) == found)
        };
        let verb = objects.map(|(verb, _)| verb.word());
        let is_patch = self.verb.as_deref() == Some("patch") && verb == Some("apply");
        (same(&self.verb, verb) || is_patch)
            && same(&self.resource, objects.map(|(_, address)| address.resource()).as_deref())
            && same(&self.namespace, objects.and_then(|(_, address)| address.namespace.as_deref()))
            && self.path.as_deref().is_none_or(|start| path.starts_with(start))
    }
}

impl Faults {
    pub(super) fn new(store: Arc<Store>, clock: Arc<Clock>) -> (Self, mpsc::Receiver<Absence>) {
        let (absences, receiver) = mpsc::channel(16);
        let active = Arc::default();
        (Self { store, clock, active, ends: watch::Sender::new(WatchEnd::None), absences }, receiver)
    }

    /// Makes this go wrong from now on. Absences are queued: the server is away once what this returns has resolved.
    pub fn inject(&self, fault: Fault) -> Begun {
        match fault {
            Fault::DropWatches { broken: false } => self.end_watches(WatchEnd::Clean),
            Fault::DropWatches { broken: true } => self.end_watches(WatchEnd::Broken),
            Fault::FailWatches { status } => self.end_watches(WatchEnd::Failed(failure(status, None))),
            Fault::RefuseConnections { millis } => return self.go_away(millis),
            Fault::Restart { millis, new_history } => {
                if new_history {
                    self.store.with(|state| state.compact());
                }
                return self.go_away(millis);
            }
            Fault::Compact => self.store.with(|state| state.compact()),
            Fault::ClockSkew { secs } => self.clock.set_skew_secs(secs),
            Fault::Clear => {
                self.lock().clear();
                self.clock.set_skew_secs(0);
            }
            Fault::Answer { .. } | Fault::Delay { .. } | Fault::Deny { .. } => self.lock().push(fault),
        }
        Begun(None)
    }

    /// What is wrong now, but for what happened and was over.
    pub fn active(&self) -> Vec<Fault> {
        self.lock().clone()
    }

    /// How the present watches end, once.
    pub(super) fn ends(&self) -> watch::Receiver<WatchEnd> {
        self.ends.subscribe()
    }

    /// What becomes of a request: how long it waits, and what it is refused with.
    pub(super) fn meet(&self, path: &str, objects: Option<(Verb, &Address)>) -> (Duration, Option<Failure>) {
        let mut wait = Duration::ZERO;
        let mut refusal = None;
        self.lock().retain_mut(|fault| {
            let (Fault::Answer { only, .. } | Fault::Delay { only, .. } | Fault::Deny { only }) = &fault
            else {
                return false;
            };
            if refusal.is_some() || !only.matches(path, objects) {
                return true;
            }
            match fault {
                Fault::Answer { status, retry_after_secs, count, .. } => {
                    refusal = Some(failure(*status, *retry_after_secs));
                    use_up(count)
                }
                Fault::Delay { millis, count, .. } => {
                    wait += Duration::from_millis(*millis);
                    use_up(count)
                }
                _ => {
                    refusal = Some(denied(path, objects));
                    true
                }
            }
        });
        (wait, refusal)
    }

    fn end_watches(&self, end: WatchEnd) {
        self.ends.send_replace(end);
    }

    fn go_away(&self, millis: u64) -> Begun {
        let (begun, told) = oneshot::channel();
        let absence = Absence { length: Duration::from_millis(millis), begun };
        if self.absences.try_send(absence).is_err() {
            tracing::warn!(millis, "not queued: the server has ended, or is to go away many times already");
        }
        Begun(Some(told))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Fault>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts one use; whether there are more.
fn use_up(count: &mut Option<u32>) -> bool {
    match count {
        None => true,
        Some(left) => {
            *left = left.saturating_sub(1);
            *left > 0
        }
    }
}

/// What an API server that is in this trouble says.
fn failure(status: u16, retry_after_secs: Option<u32>) -> Failure {
    let (reason, message) = match status {
        401 => ("Unauthorized", "Unauthorized"),
        403 => ("Forbidden", "forbidden on request"),
        404 => ("NotFound", "not found on request"),
        409 => ("Conflict", "conflict on request"),
        410 => ("Expired", "The resourceVersion for the provided watch is too old."),
        429 => ("TooManyRequests", "too many requests, please try again later"),
        500 => ("InternalError", "Internal error occurred: on request"),
        503 => ("ServiceUnavailable", "the server is currently unable to handle the request"),
        504 => ("Timeout", "request did not complete within requested timeout"),
        _ => ("Unknown", "failure on request"),
    };
    Failure { retry_after_secs, ..Failure::new(status, reason, message) }
}

fn denied(path: &str, objects: Option<(Verb, &Address)>) -> Failure {
    match objects {
        Some((verb, address)) => rbac::denied(&User::Lab, rbac::word(verb), address),
        None => Failure::forbidden(format!("forbidden: User \"lab\" cannot get path {path:?}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults() -> Faults {
        Faults::new(Arc::new(Store::new(10)), Arc::default()).0
    }

    fn slices() -> Address {
        let (group, version) = ("discovery.k8s.io".to_owned(), "v1".to_owned());
        Address { group, version, plural: "endpointslices".to_owned(), ..Address::default() }
    }

    #[test]
    fn as_json() {
        let fault: Fault = serde_json::from_value(json!({"fault": "answer", "verb": "list", "status": 429,
            "retryAfterSecs": 1, "count": 2, "resource": "services"}))
        .expect("a fault");
        let only = Requests::of("list", "services");
        assert_eq!(fault, Fault::Answer { only, status: 429, retry_after_secs: Some(1), count: Some(2) });
        serde_json::from_value::<Fault>(json!({"fault": "restart", "newHistory": true})).expect("a fault");
        serde_json::from_value::<Fault>(json!({"fault": "explode"})).expect_err("not a fault");
    }

    #[test]
    fn a_counted_fault_is_used_up() {
        let faults = faults();
        let only = Requests::of("list", "endpointslices.discovery.k8s.io");
        faults.inject(Fault::Answer {
            only: only.clone(),
            status: 503,
            retry_after_secs: None,
            count: Some(2),
        });
        faults.inject(Fault::Delay { only, millis: 5, count: None });
        let meet = |verb| faults.meet("/apis/discovery.k8s.io/v1/endpointslices", Some((verb, &slices())));
        assert_eq!(meet(Verb::Watch), (Duration::ZERO, None));
        for _ in 0..2 {
            assert_eq!(meet(Verb::List).1.map(|failure| failure.code), Some(503));
        }
        assert_eq!(meet(Verb::List), (Duration::from_millis(5), None));
        faults.inject(Fault::Clear);
        assert_eq!(meet(Verb::List), (Duration::ZERO, None));
    }

    #[test]
    fn a_denial_reads_as_in_rbac() {
        let faults = faults();
        faults.inject(Fault::Deny { only: Requests::of("list", "endpointslices.discovery.k8s.io") });
        let (_, refusal) = faults.meet("/x", Some((Verb::List, &slices())));
        let message = refusal.expect("denied").message;
        assert_eq!(
            message,
            "endpointslices.discovery.k8s.io is forbidden: User \"lab\" cannot list resource \"endpointslices\" in API group \"discovery.k8s.io\" at the cluster scope"
        );
    }
}
