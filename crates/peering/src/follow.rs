//! Following one hub, for as long as it is configured.
//!
//! An attempt goes: credentials, connection, heartbeat (its first answer means "connected"), configuration,
//! canaries, and for each feed a complete list and then its changes. Whatever ends it, what is known stays, and
//! the next attempt resumes from the revision known, if the hub's store is still the same one
//! (Cilium `pkg/clustermesh/remote_cluster.go`, `pkg/kvstore/store/watchstoremgr.go`).

mod backoff;
mod ended;
mod update;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{BoxStream, SelectAll};
use kvstore::client::{Change, Client, Resume, Update};
use kvstore::range::KeyRange;
use mesh_runtime::Chain;
use pki::client::Connector;
use pki::{Credentials, Expected, Files, LiveCredentials, PeerIdentity};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use topology::cluster::MaxClusters;
use topology::record::Origin;
use topology::record::config::ClusterConfig;
use topology::record::key::{self, Kind};
use topology::snapshot::Member;
use topology::{Admission, ClusterName};
use tracing::{info, warn};

use crate::config::HubConfig;
use crate::dial::dial;
use crate::ids::Ids;
use crate::ledger::{Entry, Feed, Ledger};
use crate::view::{Link, Rejections, View};

use backoff::{Backoff, LONGEST_WAIT};
use ended::Ended;
use update::{is_beat, keys, revision_of};

/// Which hub is followed, and what for.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The hub's cluster.
    pub cluster: ClusterName,
    /// The own hub, or a peer's.
    pub relation: Relation,
    /// How identities are numbered in this mesh.
    pub max: MaxClusters,
    /// Ids of all clusters that this process follows.
    pub ids: Ids,
    /// Told after every change of the view.
    pub changed: Arc<Notify>,
}

/// What a hub is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The own hub: its passport must be ours, and it tells the own services too.
    Own,
    /// Another cluster's hub.
    Peer,
}

/// A view of a cluster of which nothing is known yet.
pub fn unknown(cluster: &ClusterName) -> View {
    View {
        member: Arc::new(Member::unknown(cluster.clone())),
        local_services: imbl::OrdMap::new(),
        local_services_synced: false,
        link: Link::Joining("not connected yet".to_owned()),
        rejections: Arc::new(Rejections::default()),
    }
}

/// Follows a hub until the future is dropped; the view is kept up to date all the while.
pub async fn follow(subject: Subject, config: HubConfig, view: watch::Sender<View>) {
    let heard_before = last_heard(&view.borrow().link);
    let mut follower = Follower {
        resume: BTreeMap::new(),
        ledger: None,
        last_heard: heard_before,
        connected: None,
        subject,
        config,
        view,
    };
    follower.narrow();
    let mut backoff = Backoff::default();
    loop {
        let ended = follower.attempt().await;
        follower.report(&ended);
        // A hub that accepts us and fails at once is not worth another try at once.
        if follower.connected.take().is_some_and(|since| since.elapsed() >= LONGEST_WAIT) {
            backoff = Backoff::default();
        }
        sleep(backoff.next()).await;
    }
}

struct Follower {
    subject: Subject,
    config: HubConfig,
    view: watch::Sender<View>,
    ledger: Option<Ledger>,
    resume: BTreeMap<Feed, Resume>,
    last_heard: Option<Instant>,
    /// Since when the connection of this attempt is of use.
    connected: Option<Instant>,
}

/// One of the streams of an attempt.
#[derive(Clone, Copy, Debug)]
enum Source {
    Heartbeat,
    Canaries,
    Feed(Feed),
}

type Updates = SelectAll<BoxStream<'static, (Source, Result<Update, kvstore::client::Error>)>>;

impl Follower {
    async fn attempt(&mut self) -> Ended {
        match self.connect().await {
            Ok((client, identity)) => self.run(client, &identity).await,
            Err(ended) => ended,
        }
    }

    /// Files are read anew for each attempt: a leaf that was renewed counts from the next connection on, and the
    /// one that is made stays.
    async fn connect(&self) -> Result<(Client, Arc<PeerIdentity>), Ended> {
        let files = Files {
            certificate: self.config.cert_file.clone(),
            key: self.config.key_file.clone(),
            authorities: self.config.trusted_ca_file.clone(),
            unattested: None,
        };
        let credentials = Credentials::read_with(&files, |path| self.config.held.content(path));
        let credentials = LiveCredentials::fixed(credentials.map_err(Ended::Credentials)?);
        let expected = match self.subject.relation {
            Relation::Own => Expected::OwnHub,
            // Nothing proves its cluster; its addresses are bounded by what the operator says.
            Relation::Peer if self.config.terms.unattested_cidrs.is_some() => Expected::Unattested,
            Relation::Peer => Expected::Peer(self.subject.cluster.clone()),
        };
        let (channel, identity) = dial(&self.config, &Connector::new(credentials, expected)).await?;
        Ok((Client::new(channel), identity))
    }

    async fn run(&mut self, client: Client, identity: &PeerIdentity) -> Ended {
        match self.try_run(client, identity).await {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    async fn try_run(
        &mut self,
        client: Client,
        identity: &PeerIdentity,
    ) -> Result<std::convert::Infallible, Ended> {
        let mut updates = Updates::new();
        let mut heartbeat = client.list_watch(KeyRange::prefix(key::HEARTBEAT), None);
        heartbeat.next().await?;
        updates.push(heartbeat.into_stream().map(|update| (Source::Heartbeat, update)).boxed());
        self.heard();

        let config = self.read_config(&client).await?;
        let (id, config) = ClusterConfig::decode(&config, self.subject.max).map_err(Ended::Config)?;
        let passport = identity.accepted().and_then(|accepted| accepted.passport.as_ref());
        if let Some(attested) = passport.map(|passport| passport.uri.id).filter(|attested| *attested != id) {
            return Err(Ended::IdMismatch { configured: id, attested });
        }
        if let Some(expected) = self.config.terms.cluster_id.filter(|expected| *expected != id) {
            return Err(Ended::OtherId { configured: id, expected });
        }
        let admission = match self.subject.relation {
            Relation::Own => Admission::default(),
            Relation::Peer => {
                let attested = passport.map(|passport| passport.blocks.prefixes().collect());
                self.config.terms.admission(attested)
            }
        };
        if self.subject.relation == Relation::Peer {
            self.await_own_id().await;
        }
        self.subject.ids.take(&self.subject.cluster, id)?;

        let cached = config.capabilities.cached;
        let origin = Origin { cluster: self.subject.cluster.clone(), id, max: self.subject.max };
        if self.ledger.as_ref().is_none_or(|ledger| !ledger.is_of(&origin, cached, &admission)) {
            self.ledger = Some(Ledger::new(origin.clone(), cached).with_admission(admission));
            self.resume.clear();
        }
        let feeds = self.feeds(&config);
        let mut current = BTreeSet::new();
        let mut waiting: BTreeSet<Feed> = feeds.iter().copied().collect();
        let follow = |feed: Feed, resume: Option<Resume>| {
            let range = KeyRange::prefix(feed.prefix(&origin, cached));
            let list_watch = client.list_watch(range, resume);
            list_watch.into_stream().map(move |update| (Source::Feed(feed), update)).boxed()
        };
        if config.capabilities.synced_canaries {
            let canaries = client.list_watch(KeyRange::prefix(key::canaries(&origin.cluster)), None);
            updates.push(canaries.into_stream().map(|update| (Source::Canaries, update)).boxed());
        } else {
            for feed in std::mem::take(&mut waiting) {
                updates.push(follow(feed, self.resume.get(&feed).copied()));
            }
        }
        self.connected = Some(Instant::now());
        info!(peer = %origin.cluster, id = %origin.id, identity = %identity, "connected to hub");
        self.publish(Link::Syncing);

        loop {
            let silence = self.last_heard.map_or(SILENCE, |heard| SILENCE.saturating_sub(heard.elapsed()));
            let Ok(next) = timeout(silence, updates.next()).await else { return Err(Ended::Silent) };
            let Some((source, update)) = next else { return Err(Ended::Silent) };
            let update = update?;
            match source {
                Source::Heartbeat if is_beat(&update) => self.heard(),
                Source::Heartbeat => {}
                Source::Canaries => {
                    let seen = keys(&update);
                    let ready =
                        |feed: &&Feed| seen.contains(canary(**feed, &origin.cluster, cached).as_bytes());
                    let ready: Vec<Feed> = waiting.iter().filter(ready).copied().collect();
                    for feed in ready {
                        waiting.remove(&feed);
                        updates.push(follow(feed, self.resume.get(&feed).copied()));
                    }
                }
                Source::Feed(feed) => {
                    self.take(feed, update, client.cluster_id());
                    // A list of an earlier connection is known, but not known to be up to date.
                    current.insert(feed);
                    self.publish(if current.len() == feeds.len() { Link::Fresh } else { Link::Syncing });
                }
            }
        }
    }

    /// Takes out of what is known already what the terms no longer admit, whether the hub answers or not.
    fn narrow(&self) {
        let admission = self.config.terms.admission(None);
        let narrowed = admission.narrow(&self.view.borrow().member);
        let Some((member, dropped)) = narrowed else { return };
        info!(peer = %self.subject.cluster, records = dropped.len(), "no longer admitted: taken out");
        self.view.send_modify(|view| {
            view.member = Arc::new(member);
            let mut rejections = Rejections::default();
            for (kind, key, denied) in &dropped {
                rejections.add(&kind.to_string(), key, &denied.to_string());
            }
            view.rejections = Arc::new(rejections);
        });
        self.subject.changed.notify_one();
    }

    /// The hub's configuration may appear after the hub itself: it is asked for a while.
    async fn read_config(&self, client: &Client) -> Result<Vec<u8>, Ended> {
        let key = key::cluster_config(&self.subject.cluster);
        for wait in [50, 100, 200, 400, 800, 1600] {
            if let Some(entry) = client.get(key.clone()).await? {
                return Ok(entry.value.to_vec());
            }
            sleep(Duration::from_millis(wait)).await;
        }
        Err(Ended::NoConfig { key })
    }

    /// Until the own cluster's id is known, no peer's can be judged.
    async fn await_own_id(&self) {
        if self.subject.ids.is_own_known() {
            return;
        }
        if self.view.borrow().member.synced.is_empty() {
            self.publish(Link::Joining(
                "connected; the own hub has not told this cluster's id yet".to_owned(),
            ));
        }
        self.subject.ids.own_known().await;
    }

    /// What is read of this hub. Endpoint slices are not: balancing uses services, as stock 1.20 does.
    fn feeds(&mut self, config: &ClusterConfig) -> Vec<Feed> {
        let mut feeds =
            vec![Feed::Records(Kind::Nodes), Feed::Records(Kind::Identities), Feed::Records(Kind::Ip)];
        match self.subject.relation {
            Relation::Own => feeds.push(Feed::LocalServices),
            Relation::Peer if config.capabilities.endpoint_slices_export_mode == "endpointslices-only" => {
                warn!(peer = %self.subject.cluster, "peer exports endpoint slices only: its services have no backends here");
                if let Some(ledger) = &mut self.ledger {
                    ledger.without_services(
                        "the peer exports endpoint slices only, expected services too: they have no backends here",
                    );
                }
            }
            Relation::Peer => feeds.push(Feed::Records(Kind::Services)),
        }
        feeds
    }

    fn take(&mut self, feed: Feed, update: Update, store: Option<u64>) {
        let Some(ledger) = &mut self.ledger else { return };
        let revision = match &update {
            Update::Reset { entries, revision } => {
                ledger.reset(feed, entries.iter().map(|e| Entry { key: &e.key, value: Some(&e.value) }));
                *revision
            }
            Update::Changes { changes, .. } => {
                for change in changes {
                    ledger.apply(
                        feed,
                        match change {
                            Change::Put(entry) => Entry { key: &entry.key, value: Some(&entry.value) },
                            Change::Delete { key, .. } => Entry { key, value: None },
                        },
                    );
                }
                // Not the response's revision: an etcd that sends a long history in parts gives its newest one with
                // each part, and to resume from there would lose the rest (etcd `mvcc/watchable_store.go`).
                let Some(revision) = changes.iter().map(revision_of).max() else { return };
                revision
            }
            Update::Resumed { revision } => *revision,
        };
        if let Some(cluster_id) = store {
            self.resume.insert(feed, Resume { cluster_id, revision });
        }
    }

    fn heard(&mut self) {
        self.last_heard = Some(Instant::now());
    }

    fn report(&mut self, ended: &Ended) {
        let reason = Chain(ended).to_string();
        let known = !self.view.borrow().member.synced.is_empty();
        let link = match (known, self.last_heard) {
            (true, Some(since)) => Link::Stale { since, reason: reason.clone() },
            _ if ended.is_refusal() => Link::Refused(reason.clone()),
            _ => Link::Joining(reason.clone()),
        };
        let (before, said) = {
            let view = self.view.borrow();
            (view.link.word(), view.link.reason() == Some(reason.as_str()))
        };
        if !said {
            let peer = &self.subject.cluster;
            warn!(%peer, was = before, now = link.word(), error = reason, "hub not followed; what is known of it stays");
        }
        self.publish(link);
    }

    fn publish(&self, link: Link) {
        self.view.send_modify(|view| {
            if view.link.word() != link.word() && matches!(link, Link::Fresh) {
                info!(peer = %self.subject.cluster, was = view.link.word(), "everything the hub says is known");
            }
            view.link = link;
            // After a change of configuration the lists begin anew: what was known stays until they are complete.
            let replaces = |ledger: &&Ledger| {
                view.member.id != ledger.member().id
                    || view.member.synced.iter().all(|kind| ledger.member().synced.contains(kind))
            };
            if let Some(ledger) = self.ledger.as_ref().filter(replaces) {
                view.member = Arc::new(ledger.member().clone());
                view.local_services = ledger.local_services().clone();
                view.local_services_synced = ledger.is_synced(&[Feed::LocalServices]);
                if *view.rejections != *ledger.rejections() {
                    view.rejections = Arc::new(ledger.rejections().clone());
                }
            }
        });
        self.subject.changed.notify_one();
    }
}

/// The key whose presence says that a feed is complete. Local services have none of their own: our hub writes
/// everything before the first canary, and the services' canary stands for both.
fn canary(feed: Feed, cluster: &ClusterName, cached: bool) -> String {
    let kind = match feed {
        Feed::Records(kind) => kind,
        Feed::LocalServices => Kind::Services,
    };
    if cached { kind.cache_canary(cluster) } else { kind.canary(cluster) }
}

/// When the hub was last heard, as far as the state of an earlier connection tells.
fn last_heard(link: &Link) -> Option<Instant> {
    match link {
        Link::Stale { since, .. } => Some(*since),
        Link::Syncing | Link::Fresh => Some(Instant::now()),
        Link::Joining(_) | Link::Refused(_) => None,
    }
}

/// Stock clients give a hub 120 s without a heartbeat (Cilium `pkg/kvstore/etcd.go`).
const SILENCE: Duration = Duration::from_secs(120);
