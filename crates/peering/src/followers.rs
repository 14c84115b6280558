//! Follows a set of hubs that changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use topology::ClusterName;
use topology::cluster::MaxClusters;
use tracing::info;

use crate::config::HubConfig;
use crate::follow::{Relation, Subject, follow, unknown};
use crate::ids::Ids;
use crate::view::View;

/// The peers that are followed, each by a task of its own, which ends with this.
#[derive(Debug)]
pub struct Followers {
    max: MaxClusters,
    ids: Ids,
    changed: Arc<Notify>,
    tasks: JoinSet<()>,
    followed: BTreeMap<ClusterName, Followed>,
}

/// A task that followed a hub ended, which it never should.
#[derive(Debug, thiserror::Error)]
#[error("following a hub ended unexpectedly")]
pub struct FollowerEnded(#[source] Option<JoinError>);

/// Holds one peer.
#[derive(Debug)]
struct Followed {
    config: HubConfig,
    task: AbortHandle,
    view: watch::Receiver<View>,
}

impl Followers {
    /// Nobody is followed yet. `changed` is told after every change of any peer's view.
    pub fn new(max: MaxClusters, ids: Ids, changed: Arc<Notify>) -> Self {
        Self { max, ids, changed, tasks: JoinSet::new(), followed: BTreeMap::new() }
    }

    /// Follows exactly these from now on; gives whether that is new. What is known of a peer outlives a change of its
    /// configuration, as far as its terms admit it.
    pub fn follow(&mut self, configs: &BTreeMap<ClusterName, HubConfig>) -> bool {
        let mut changed = false;
        self.followed.retain(|name, gone| {
            let stays = configs.contains_key(name);
            if !stays {
                gone.task.abort();
                changed = true;
                info!(peer = %name, "peer configuration removed: the peer's records are taken out");
            }
            stays
        });
        for (name, config) in configs {
            let before = self.followed.get(name);
            if before.is_some_and(|followed| followed.config == *config) {
                continue;
            }
            let known = before.map_or_else(|| unknown(name), |followed| followed.view.borrow().clone());
            let (sender, view) = watch::channel(known);
            let subject = Subject {
                cluster: name.clone(),
                relation: Relation::Peer,
                max: self.max,
                ids: self.ids.clone(),
                changed: Arc::clone(&self.changed),
            };
            let endpoints = config.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            info!(peer = %name, endpoints, "following peer");
            let task = self.tasks.spawn(follow(subject, config.clone(), sender));
            let followed = Followed { config: config.clone(), task, view };
            if let Some(before) = self.followed.insert(name.clone(), followed) {
                before.task.abort();
            }
            changed = true;
        }
        changed
    }

    /// What is known of each.
    pub fn views(&self) -> BTreeMap<ClusterName, watch::Receiver<View>> {
        self.followed.iter().map(|(name, followed)| (name.clone(), followed.view.clone())).collect()
    }

    /// Waits until a task has ended that was told to, and gives its id back; for ever, if there is none. Cancel-safe.
    ///
    /// Fails if one ended that was not.
    pub async fn ended(&mut self) -> Result<(), FollowerEnded> {
        match self.tasks.join_next().await {
            None => std::future::pending().await,
            // Only now is it certain that the task takes no id any more.
            Some(Err(error)) if error.is_cancelled() => {
                self.ids.keep(|name| self.followed.contains_key(name));
                Ok(())
            }
            Some(ended) => Err(FollowerEnded(ended.err())),
        }
    }
}
