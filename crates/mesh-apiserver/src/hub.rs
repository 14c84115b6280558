//! The task that owns the exporter: source update in, one revision of the store out.
//!
//! ```text
//!   source ─> Exporter ─> new allocations ─> store, on disk
//!                     └─> records          ─> store (one revision) ─> canaries, once
//! ```
//! Until the source has been read completely once, nothing in the store is touched: what an earlier run published
//! stays valid, and clients resume on it. If there are kinds of objects that the source cannot read, that holds for the
//! records that depend on them.

mod announce;
mod held;
pub mod metrics;
mod registering;
pub mod report;
mod withheld;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use kvstore::publisher::{Outcome, PublishError, Target};
use kvstore::{KeyRange, Publisher, Store, Write};
use mesh_runtime::{BlockReady, Shutdown};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use topology::record::key;
use topology::{Identity, Labels};
use tracing::{debug, error, info, warn};

use self::held::{Fate, Held};
use self::metrics::Metrics;
use self::registering::Registering;
use self::report::Report;
use self::withheld::Withheld;
use crate::export::exporter::identity_range;
use crate::export::{Cluster, Delta, Exporter};
use crate::finding::{Finding, Reason, Severity};
use crate::identity::allocator::ALLOCATIONS;
use crate::identity::collector::Collector;
use crate::identity::{self, Allocator};
use crate::object::ObjectKind;
use crate::remote_slices::own::Teller;
use crate::source::{Source, SourceEvent, SourceStatus, SourceUpdate};

/// Keeps the store in step with the source.
#[derive(Debug)]
pub struct Hub {
    cluster: Cluster,
    exporter: Exporter,
    publisher: Publisher,
    /// What the source says of itself.
    source_says: Vec<Finding>,
    /// That, and what the hub says of identities.
    source_findings: Vec<Finding>,
    registering: Registering,
    held: Held,
    /// Something could not be published at all.
    behind: bool,
    missing: BTreeSet<ObjectKind>,
    withheld: Withheld,
    /// Canaries have not been written since they were last due.
    unannounced: bool,
    /// Who is told of the own services, besides the store.
    teller: Option<Teller>,
    /// Canaries of what names identities have not been written, since some waited for their objects.
    partly_announced: bool,
    report: watch::Sender<Report>,
    metrics: Metrics,
}

/// What is to be published of what the exporter wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    All,
    Changes,
}

/// Why the hub cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Records, canaries, the heartbeat or allocations of identities could not be written, or not brought to disk.
    #[error("publish records")]
    Publish(#[from] PublishError),
}

impl Hub {
    /// A hub over a store, or over etcd as its leader, with the allocations of earlier runs.
    pub fn new(cluster: Cluster, target: impl Into<Target>, metrics: Metrics) -> Self {
        let publisher = Publisher::new(target, OWNED);
        let identities = restore(&cluster, publisher.store());
        let exporter = Exporter::new(cluster.clone(), identities);
        let (report, _) = watch::channel(Report::default());
        let held = Held::new(&cluster.name);
        let (source_says, source_findings, missing, withheld) = Default::default();
        let registering = Registering::new(Collector::new(identity::Options::default().unused_after));
        Self {
            cluster,
            exporter,
            publisher,
            source_says,
            source_findings,
            registering,
            held,
            behind: false,
            missing,
            withheld,
            unannounced: true,
            teller: None,
            partly_announced: false,
            report,
            metrics,
        }
    }

    /// Does with identities as an operator says.
    #[must_use]
    pub fn with_identities(mut self, options: identity::Options) -> Self {
        self.registering = Registering::new(Collector::new(options.unused_after));
        Self { exporter: self.exporter.filtering(options.labels), ..self }
    }

    /// Reports to somebody who was there before the hub.
    #[must_use]
    pub fn reporting(self, report: watch::Sender<Report>) -> Self {
        Self { report, ..self }
    }

    /// Tells of the own services, besides publishing them.
    #[must_use]
    pub fn telling(self, teller: Option<Teller>) -> Self {
        teller.iter().for_each(Teller::begin);
        Self { teller, ..self }
    }

    /// What the status page shows of the hub.
    pub fn report(&self) -> watch::Receiver<Report> {
        self.report.subscribe()
    }

    /// Publishes what the source says until the shutdown is requested; drops `ready` when the first complete set and
    /// its canaries are in the store, those that an earlier run published included.
    ///
    /// The heartbeat is part of this task, so readers do not trust a store that nobody feeds. Fails if the store does.
    pub async fn run(
        mut self,
        source: impl Into<Source>,
        ready: impl Into<Option<BlockReady>>,
        shutdown: Shutdown,
    ) -> Result<(), HubError> {
        let publisher = self.publisher.clone();
        let mut ready = ready.into();
        let mut source = source.into();
        if let Some(registrar) = source.registrar() {
            self.registering.ask(registrar);
        }
        let mut problems = self.registering.problems();
        let mut is_read = false;
        let feed = async {
            loop {
                let update = {
                    // It may not be dropped before it has something to say.
                    let mut next = std::pin::pin!(source.next());
                    loop {
                        tokio::select! {
                            update = &mut next => break update,
                            () = self.writable(), if self.behind || self.held.waits_for_disk() => {
                                self.release().await?;
                                self.announce(&mut ready).await?;
                            }
                            Ok(()) = problems.changed(), if is_read => {
                                self.objects_told().await?;
                                self.announce(&mut ready).await?;
                            }
                            () = sleep_until(self.registering.next_look()) => {
                                let complete = self.missing.is_empty();
                                self.registering.collect(&self.exporter, complete);
                            }
                        }
                    }
                };
                let has_read = !matches!(update.objects, SourceEvent::Unread);
                is_read |= has_read;
                self.take(update).await?;
                if has_read {
                    self.announce(&mut ready).await?;
                }
            }
        };
        tokio::select! {
            // Neither of the two ends but by an error; dropping them between writes leaves nothing half done.
            result = feed => result,
            result = kvstore::publisher::beat(&publisher) => result.map(|never| match never {}).map_err(HubError::from),
            () = shutdown.requested() => Ok(()),
        }
    }

    async fn take(&mut self, update: SourceUpdate) -> Result<(), HubError> {
        let begin = Instant::now();
        let SourceUpdate { objects, missing, numbering, findings, status } = update;
        if objects == SourceEvent::Unread {
            return self.tell(findings, status);
        }
        let renumbered = self.exporter.number_by(numbering);
        let arrived = missing != self.missing;
        if arrived {
            self.withheld = Withheld::new(&self.cluster.name, &missing);
            self.missing = missing;
            self.unannounced = true;
        }
        let all = matches!(objects, SourceEvent::Reset(_));
        let touched = self.teller.as_ref().map(|teller| teller.touched(&objects, self.exporter.index()));
        let (published, delta) = match objects {
            SourceEvent::Unread => return self.tell(findings, status),
            SourceEvent::Changes(changes) if changes.is_empty() && !arrived && !renumbered => {
                return self.tell(findings, status);
            }
            SourceEvent::Reset(objects) => {
                let delta = self.exporter.reset(objects);
                (self.publish(&delta, Extent::All).await, delta)
            }
            SourceEvent::Changes(changes) => {
                let delta = self.exporter.apply(changes);
                let extent = if arrived || renumbered { Extent::All } else { Extent::Changes };
                (self.publish(&delta, extent).await, delta)
            }
        };
        if let (Some(teller), Some(touched)) = (&self.teller, touched) {
            let of_services = [ObjectKind::Service, ObjectKind::EndpointSlice];
            let complete = of_services.iter().all(|kind| !self.missing.contains(kind));
            teller.tell(touched, all, self.exporter.index(), complete);
        }
        let outcome = match published {
            Err(HubError::Publish(error)) if error.is_disk() => {
                if !std::mem::replace(&mut self.behind, true) {
                    warn!(%error, "changes are not published until the disk takes writes");
                }
                Outcome { revision: self.publisher.store().revision(), ..Outcome::default() }
            }
            published => published?,
        };
        self.metrics.published(&outcome, begin.elapsed());
        debug!(
            written = outcome.written,
            deleted = outcome.deleted,
            revision = outcome.revision,
            "published"
        );
        self.tell_findings(&delta, findings);
        self.update_report(outcome.revision, status);
        Ok(())
    }

    /// Takes in news about the source that change no record.
    fn tell(&mut self, findings: Vec<Finding>, status: SourceStatus) -> Result<(), HubError> {
        self.tell_findings(&Delta::default(), findings);
        let published = self.report.borrow().published_revision;
        self.update_report(published, status);
        Ok(())
    }

    async fn publish(&mut self, delta: &Delta, extent: Extent) -> Result<Outcome, HubError> {
        if extent == Extent::All || self.behind {
            return self.publish_all().await;
        }
        let new = delta.puts.iter().filter(|(key, _)| key.starts_with(ALLOCATIONS));
        self.allocate(new.map(|(key, value)| put(key, value)).collect()).await?;
        let released = self.hold();
        let snapshot = self.publisher.store().snapshot();
        let may_go = |write: Write| match &write {
            _ if self.withheld.holds(write.key()) => None,
            Write::Put { key, value } => match self.held.fate(key, value, snapshot.get(key)) {
                Fate::Goes => Some(write),
                Fate::Waits => None,
                Fate::Withdraws => Some(Write::Delete { key: key.clone() }),
            },
            Write::Delete { .. } => Some(write),
        };
        let released = released.iter().flat_map(|identity| self.exporter.records_of(*identity));
        let released = released.map(|(key, value)| put(&key, &value));
        Ok(self.publisher.apply(writes(delta).chain(released).filter_map(may_go).collect()).await?)
    }

    /// Holds back what names numbers that wait for their objects, and asks for these; returns numbers that wait no longer.
    fn hold(&mut self) -> Vec<Identity> {
        self.registering.open(&self.exporter);
        let holds = self.registering.holds(self.exporter.numbering());
        self.held.wait_for_objects(self.exporter.open().map(|(identity, _)| identity).filter(|_| holds))
    }

    /// Takes in that objects can be made, or not.
    async fn objects_told(&mut self) -> Result<(), HubError> {
        // What waited in vain is published now.
        match self.publish(&Delta::default(), Extent::Changes).await {
            Err(HubError::Publish(error)) if error.is_disk() => self.behind = true,
            published => drop(published?),
        }
        let status = self.report.borrow().source.clone();
        self.tell(self.source_says.clone(), status)
    }

    /// Publishes everything but what is held back.
    async fn publish_all(&mut self) -> Result<Outcome, HubError> {
        let desired = self.exporter.desired();
        let snapshot = self.publisher.store().snapshot();
        let allocations = desired.range(ALLOCATIONS.to_owned()..);
        let allocations = allocations.take_while(|(key, _)| key.starts_with(ALLOCATIONS));
        let is_stored =
            |key: &str, value: &Bytes| snapshot.get(key.as_bytes()).is_some_and(|e| e.value == value);
        let new = allocations.filter(|(key, value)| !is_stored(key, value));
        self.allocate(new.map(|(key, value)| put(key, value)).collect()).await?;
        self.hold();
        let snapshot = self.publisher.store().snapshot();
        let desired = desired.into_iter().map(|(key, value)| (Bytes::from(key), value));
        let desired = desired.filter(|(key, _)| !self.withheld.holds(key));
        let desired =
            desired.filter_map(|(key, value)| match self.held.fate(&key, &value, snapshot.get(&key)) {
                Fate::Goes => Some((key, value)),
                Fate::Waits => snapshot.get(&key).map(|entry| (key, entry.value.clone())),
                Fate::Withdraws => None,
            });
        let desired: BTreeMap<Bytes, Bytes> = desired.chain(self.withheld.kept(&snapshot)).collect();
        let outcome = self.publisher.replace(&desired).await?;
        self.behind = false;
        Ok(outcome)
    }

    /// Waits until the store's disk takes writes.
    async fn writable(&self) {
        self.publisher.store().writable().await;
    }

    /// Publishes what waited for the disk, which has everything now.
    async fn release(&mut self) -> Result<(), HubError> {
        let revision = self.publisher.store().revision();
        if let Err(error) = self.publisher.durable(revision).await {
            debug!(error = %mesh_runtime::Chain(&error), "the disk has failed again");
            return Ok(());
        }
        let identities = self.held.release();
        let outcome = match self.publish_all().await {
            Err(HubError::Publish(error)) if error.is_disk() => {
                self.behind = true;
                return Ok(());
            }
            published => published?,
        };
        info!(identities, revision = outcome.revision, "what waited for the disk is published");
        Ok(())
    }

    /// Brings new allocations to disk before anybody can read what they are for: a number that a peer has seen never
    /// comes to mean something else. If the disk takes no writes, what names them is held back.
    async fn allocate(&mut self, new: Vec<Write>) -> Result<(), HubError> {
        if new.is_empty() {
            return Ok(());
        }
        let outcome = self.publisher.apply(new.clone()).await?;
        match self.publisher.durable(outcome.revision).await {
            Err(error) if error.is_disk() => {
                self.held.add(&new);
                warn!(%error, identities = new.len(), "new identities wait for the disk");
                Ok(())
            }
            durable => Ok(durable?),
        }
    }

    fn tell_findings(&mut self, delta: &Delta, mut source: Vec<Finding>) {
        self.source_says.clone_from(&source);
        source.extend(self.registering.findings());
        source.extend(self.alarm());
        let appeared = source.iter().filter(|finding| !self.source_findings.contains(finding));
        for finding in appeared.chain(&delta.appeared) {
            match finding.severity {
                Severity::Error => error!(reason = finding.reason.as_str(), "{finding}"),
                Severity::Warning => warn!(reason = finding.reason.as_str(), "{finding}"),
                Severity::Info => info!(reason = finding.reason.as_str(), "{finding}"),
            }
        }
        let cleared = self.source_findings.iter().filter(|finding| !source.contains(finding));
        for finding in cleared.chain(&delta.cleared) {
            info!(reason = finding.reason.as_str(), object = %finding.object, "no longer the case: {}", finding.found);
        }
        self.source_findings = source;
    }

    /// What there is to say before the numbers run out.
    fn alarm(&self) -> Option<Finding> {
        let (used, all) = self.exporter.numbers_in_use();
        let range = identity_range(&self.cluster);
        (used * 100 >= all * ALARM_PERCENT).then(|| {
            let object = format_args!("identities {} to {}", range.start(), range.end()).to_string();
            Finding::warning(Reason::IdentitiesNearlyExhausted, object)
                .found(format_args!("{ALARM_PERCENT} % or more of the cluster's {all} numbers are in use"))
                .expected("fewer distinct sets of labels")
                .so("when none is left, pods of new sets of labels are published as unknown (identity 0); leave labels out \
                     that differ from pod to pod (--identity-labels)")
        })
    }

    fn update_report(&self, published_revision: u64, source: SourceStatus) {
        let mut findings: Vec<Finding> =
            self.source_findings.iter().chain(self.exporter.findings()).cloned().collect();
        findings.sort();
        let (used, all) = self.exporter.identities().usage();
        self.metrics.findings(&findings);
        let (in_use, _) = self.exporter.numbers_in_use();
        let waiting = self.held.without_object();
        self.metrics.identities(used, in_use, waiting, all);
        let objects = self.exporter.index().counts();
        let objects: BTreeMap<_, _> =
            objects.into_iter().map(|(kind, count)| (kind.as_str(), count)).collect();
        self.report.send_replace(Report {
            published_revision,
            source,
            objects,
            identities_allocated: used,
            identities_in_use: in_use,
            identities_waiting: waiting,
            numbering: self.exporter.numbering(),
            identities_available: all,
            findings,
        });
    }
}

/// Reads the allocations that an earlier run left. One that cannot be read is skipped, and withdrawn with the first set.
fn restore(cluster: &Cluster, store: &Store) -> Allocator {
    let mut allocator = Allocator::new(identity_range(cluster));
    let snapshot = store.snapshot();
    for entry in snapshot.range(&KeyRange::prefix(ALLOCATIONS)) {
        let number = entry.key.strip_prefix(ALLOCATIONS.as_bytes()).and_then(|n| std::str::from_utf8(n).ok());
        let number = number.and_then(|text| text.parse().ok()).map(Identity);
        let labels = std::str::from_utf8(&entry.value).ok().and_then(|text| text.parse::<Labels>().ok());
        let restored = number.zip(labels).is_some_and(|(number, labels)| allocator.restore(number, labels));
        if !restored {
            warn!(key = ?entry.key, value = ?entry.value, "allocation of an identity is not one of this cluster, skipped");
        }
    }
    let (used, _) = allocator.usage();
    if used > 0 {
        info!(cluster = %cluster.name, identities = used, "allocations of an earlier run restored");
    }
    allocator
}

fn put(key: &str, value: &Bytes) -> Write {
    Write::Put { key: Bytes::copy_from_slice(key.as_bytes()), value: value.clone() }
}

fn writes(delta: &Delta) -> impl Iterator<Item = Write> + '_ {
    let puts = delta.puts.iter().map(|(key, value)| put(key, value));
    puts.chain(delta.deletes.iter().map(|key| Write::Delete { key: Bytes::copy_from_slice(key.as_bytes()) }))
}

/// Share of the cluster's numbers in use that is worth an alarm.
const ALARM_PERCENT: usize = 80;

/// The prefixes under which nobody but the hub writes. Neither the leader's key nor the peer filters are below one.
const OWNED: [&str; 4] = [key::CLUSTER_CONFIG, key::STATE, "isthmus/v1/local/", ALLOCATIONS];

#[cfg(test)]
mod tests;
