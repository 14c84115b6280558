//! The task that follows the peers that the inputs name together.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;

use kube::Client;
use mesh_runtime::Chain;
use peering::folder::{Folder, WatchError};
use peering::followers::{FollowerEnded, Followers};
use peering::ids::Ids;
use peering::view::View;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use topology::ClusterName;
use tracing::{info, warn};

use super::merged::{Input, Merged, Said};
use super::metrics::Metrics;
use super::objects::FromObjects;
use super::secret::PeersSecret;
use crate::export::Cluster;
use crate::finding::Finding;

/// The peers at one moment.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    /// It is known whom to follow, as far as it can be known.
    pub is_settled: bool,
    /// Whoever is not named here is no peer.
    pub is_complete: bool,
    /// Whom the hub follows.
    pub followed: BTreeMap<ClusterName, FollowedPeer>,
    /// Peers that nobody says how to reach.
    pub unusable: Vec<ClusterName>,
    /// What is odd.
    pub findings: Vec<Finding>,
}

/// A peer that is followed.
#[derive(Clone, Debug)]
pub struct FollowedPeer {
    /// What names it, in words.
    pub from: String,
    /// What is known of it.
    pub view: watch::Receiver<View>,
}

/// How each named peer is followed, for those who answer objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standings {
    /// The saying of the objects that this is about, or a later one.
    pub number: u64,
    /// By cluster.
    pub peers: BTreeMap<ClusterName, Standing>,
}

/// How a peer is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Which input counts.
    pub input: Input,
    /// What names it there, in words.
    pub from: String,
    /// How the connection is, as one word, and why it is not fresh; `None` if it is not followed.
    pub link: Option<(&'static str, Option<String>)>,
}

/// Follows the peers. Run it with [`PeerTask::run`].
#[derive(Debug)]
pub struct PeerTask {
    own: Cluster,
    folder: Option<PathBuf>,
    secret: Option<PeersSecret>,
    objects: watch::Receiver<FromObjects>,
    metrics: Metrics,
    peers: watch::Sender<Peers>,
    standings: watch::Sender<Standings>,
    /// Told after every change of any peer's view.
    changed: Arc<Notify>,
    from: BTreeMap<ClusterName, (Input, String)>,
}

/// Why peers are no longer followed.
#[derive(Debug, thiserror::Error)]
pub enum PeersError {
    /// The folder cannot be watched.
    #[error(transparent)]
    Folder(#[from] WatchError),
    /// A task that followed a hub ended, which it never should.
    #[error(transparent)]
    Follower(#[from] FollowerEnded),
}

impl PeerTask {
    /// Nobody is followed yet. `own` is the cluster whose hub this is.
    pub fn new(
        own: Cluster,
        folder: Option<PathBuf>,
        secret: Option<PeersSecret>,
        objects: watch::Receiver<FromObjects>,
        metrics: Metrics,
    ) -> Self {
        let (peers, standings) = (watch::Sender::default(), watch::Sender::default());
        let (changed, from) = (Arc::default(), BTreeMap::new());
        Self { own, folder, secret, objects, metrics, peers, standings, changed, from }
    }

    /// Who the peers are.
    pub fn peers(&self) -> watch::Receiver<Peers> {
        self.peers.subscribe()
    }

    /// How each is followed.
    pub fn standings(&self) -> watch::Receiver<Standings> {
        self.standings.subscribe()
    }

    /// Told after every change of what a peer says, and of who the peers are. For one listener.
    pub fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    /// Follows until the future is dropped, and with it every connection. `client` is for the Secret.
    pub async fn run(mut self, client: Client) -> Result<Infallible, PeersError> {
        let ids = Ids::new(self.own.name.clone());
        // The own cluster always gets its id.
        let _always = ids.take(&self.own.name, self.own.id);
        let views_changed = Arc::new(Notify::new());
        let mut followers = Followers::new(self.own.max, ids, Arc::clone(&views_changed));
        let folder = self.folder.clone().map(|path| Folder::watch(path, self.own.name.clone()));
        let mut folder = folder.transpose()?;
        let mut secret = self.secret.as_ref().map(PeersSecret::said);
        let mut reading = JoinSet::new();
        if let Some(secret) = self.secret.clone() {
            reading.spawn(async move { secret.follow(client).await });
        }
        let mut before = None;
        loop {
            let objects = self.objects.borrow_and_update().clone();
            let in_folder = folder.as_mut().map(|folder| of_folder(folder, self.folder.as_ref()));
            let in_secret = secret.as_mut().map(|secret| secret.borrow_and_update().clone());
            let inputs = [in_folder.as_ref(), in_secret.as_ref(), Some(&objects.said)];
            let merged = Merged::of(&inputs.into_iter().flatten().collect::<Vec<_>>());
            let mut is_new = before.as_ref() != Some(&merged);
            if merged.is_settled {
                is_new |= followers.follow(&merged.configs);
                self.from.clone_from(&merged.from);
            }
            if is_new {
                self.tell(&followers, &merged);
            }
            self.stand(&followers, &merged, objects.number);
            before = Some(merged.clone());
            loop {
                // All arms are cancel-safe. Senders live as long as this, or as the process.
                tokio::select! {
                    () = of(folder.as_ref(), Folder::changed) => break,
                    () = of(secret.as_mut(), changed) => break,
                    Ok(()) = self.objects.changed() => break,
                    ended = followers.ended() => ended?,
                    Some(ended) = reading.join_next() => {
                        let error = ended.expect_err("it ends only with us");
                        std::panic::resume_unwind(error.into_panic());
                    }
                    () = views_changed.notified() => {
                        self.stand(&followers, &merged, objects.number);
                        self.changed.notify_one();
                    }
                }
            }
        }
    }

    /// Publishes who the peers are. New findings are logged, once each.
    fn tell(&self, followers: &Followers, merged: &Merged) {
        let followed = followers.views().into_iter().map(|(name, view)| {
            let from = self.from.get(&name).map(|(_, from)| from.clone()).unwrap_or_default();
            (name, FollowedPeer { from, view })
        });
        let now = Peers {
            is_settled: merged.is_settled,
            is_complete: merged.is_complete,
            followed: followed.collect(),
            unusable: merged.unusable.iter().cloned().collect(),
            findings: merged.findings.clone(),
        };
        let before = self.peers.borrow().findings.clone();
        for finding in now.findings.iter().filter(|finding| !before.contains(finding)) {
            warn!(reason = finding.reason.as_str(), "{finding}");
        }
        for finding in before.iter().filter(|finding| !now.findings.contains(finding)) {
            info!(reason = finding.reason.as_str(), object = %finding.object, "no longer the case: {}", finding.found);
        }
        self.peers.send_replace(now);
        self.changed.notify_one();
    }

    /// Publishes how each is followed, if that is new, and counts what was refused.
    fn stand(&mut self, followers: &Followers, merged: &Merged, number: u64) {
        let views = followers.views();
        self.metrics.keep(|peer| views.keys().any(|name| name.as_str() == peer));
        for (name, view) in &views {
            let rejections = Arc::clone(&view.borrow().rejections);
            self.metrics.counts(name, &rejections);
        }
        let link = |name: &ClusterName| {
            let view = views.get(name)?.borrow();
            Some((view.link.word(), view.link.reason().map(str::to_owned)))
        };
        let stand = |(name, (input, from)): (&ClusterName, &(Input, String))| {
            (name.clone(), Standing { input: *input, from: from.clone(), link: link(name) })
        };
        let now = Standings { number, peers: merged.from.iter().map(stand).collect() };
        self.standings.send_if_modified(|standings| {
            let differs = *standings != now;
            *standings = now;
            differs
        });
    }
}

fn of_folder(folder: &mut Folder, path: Option<&PathBuf>) -> Said {
    let name = path.map(|path| path.display().to_string()).unwrap_or_default();
    let configured = folder.look();
    let mut problems = configured.problems.clone();
    // What is said of the folder itself is no file's.
    let trouble = problems.remove(&name);
    let (is_read, configs) = (configured.known, configured.configs.clone());
    Said { is_read, trouble, configs, problems, ..Said::unread(Input::Folder, name) }
}

/// Waits for something that need not be there; then for ever.
async fn of<T, F: Future<Output = ()>>(there: Option<T>, wait: impl FnOnce(T) -> F) {
    match there {
        Some(there) => wait(there).await,
        None => std::future::pending().await,
    }
}

async fn changed(said: &mut watch::Receiver<Said>) {
    if let Err(error) = said.changed().await {
        warn!(error = %Chain(&error), "the Secret of peers is no longer followed");
        std::future::pending::<()>().await;
    }
}
