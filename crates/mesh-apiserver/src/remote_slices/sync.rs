//! The task that keeps the slices as they are to be: what is due, at what rate, and when to try again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use mesh_runtime::Shutdown;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};
use topology::{ClusterName, ServiceName};
use tracing::{debug, info, warn};

use super::Profile;
use super::heard::{heard, report, with_unknown};
use super::metrics::Metrics;
use super::own::Own;
use super::pace::{Backoff, Pace};
use super::plan::{Plan, Settings, Slices, Write};
use super::report::Report;
use super::wanted::Peers;
use super::write::{Class, Failure, Writer};
use crate::finding::{Finding, Reason};
use crate::peers;

/// What the task listens to.
#[derive(Debug)]
pub struct Sources {
    /// The own objects.
    pub own: watch::Receiver<Own>,
    /// The peers.
    pub peers: watch::Receiver<peers::Peers>,
    /// Told after every change of a peer.
    pub changed: Arc<Notify>,
    /// Whether this replica writes; `None` if there are no others.
    pub leads: Option<watch::Receiver<bool>>,
}

/// Keeps the slices of other clusters' backends in the own cluster's API server as they are to be.
#[derive(Debug)]
pub struct RemoteSlices {
    settings: Settings,
    sources: Sources,
    writer: Writer,
    report: watch::Sender<Report>,
    metrics: Metrics,
    /// The own services, what the peers have told, and whether whoever is not among them is no peer.
    seen: Option<(Own, Peers, bool)>,
    waiting_for: Option<&'static str>,
    due: BTreeSet<ServiceName>,
    retries: BTreeMap<ServiceName, Retry>,
    /// Writes that the hub has not told of yet.
    written: BTreeMap<ServiceName, BTreeMap<String, Written>>,
    /// Names that other objects turned out to have.
    taken: BTreeMap<ServiceName, BTreeSet<String>>,
    done: BTreeMap<ServiceName, Done>,
    /// Why nothing can be written at all.
    trouble: Option<Finding>,
    pause: Backoff,
    pace: Pace,
    passes: u64,
}

/// Holds when a service is tried again.
#[derive(Debug)]
struct Retry {
    at: Instant,
    backoff: Backoff,
}

/// Holds a slice as the API server answered, `None` if it is gone.
#[derive(Debug)]
struct Written {
    slice: Option<Arc<EndpointSlice>>,
    at: Instant,
}

/// Holds what became of a service.
#[derive(Debug, Default)]
struct Done {
    slices: usize,
    endpoints: usize,
    findings: Vec<Finding>,
}

impl RemoteSlices {
    /// A task that has not begun.
    pub fn new(settings: Settings, sources: Sources, writer: Writer, metrics: Metrics) -> Self {
        let (seen, due, retries, written, taken, done) = Default::default();
        let (trouble, pause, pace) = (None, Backoff::default(), Pace::default());
        let report = watch::Sender::new(Report::default());
        Self {
            settings,
            sources,
            writer,
            report,
            metrics,
            seen,
            waiting_for: None,
            due,
            retries,
            written,
            taken,
            done,
            trouble,
            pause,
            pace,
            passes: 0,
        }
    }

    /// What the status page shows of it.
    pub fn report(&self) -> watch::Receiver<Report> {
        self.report.subscribe()
    }

    /// Runs until the shutdown is requested. What is under way then may have been made or not; the next start sees.
    pub async fn run(mut self, shutdown: Shutdown) {
        tokio::select! {
            () = self.keep() => {}
            () = shutdown.requested() => {}
        }
    }

    async fn keep(&mut self) {
        loop {
            if self.look() {
                self.pass().await;
                self.passes += 1;
            }
            self.tell();
            let next = match (self.waiting_for, self.due.is_empty()) {
                (Some(_), _) => None,
                (None, false) => Some(Instant::now()),
                (None, true) => self.retries.values().map(|retry| retry.at).min(),
            };
            let never = Instant::now() + Duration::from_secs(3600);
            // All arms are cancel-safe. The senders live in other tasks; when they end, so does the process.
            tokio::select! {
                Ok(()) = self.sources.own.changed() => {}
                Ok(()) = self.sources.peers.changed() => {}
                () = self.sources.changed.notified() => {}
                () = changed(&mut self.sources.leads) => {}
                () = sleep_until(next.unwrap_or(never)) => {}
            }
            sleep(BATCH).await;
        }
    }

    /// Looks at what changed, and makes it due; false if nothing may be written now.
    fn look(&mut self) -> bool {
        let own = self.sources.own.borrow_and_update().clone();
        let configured = self.sources.peers.borrow_and_update().clone();
        self.waiting_for = if !leads(&self.sources.leads) {
            Some("another replica writes")
        } else if !own.complete {
            Some("the own services and endpoint slices, to be read once")
        } else if !configured.is_settled {
            Some("who the peers are, to be read once from each input")
        } else {
            None
        };
        if self.waiting_for.is_some() {
            self.seen = None;
            self.written.clear();
            return false;
        }
        let peers = heard(&configured);
        let now = Instant::now();
        self.due
            .extend(self.retries.iter().filter(|(_, retry)| retry.at <= now).map(|(name, _)| name.clone()));
        let shape = |peers: &Peers| -> Vec<(ClusterName, bool)> {
            peers.iter().map(|(name, member)| (name.clone(), member.is_some())).collect()
        };
        match &self.seen {
            Some((before, known, complete))
                if shape(known) == shape(&peers) && *complete == configured.is_complete =>
            {
                self.due.extend(differing(&before.services, &own.services));
                let members = known.values().flatten().zip(peers.values().flatten());
                for (before, after) in members.filter(|(before, after)| !Arc::ptr_eq(before, after)) {
                    let changed = differing(&before.services, &after.services);
                    self.due.extend(changed.filter(|name| own.services.contains_key(name)));
                }
            }
            _ => {
                self.due.extend(own.services.keys().cloned());
                // Those that went while nobody looked.
                self.due.extend(self.done.keys().chain(self.retries.keys()).cloned());
            }
        }
        self.seen = Some((own, peers, configured.is_complete));
        true
    }

    /// Sees to each service that is due, once.
    async fn pass(&mut self) {
        let mut left = std::mem::take(&mut self.due);
        let mut told = Instant::now();
        while let Some(name) = left.pop_first() {
            if !self.look() {
                left.insert(name);
                break;
            }
            let failure = self.reconcile(&name).await;
            if told.elapsed() > TELL {
                self.tell();
                told = Instant::now();
            }
            if failure.is_some_and(|failure| matches!(failure.class, Class::Unavailable | Class::Denied)) {
                let pause = self.pause.next(LONGEST_PAUSE);
                self.tell();
                sleep(pause).await;
            }
        }
        self.due.append(&mut left);
    }

    /// Writes what differs for a service; gives the failure that matters most, if any.
    async fn reconcile(&mut self, name: &ServiceName) -> Option<Failure> {
        let (own, peers, complete) = self.seen.clone()?;
        let service = own.services.get(name).cloned().unwrap_or_default();
        let there = self.there(name, &service.slices);
        let peers = if complete { peers } else { with_unknown(peers, &there) };
        let none = BTreeSet::new();
        let taken = self.taken.get(name).unwrap_or(&none);
        let plan = Plan::new(self.settings, name, service.global.as_ref(), &there, &peers, taken);
        let mut done = Done { slices: plan.slices, endpoints: plan.endpoints, findings: plan.findings };
        let mut failed: Option<Failure> = None;
        let mut spoiled: BTreeSet<String> = BTreeSet::new();
        for write in &plan.writes {
            let cluster = write.cluster().unwrap_or_default().to_owned();
            if matches!(write, Write::Delete { .. }) && spoiled.contains(&cluster) {
                // What would take its place is not there.
                continue;
            }
            self.pace.wait().await;
            let outcome = self.writer.write(name.namespace(), write).await;
            self.metrics.wrote(write.verb(), outcome.is_ok());
            match outcome {
                Ok(slice) => {
                    debug!(service = %name, slice = write.name(), verb = write.verb(), "endpoint slice written");
                    self.remember(name, write.name(), slice);
                }
                Err(failure) => {
                    debug!(service = %name, slice = write.name(), error = failure.text, "endpoint slice not written");
                    self.failed(name, write, &failure, &mut done.findings);
                    spoiled.insert(cluster);
                    let over = failure.class != Class::Refused;
                    failed = Some(failure);
                    if over {
                        break;
                    }
                }
            }
        }
        match &failed {
            None => {
                self.retries.remove(name);
                if !plan.writes.is_empty() || self.retries.is_empty() {
                    self.trouble = None;
                    self.pause = Backoff::default();
                }
            }
            Some(_) => {
                let mut backoff = self.retries.remove(name).map(|retry| retry.backoff).unwrap_or_default();
                let at = Instant::now() + backoff.next(LONGEST_RETRY);
                self.retries.insert(name.clone(), Retry { at, backoff });
            }
        }
        if service.global.is_none() && service.slices.is_empty() {
            self.taken.remove(name);
        }
        match done.slices == 0 && done.findings.is_empty() {
            true => drop(self.done.remove(name)),
            false => drop(self.done.insert(name.clone(), done)),
        }
        failed
    }

    /// The slices of a service: as the hub tells, and as the API server answered since.
    fn there(&mut self, name: &ServiceName, told: &Slices) -> Slices {
        let mut there = told.clone();
        let Some(written) = self.written.get_mut(name) else { return there };
        written.retain(|slice, made| made.at.elapsed() < UNHEARD && !made.is_told(told.get(slice)));
        for (slice, made) in &*written {
            match &made.slice {
                Some(made) => drop(there.insert(slice.clone(), Arc::clone(made))),
                None => drop(there.remove(slice)),
            }
        }
        if written.is_empty() {
            self.written.remove(name);
        }
        there
    }

    fn remember(&mut self, name: &ServiceName, slice_name: &str, slice: Option<EndpointSlice>) {
        let slice = slice.map(|mut slice| {
            slice.metadata.managed_fields = None;
            Arc::new(slice)
        });
        let written = self.written.entry(name.clone()).or_default();
        written.insert(slice_name.to_owned(), Written { slice, at: Instant::now() });
    }

    fn failed(&mut self, name: &ServiceName, write: &Write, failure: &Failure, findings: &mut Vec<Finding>) {
        let what = format!("{} EndpointSlice {}: {}", write.verb(), write.name(), failure.text);
        let service = || Finding::error(Reason::SlicesNotWritten, format_args!("Service {name}"));
        match failure.class {
            // Another write to it came first. It is known better in a moment.
            Class::Conflict => drop(self.written.remove(name)),
            Class::NameTaken => {
                self.taken.entry(name.clone()).or_default().insert(write.name().to_owned());
            }
            Class::Refused => findings.push(
                service()
                    .found(what)
                    .expected("a slice that the API server takes")
                    .so("tried again; others are written"),
            ),
            Class::Denied => {
                self.trouble = Some(
                    Finding::error(Reason::SlicesNotWritten, "API server")
                        .found(failure.text.as_str())
                        .expected(
                            "a rule for the hub's account: apiGroups: [discovery.k8s.io], resources: [endpointslices], \
                             verbs: [create, update, delete]",
                        )
                        .so("endpoint slices of other clusters' backends stay as they are; tried again"),
                );
            }
            Class::Unavailable => {
                self.trouble = Some(
                    Finding::error(Reason::SlicesNotWritten, "API server")
                        .found(failure.text.as_str())
                        .expected("an API server that takes writes")
                        .so("endpoint slices of other clusters' backends stay as they are; tried again"),
                );
            }
        }
    }

    /// Puts the state on the status page; new findings into the log.
    fn tell(&self) {
        let configured = self.sources.peers.borrow().clone();
        let mut findings: Vec<Finding> = self.trouble.iter().cloned().collect();
        findings.extend(self.done.values().flat_map(|done| &done.findings).cloned());
        let before = self.report.borrow().findings.clone();
        for finding in findings.iter().filter(|finding| !before.contains(finding)) {
            warn!(reason = finding.reason.as_str(), "{finding}");
        }
        for finding in before.iter().filter(|finding| !findings.contains(finding)) {
            info!(reason = finding.reason.as_str(), object = %finding.object, "no longer the case: {}", finding.found);
        }
        // Logged by those who follow the peers.
        findings.extend(configured.findings.iter().cloned());
        let waiting: BTreeSet<&ServiceName> = self.retries.keys().chain(&self.due).collect();
        let report = Report {
            profile: match self.settings.profile {
                Profile::Agents => "agents",
                Profile::Agentless => "agentless",
            },
            waiting_for: self.waiting_for.map(str::to_owned),
            peers: configured.followed.iter().map(|(name, peer)| (name.to_string(), report(peer))).collect(),
            services: self.done.values().filter(|done| done.slices > 0).count(),
            slices: self.done.values().map(|done| done.slices).sum(),
            endpoints: self.done.values().map(|done| done.endpoints).sum(),
            passes: self.passes,
            due: waiting.len(),
            findings,
        };
        self.metrics.shows(&report);
        self.report.send_replace(report);
    }
}

impl Written {
    /// Whether the hub tells of this write, or of a later one.
    fn is_told(&self, told: Option<&Arc<EndpointSlice>>) -> bool {
        let revision = |slice: &EndpointSlice| slice.metadata.resource_version.clone().unwrap_or_default();
        match (&self.slice, told) {
            (None, told) => told.is_none(),
            (Some(_), None) => false,
            (Some(made), Some(told)) => {
                let (made, told) = (revision(made), revision(told));
                // Revisions of one kind can be compared (Kubernetes KEP-5504).
                match (made.parse::<u64>(), told.parse::<u64>()) {
                    (Ok(made), Ok(told)) => told >= made,
                    _ => told == made,
                }
            }
        }
    }
}

/// The services in which two sets differ. O(differences), where the sets share the rest.
fn differing<'a, V: PartialEq + Clone>(
    before: &'a OrdMap<ServiceName, V>,
    after: &'a OrdMap<ServiceName, V>,
) -> impl Iterator<Item = ServiceName> + 'a {
    before.diff(after).map(|item| match item {
        DiffItem::Add(name, _) | DiffItem::Remove(name, _) => name.clone(),
        DiffItem::Update { new: (name, _), .. } => name.clone(),
    })
}

fn leads(leads: &Option<watch::Receiver<bool>>) -> bool {
    leads.as_ref().is_none_or(|leads| *leads.borrow())
}

/// Waits for the leader to change; for ever, if there is but one replica.
async fn changed(leads: &mut Option<watch::Receiver<bool>>) {
    if let Some(leads) = leads
        && leads.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// Changes that come within this time are seen to together, as in stock (`clustermesh-endpoint-updates-batch-period`).
const BATCH: Duration = Duration::from_millis(500);
/// Longest waits after a failure: of one service, and of all when the API server takes no writes.
const LONGEST_RETRY: Duration = Duration::from_secs(300);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long an answer of the API server counts if the hub tells nothing of it.
const UNHEARD: Duration = Duration::from_secs(30);
/// How often the status is brought up to date in a long pass.
const TELL: Duration = Duration::from_secs(1);
