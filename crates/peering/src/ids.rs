//! Which cluster has which id: two clusters of one id would share their identities, so the second is refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use topology::{ClusterId, ClusterName};

/// The ids in use, shared by all followed hubs of a process. Clones share it.
#[derive(Clone, Debug)]
pub struct Ids {
    own: ClusterName,
    taken: Arc<watch::Sender<BTreeMap<ClusterId, ClusterName>>>,
}

/// Another cluster has the id already.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cluster {claimant} has id {id}, which is {holder}'s: each cluster of a mesh needs an id of its own")]
pub struct IdTaken {
    id: ClusterId,
    claimant: ClusterName,
    holder: String,
}

impl Ids {
    /// No id is known yet; `own` is the cluster that this process belongs to.
    pub fn new(own: ClusterName) -> Self {
        Self { own, taken: Arc::new(watch::Sender::new(BTreeMap::new())) }
    }

    /// True once the own cluster's id is known: before that, no peer's can be judged.
    pub fn is_own_known(&self) -> bool {
        self.taken.borrow().values().any(|name| *name == self.own)
    }

    /// Waits until the own cluster's id is known.
    pub async fn own_known(&self) {
        let mut taken = self.taken.subscribe();
        let known = taken.wait_for(|ids| ids.values().any(|name| *name == self.own)).await;
        known.expect("this side holds the sender");
    }

    /// Takes `id` for `cluster`, and gives back what it had before. The own cluster always gets its id.
    ///
    /// Fails if another cluster has the id.
    pub fn take(&self, cluster: &ClusterName, id: ClusterId) -> Result<(), IdTaken> {
        let mut outcome = Ok(());
        self.taken.send_modify(|taken| {
            let holder = taken.get(&id).filter(|holder| *holder != cluster && *cluster != self.own);
            if let Some(holder) = holder {
                let holder =
                    if *holder == self.own { format!("this cluster ({holder})") } else { holder.to_string() };
                outcome = Err(IdTaken { id, claimant: cluster.clone(), holder });
                return;
            }
            taken.retain(|_, name| name != cluster);
            taken.insert(id, cluster.clone());
        });
        outcome
    }

    /// Gives back the ids of all clusters but the own one and those that are still followed.
    pub fn keep(&self, is_followed: impl Fn(&ClusterName) -> bool) {
        self.taken.send_modify(|taken| taken.retain(|_, name| *name == self.own || is_followed(name)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_holder() {
        let name = |n: &str| n.parse::<ClusterName>().expect("a name");
        let id = |n: u32| ClusterId::try_from(n).expect("an id");
        let ids = Ids::new(name("paris"));
        assert_eq!(ids.take(&name("paris"), id(1)), Ok(()));
        assert_eq!(
            ids.take(&name("tokyo"), id(1)).map_err(|e| e.to_string()),
            Err("cluster tokyo has id 1, which is this cluster (paris)'s: each cluster of a mesh needs an id of its own"
                .to_owned())
        );
        assert_eq!(ids.take(&name("tokyo"), id(2)), Ok(()));
        assert_eq!(ids.take(&name("tokyo"), id(3)), Ok(()), "it may change its id");
        assert_eq!(ids.take(&name("osaka"), id(2)), Ok(()), "and the old one is free again");
        ids.keep(|cluster| cluster.as_str() == "tokyo");
        assert_eq!(ids.take(&name("tokyo"), id(2)), Ok(()));
        assert!(ids.is_own_known(), "the own one is always kept");
    }
}
