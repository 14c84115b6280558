//! The custom resources of the group `isthmus.dev`, followed and answered.
//!
//! ```text
//!   API server ── list, watch ──> follow: Seen ─> decide (pure) ─┬─> FromObjects ─> peer_filters ─> store
//!        ^                                                       ├─> agent_peers ─> Secret for the agents
//!        ^                                                       ├─> following ─> peers (those that the hub follows)
//!        └──────────────── conditions, Events ─── answer <───────┘
//! ```
//! A status is written once what it says is done. An API server without these kinds, or one that does not let us see
//! them, is stated once and stops nothing else; what earlier runs put into force stays in force.
//!
//! * [`raw`]: an object as it comes, sound or not.
//! * [`mod@follow`]: one kind, whatever happens.
//! * [`mod@decide`]: what follows from all the objects together; pure.
//! * [`agent_peers`]: the agents' peer configuration, in ClusterMesh's layout.
//! * [`material`]: certificates that objects give, or point to.
//! * [`following`]: what the hub itself does with them, and whether what bounds a peer is in force.
//! * [`answer`]: conditions and Events.

pub mod agent_peers;
pub mod answer;
pub mod decide;
pub mod follow;
pub mod following;
pub mod material;
pub mod raw;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use mesh_resources::{ClusterPeer, FailoverPolicy};
use mesh_runtime::Chain;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use topology::{ClusterId, ClusterName};
use tracing::warn;

use self::agent_peers::{AgentPeers, Publication};
use self::answer::Answers;
use self::decide::{Decision, decide};
use self::follow::{Seen, Trouble, follow};
use self::following::{Following, enforced};
use self::material::{Materials, Secrets};
use crate::export::Cluster;
use crate::finding::{Finding, Reason};
use crate::peer_filters::objects::FromObjects;
use crate::source::kubernetes::access::{self, Access, AccessError};
use crate::source::kubernetes::contact::Contact;
use crate::source::kubernetes::trouble::Class;

/// Follows the custom resources of a cluster. Clones share what they say.
#[derive(Clone, Debug)]
pub struct Resources {
    access: Access,
    own: Own,
    agent_peers: Option<AgentPeers>,
    /// Those who follow peers in this process, if there are any.
    following: Option<Following>,
    said: watch::Sender<FromObjects>,
    /// What of it is in force, and the peers that the file of filters names.
    in_force: watch::Sender<InForce>,
    findings: watch::Sender<Vec<Finding>>,
}

/// Whose hub this is: no peer may be the own cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// The cluster's name.
    pub name: ClusterName,
    /// Its id.
    pub id: ClusterId,
}

#[derive(Clone, Debug, Default)]
struct InForce {
    objects: FromObjects,
    in_file: BTreeSet<ClusterName>,
}

impl Resources {
    /// Prepares to follow them. `agent_peers`: where the agents' peer configuration is written, if it is.
    pub fn new(access: Access, cluster: &Cluster, agent_peers: Option<AgentPeers>) -> Self {
        let own = Own { name: cluster.name.clone(), id: cluster.id };
        let (said, in_force) = (watch::Sender::default(), watch::Sender::default());
        let (following, findings) = (None, watch::Sender::default());
        Self { access, own, agent_peers, following, said, in_force, findings }
    }

    /// With those who follow peers in this process.
    #[must_use]
    pub fn beside(self, following: Option<Following>) -> Self {
        Self { following, ..self }
    }

    /// What the objects say about export filters.
    pub fn filters(&self) -> watch::Receiver<FromObjects> {
        self.said.subscribe()
    }

    /// All that is odd at present, for the status page.
    pub fn findings(&self) -> watch::Receiver<Vec<Finding>> {
        self.findings.subscribe()
    }

    /// Takes note of what is in force now, and of the peers that the file of filters names.
    pub fn in_force(&self, objects: FromObjects, in_file: BTreeSet<ClusterName>) {
        self.in_force.send_replace(InForce { objects, in_file });
    }

    /// Follows and answers until the future is dropped.
    pub async fn run(&self) -> Infallible {
        self.following.iter().for_each(Following::begin);
        loop {
            match self.serve().await {
                Ok(never) => match never {},
                Err(error) => {
                    warn!(error = %Chain(&error), "custom resources cannot be followed");
                    let finding = Finding::error(Reason::SourceUnreachable, "custom resources");
                    self.findings.send_replace(vec![finding.found(Chain(&error)).so(STAYS)]);
                    sleep(RETRY).await;
                }
            }
        }
    }

    async fn serve(&self) -> Result<Infallible, AccessError> {
        let config = self.access.read().await?;
        let client = || -> Result<(Client, Arc<Contact>), AccessError> {
            let contact = Arc::new(Contact::default());
            Ok((access::client(&config, &contact)?, contact))
        };
        let mut followers = JoinSet::new();
        let (seen, mut peers) = watch::channel(Seen::default());
        let (connection, contact) = client()?;
        followers.spawn(follow::<ClusterPeer>(connection, contact, seen));
        let (seen, mut policies) = watch::channel(Seen::default());
        let (connection, contact) = client()?;
        followers.spawn(follow::<FailoverPolicy>(connection, contact, seen));
        let mut in_force = self.in_force.subscribe();
        let connection = access::writer(&config, &self.access.permit)?;
        let mut answers = Answers::new(connection.clone());
        let namespace = self.agent_peers.as_ref().map(|agents| agents.secret.namespace.clone());
        let secrets =
            Secrets::new(connection.clone(), namespace.unwrap_or_else(|| config.default_namespace.clone()));
        let mut publication = self.agent_peers.clone().map(|agents| Publication::new(connection, agents));
        let mut following = self.following.clone();
        loop {
            let seen = (peers.borrow_and_update().clone(), policies.borrow_and_update().clone());
            let in_file = in_force.borrow_and_update().in_file.clone();
            let mut findings = troubles(&seen.0.trouble, &seen.1.trouble);
            let mut again = SLOW_LOOK;
            let mut decision = decide(&seen.0, &seen.1, &in_file, &self.own);
            let mut materials = Materials::new();
            if publication.is_some() || following.as_ref().is_some_and(Following::follows) {
                materials = secrets.materials(&decision).await;
            }
            if materials.values().any(Result::is_err) {
                again = RETRY;
            }
            if let Some(following) = &following {
                following.say(&seen.0, &decision, &materials);
            }
            if !self.is_in_force(&decision).await {
                // Conditions say what is done.
                continue;
            }
            if let (Some(publication), true) = (&mut publication, decision.filters.is_known)
                && let Err(finding) = publication.publish(&mut decision, &materials).await
            {
                findings.push(finding);
                again = RETRY;
            }
            if let Some(following) = &mut following {
                following.answer(&mut decision).await;
            }
            let agents = self.agent_peers.as_ref().map(|agents| agents.secret.to_string());
            for judged in decision.peers.values_mut() {
                judged.statements.extend(enforced(judged, agents.as_deref()));
            }
            if let Err(finding) = answers.answer(&seen.0, &seen.1, &decision).await {
                findings.push(finding);
                again = RETRY;
            }
            findings.extend(decision.findings());
            self.tell(findings);
            // All arms are cancel-safe. A sender lives as long as its follower, which ends with this.
            tokio::select! {
                _ = peers.changed() => {}
                _ = policies.changed() => {}
                _ = in_force.changed() => {}
                () = following_changed(&mut following) => {}
                () = sleep(again) => {}
                Some(ended) = followers.join_next() => {
                    let error = ended.expect_err("a follower ends only with us");
                    std::panic::resume_unwind(error.into_panic());
                }
            }
        }
    }

    /// Says what the decision says about filters, and waits until that counts; not for ever.
    async fn is_in_force(&self, decision: &Decision) -> bool {
        let wanted = &decision.filters;
        self.said.send_if_modified(|said| {
            let differs = said != wanted;
            if differs {
                said.clone_from(wanted);
            }
            differs
        });
        if !wanted.is_known {
            return true;
        }
        let mut in_force = self.in_force.subscribe();
        let counts = timeout(PATIENCE, in_force.wait_for(|in_force| in_force.objects == *wanted)).await;
        counts.is_ok()
    }

    fn tell(&self, mut findings: Vec<Finding>) {
        findings.sort();
        self.findings.send_if_modified(|told| {
            for finding in findings.iter().filter(|finding| !told.contains(finding)) {
                warn!(reason = finding.reason.as_str(), "{finding}");
            }
            for finding in told.iter().filter(|finding| !findings.contains(finding)) {
                tracing::info!(reason = finding.reason.as_str(), object = %finding.object, "no longer the case: {}", finding.found);
            }
            let differs = *told != findings;
            *told = findings;
            differs
        });
    }
}

/// What there is to say of kinds that are absent or denied, once if it is the same of both. An API server that is away is
/// the source's to say.
fn troubles(peers: &Option<Trouble>, policies: &Option<Trouble>) -> Vec<Finding> {
    let finding = |kinds: &str, resources: &str, trouble: &Trouble| {
        let found = format!("since {:.0}: {}", trouble.since, trouble.text);
        match trouble.class {
            Class::Absent => Some(
                Finding::info(Reason::CustomResourcesAbsent, kinds)
                    .found(found)
                    .expected("the definitions of deploy/crds, if peers are to be configured by objects")
                    .so("peers are configured by files alone"),
            ),
            Class::Denied(verb) => Some(
                Finding::error(Reason::SourceDenied, kinds)
                    .found(found)
                    .expected(format_args!(
                        "to be allowed to {verb} them: ClusterRole rule {{apiGroups: [\"isthmus.dev\"], resources: \
                         [{resources}], verbs: [list, watch]}}"
                    ))
                    .so(STAYS),
            ),
            _ => None,
        }
    };
    let both = "kinds ClusterPeer and FailoverPolicy of isthmus.dev";
    let of = |kind: &str, resource: &str, trouble: &Option<Trouble>| {
        trouble.as_ref().and_then(|trouble| finding(kind, resource, trouble))
    };
    match (peers, policies) {
        (Some(peers), Some(policies)) if peers.class == policies.class => {
            finding(both, "clusterpeers, failoverpolicies", peers).into_iter().collect()
        }
        (peers, policies) => {
            let peers = of("kind ClusterPeer", "clusterpeers", peers);
            peers.into_iter().chain(of("kind FailoverPolicy", "failoverpolicies", policies)).collect()
        }
    }
}

/// Waits for news of how peers are followed; for ever, if the hub follows none.
async fn following_changed(following: &mut Option<Following>) {
    match following {
        Some(following) => following.changed().await,
        None => std::future::pending().await,
    }
}

const STAYS: &str = "what is in force stays in force; tried again every 30 s or sooner";
/// After this time everything is looked at again: Secrets with roots are not followed.
const SLOW_LOOK: Duration = Duration::from_secs(60);
/// After this time what failed is tried again.
const RETRY: Duration = Duration::from_secs(15);
/// Time for filters to be in force.
const PATIENCE: Duration = Duration::from_secs(10);
