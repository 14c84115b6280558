//! Follows every peer that a [`Folder`] configures.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{Notify, watch};
use topology::ClusterName;
use topology::cluster::MaxClusters;
use tracing::warn;

use crate::folder::{Folder, WatchError};
use crate::followers::{FollowerEnded, Followers};
use crate::ids::Ids;
use crate::view::View;

/// The peers that a folder configures, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    /// The folder has been read at least once. Before that, nobody knows who the peers are.
    pub known: bool,
    /// Followed hubs, by cluster.
    pub followed: BTreeMap<ClusterName, watch::Receiver<View>>,
    /// Files that cannot be used, by file name, and why.
    pub problems: BTreeMap<String, String>,
}

/// Follows every peer that a folder configures. Run it with [`Directory::run`].
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    own: ClusterName,
    max: MaxClusters,
    ids: Ids,
    changed: Arc<Notify>,
    peers: watch::Sender<Peers>,
}

/// Why a folder is no longer followed.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The system cannot watch it.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// A task that followed a hub ended, which it never should.
    #[error(transparent)]
    Follower(#[from] FollowerEnded),
}

impl Directory {
    /// Prepares to follow the peers in `path`, other than `own`; `changed` is told after every change of any
    /// peer's view.
    pub fn new(
        path: PathBuf,
        own: ClusterName,
        max: MaxClusters,
        ids: Ids,
        changed: Arc<Notify>,
    ) -> (Self, watch::Receiver<Peers>) {
        let (peers, receiver) = watch::channel(Peers::default());
        (Self { path, own, max, ids, changed, peers }, receiver)
    }

    /// Follows the peers until the future is dropped, and with it every connection.
    pub async fn run(self) -> Result<(), DirectoryError> {
        let mut folder = Folder::watch(self.path.clone(), self.own.clone())?;
        let mut followers = Followers::new(self.max, self.ids.clone(), Arc::clone(&self.changed));
        loop {
            let configured = folder.look();
            let changed = followers.follow(&configured.configs);
            let (known, problems) = (configured.known, configured.problems.clone());
            self.tell(Peers { known, followed: followers.views(), problems }, changed);
            // Both arms are cancel-safe.
            tokio::select! {
                () = folder.changed() => {}
                ended = followers.ended() => ended?,
            }
        }
    }

    /// Publishes what is followed, if that or a problem is new. New problems are logged, once each.
    fn tell(&self, peers: Peers, changed: bool) {
        let differs = {
            let before = self.peers.borrow();
            let is_new = |(file, problem): &(&String, &String)| before.problems.get(*file) != Some(*problem);
            for (file, problem) in peers.problems.iter().filter(is_new) {
                warn!(file, error = problem, "peer configuration not usable");
            }
            changed || before.known != peers.known || before.problems != peers.problems
        };
        if differs {
            self.peers.send_replace(peers);
            self.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
