//! A Kubernetes API server, followed.
//!
//! ```text
//!   API server ── list, watch ──> follow (a task a kind): Found ─> Known ──┐
//!                 contact: counted                                         ├─> Assembly ─> SourceUpdate
//!                                                        trouble, findings ┘
//! ```
//! The first update with objects comes when each kind has been listed once; a kind that the API server does not give
//! (403, 404) is a finding, is named in the update as missing, and holds up no other. Later updates carry what changed:
//! a relist is compared with what is known, and is one update of the differences. While the API server is away nothing
//! changes but the age of what is known.
//!
//! * [`access`]: kubeconfig or service account.
//! * [`contact`]: requests counted, signs of life.
//! * [`served`]: which kinds there are besides those of Kubernetes itself; [`custom`]: those that are followed.
//! * [`kept`]: what is kept of an object; [`policies`]: of policies nearly nothing.
//! * [`mod@follow`]: one kind, whatever happens.
//! * [`known`], [`assembly`]: what follows from an event; pure.
//! * [`trouble`]: errors as findings.
//! * [`metrics`]: for Prometheus.

pub mod access;
pub mod assembly;
pub mod contact;
pub mod custom;
pub mod follow;
pub mod kept;
pub mod known;
pub mod metrics;
pub mod policies;
pub mod served;
pub mod trouble;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Config;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Duration, Interval, MissedTickBehavior, interval};
use tracing::error;

use self::access::{Access, AccessError};
use self::assembly::Assembly;
use self::contact::Contact;
use self::follow::{News, follow};
use self::kept::Kept;
use self::metrics::Contacts;
use self::policies::{ClusterwidePolicy, NamespacedPolicy, StandardPolicy};
use self::served::{CiliumChoice, Served, discover};
use self::trouble::Trouble;
use super::{KindStatus, SourceEvent, SourceStatus, SourceUpdate};
use crate::election::Permit;
use crate::finding::{Finding, Reason};
use crate::identity::registrar::Registrar;
use crate::object::ObjectKind;
use crate::object::cilium::{CiliumNode, RawEndpoint, RawIdentity};
use crate::object::endpoint_slice::RawEndpointSlice;
use crate::object::identity::RawMeshIdentity;

/// A Kubernetes API server as a source of objects. What follows it ends with this.
#[derive(Debug)]
pub struct KubernetesSource {
    server: String,
    config: Config,
    permit: Permit,
    contacts: Contacts,
    sender: mpsc::Sender<(ObjectKind, News)>,
    news: mpsc::Receiver<(ObjectKind, News)>,
    /// What the API server has besides, as last told.
    served: Option<Served>,
    discovered: mpsc::Receiver<Served>,
    followers: JoinSet<()>,
    assembly: Assembly,
    troubles: BTreeMap<ObjectKind, Trouble>,
    odd: BTreeMap<ObjectKind, Vec<Finding>>,
    last_change: Option<Timestamp>,
    look: Interval,
    told: Option<(Vec<Finding>, SourceStatus)>,
}

impl KubernetesSource {
    /// Reads the configuration and begins to follow. The API server may be away: then its findings say so.
    ///
    /// Fails if it is not known how to reach it, or with what certificates.
    pub async fn open(
        access: &Access,
        contacts: Contacts,
        choice: CiliumChoice,
    ) -> Result<Self, AccessError> {
        let config = access.read().await?;
        let (sender, news) = mpsc::channel(CHANNEL);
        let (tell, discovered) = mpsc::channel(1);
        let mut look = interval(STATUS_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut source = Self {
            server: config.cluster_url.to_string().trim_end_matches('/').to_owned(),
            config,
            permit: access.permit.clone(),
            contacts,
            sender,
            news,
            served: None,
            discovered,
            followers: JoinSet::new(),
            assembly: Assembly::undiscovered(),
            troubles: BTreeMap::new(),
            odd: BTreeMap::new(),
            last_change: None,
            look,
            told: None,
        };
        let client = access::client(&source.config, &Arc::default())?;
        source.followers.spawn(discover(client, choice, tell));
        source.follow::<Namespace>()?;
        source.follow::<Node>()?;
        source.follow::<Service>()?;
        source.follow::<EndpointSlice>()?;
        source.follow::<StandardPolicy>()?;
        // Pods only where Cilium does not run.
        Ok(source)
    }

    fn follow<K: Kept>(&mut self) -> Result<(), AccessError> {
        let contact = self.contacts.of(K::KIND);
        contact.is_followed.store(true, Ordering::Relaxed);
        let client = access::client(&self.config, contact)?;
        self.followers.spawn(follow::<K>(client, Arc::clone(contact), self.sender.clone()));
        Ok(())
    }

    /// Follows what the API server has besides.
    fn discover(&mut self, served: Served) -> Result<(), AccessError> {
        let before = self.served.replace(served);
        let had = before.unwrap_or_default();
        self.assembly.expect([]);
        if served.cilium && !had.cilium {
            self.assembly.expect(ObjectKind::CILIUM);
            self.follow::<RawIdentity>()?;
            self.follow::<RawEndpoint>()?;
            self.follow::<CiliumNode>()?;
        }
        if served.cilium_slices && !had.cilium_slices {
            self.assembly.expect([ObjectKind::CiliumEndpointSlice]);
            self.follow::<RawEndpointSlice>()?;
        }
        if served.cilium_policies && !had.cilium_policies {
            self.follow::<NamespacedPolicy>()?;
            self.follow::<ClusterwidePolicy>()?;
        }
        match (before, served.cilium) {
            (None, true) => self.assembly.expect_no(ObjectKind::Pod),
            (None, false) => self.follow::<Pod>()?,
            _ => {}
        }
        if served.mesh_identities && !had.mesh_identities && !served.cilium {
            self.assembly.expect([ObjectKind::MeshIdentity]);
            self.follow::<RawMeshIdentity>()?;
        }
        Ok(())
    }

    /// Starts a task that writes objects of identities to the API server.
    pub fn registrar(&self) -> Option<Registrar> {
        // It was possible when the source was opened.
        let client = access::writer(&self.config, &self.permit).ok()?;
        Some(Registrar::start(client))
    }

    /// Waits for the next update: objects that changed, all that are ready now, or news about the source itself. Not
    /// cancel-safe; to be called by the one task that owns the source, and dropped with it.
    pub async fn next(&mut self) -> SourceUpdate {
        let mut received = Vec::new();
        loop {
            // All arms are cancel-safe.
            let looked = tokio::select! {
                count = self.news.recv_many(&mut received, BATCH) => {
                    assert!(count > 0, "followers run as long as the source");
                    false
                }
                _ = self.look.tick() => true,
                Some(served) = self.discovered.recv() => {
                    if let Err(error) = self.discover(served) {
                        error!(error = %mesh_runtime::Chain(&error), "follow more kinds");
                    }
                    false
                }
                Some(ended) = self.followers.join_next() => {
                    let error = ended.expect_err("a follower ends only with the source");
                    std::panic::resume_unwind(error.into_panic());
                }
            };
            for (kind, news) in received.drain(..) {
                self.take(kind, news);
            }
            let objects = self.assembly.event();
            let changed = objects.is_some();
            if changed {
                self.last_change = Some(Timestamp::now());
            }
            let (findings, status) = (self.findings(), self.status());
            let news = self.told.as_ref().is_none_or(|(told, shown)| {
                *told != findings || (looked || !self.assembly.is_read()) && *shown != status
            });
            if !changed && !news {
                continue;
            }
            self.told = Some((findings.clone(), status.clone()));
            let objects = objects.unwrap_or_else(|| self.assembly.nothing());
            let missing = match objects {
                SourceEvent::Unread => Default::default(),
                _ => self.assembly.missing(),
            };
            let numbering = self.assembly.numbering();
            return SourceUpdate { objects, missing, numbering, findings, status };
        }
    }

    fn take(&mut self, kind: ObjectKind, news: News) {
        match news {
            // Counted by its contact; no record is made of it.
            News::Changes { .. } if ObjectKind::POLICIES.contains(&kind) => {}
            News::Changes { changes, listed } => self.assembly.take(kind, changes, listed),
            News::Odd(findings) => drop(self.odd.insert(kind, findings)),
            News::Trouble(Some(trouble)) => {
                self.assembly.deny(kind, trouble.class.is_denial());
                self.troubles.insert(kind, trouble);
            }
            News::Trouble(None) => {
                self.assembly.deny(kind, false);
                self.troubles.remove(&kind);
            }
        }
    }

    fn findings(&self) -> Vec<Finding> {
        let mut findings = trouble::findings(&self.server, &self.troubles);
        findings.extend(self.odd.values().flatten().cloned());
        if self.served.is_some_and(|served| !served.mesh_identities && !served.cilium) {
            findings.push(
                Finding::info(Reason::IdentitiesInStore, "kind MeshIdentity")
                    .found("the API server has no meshidentities in isthmus.dev/v1alpha1")
                    .expected("its definition, which is installed beside the hub")
                    .so("the numbers of identities are kept in the hub's store alone: losing it renumbers"),
            );
        }
        findings
    }

    fn status(&self) -> SourceStatus {
        let kind = |(kind, contact): (ObjectKind, &Arc<Contact>)| {
            let lists = contact.relists.load(Ordering::Relaxed);
            let is_policy = ObjectKind::POLICIES.contains(&kind);
            let status = KindStatus {
                objects: contact.objects.load(Ordering::Relaxed),
                listed: self.assembly.is_listed(kind) || is_policy && lists > 0,
                lists,
                heard: contact.silence().and_then(|silence| {
                    let heard = Timestamp::now() - SignedDuration::try_from(silence).ok()?;
                    heard.round(jiff::Unit::Second).ok()
                }),
                problem: self.troubles.get(&kind).map(|trouble| trouble.text.clone()),
            };
            (kind.as_str(), status)
        };
        let away = self.troubles.values().any(|trouble| !trouble.class.is_denial());
        let heard = self.contacts.iter().any(|(_, contact)| contact.silence().is_some());
        SourceStatus {
            source: "kubernetes".to_owned(),
            server: Some(self.server.clone()),
            connected: Some(heard && !away),
            files: None,
            last_change: self.last_change,
            kinds: self.contacts.iter().map(kind).collect(),
        }
    }
}

/// Messages between the followers and the source: when the hub is busy, watches wait.
const CHANNEL: usize = 4096;
/// Messages that are taken into one update.
const BATCH: usize = 4096;
/// How often the status is looked at when nothing else happens.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);
