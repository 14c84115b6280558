//! What readers are told of the records: which kinds are complete.

use bytes::Bytes;
use kvstore::KeyRange;
use mesh_runtime::BlockReady;
use topology::record::{Kind, key};
use tracing::{info, warn};

use super::{Hub, HubError};

impl Hub {
    /// Tells readers what is complete, if they have not been told; drops `ready` when everything is, now or since an
    /// earlier run.
    pub(super) async fn announce(&mut self, ready: &mut Option<BlockReady>) -> Result<(), HubError> {
        let waiting = self.held.without_object() > 0;
        let due = self.unannounced || self.partly_announced && !waiting;
        if due && !self.behind {
            match self.write_canaries(waiting).await {
                Err(HubError::Publish(error)) if error.is_disk() => {
                    self.behind = true;
                    warn!(%error, "canaries wait for the disk");
                }
                written => {
                    written?;
                    self.unannounced = false;
                    self.partly_announced = waiting;
                }
            }
        }
        if ready.is_some() {
            let snapshot = self.publisher.store().snapshot();
            let is_told = |kind: &Kind| snapshot.get(kind.canary(&self.cluster.name).as_bytes()).is_some();
            if Kind::ALL.iter().all(is_told) {
                drop(ready.take());
            }
        }
        Ok(())
    }

    /// Writes the canaries of the kinds of records that are complete, and forgets those of another name of this cluster.
    /// `waiting`: what names identities is not complete.
    async fn write_canaries(&self, waiting: bool) -> Result<(), HubError> {
        let now = format!("{:.0}", jiff::Timestamp::now());
        let complete = self.withheld.complete();
        let complete = complete.filter(|kind| !(waiting && matches!(kind, Kind::Identities | Kind::Ip)));
        let canaries = complete.map(|kind| kind.canary(&self.cluster.name));
        let store = self.publisher.store();
        let snapshot = store.snapshot();
        let stale = snapshot.range(&KeyRange::prefix(key::SYNCED)).map(|entry| entry.key.clone());
        let own = key::canaries(&self.cluster.name);
        let of_another_name = |key: &Bytes| {
            let text = std::str::from_utf8(key).unwrap_or_default();
            !text.starts_with(&own) && text.contains(&format!("/{}", key::STATE))
        };
        let stale: Vec<Bytes> = stale.filter(of_another_name).collect();
        if !stale.is_empty() {
            self.publisher.withdraw(stale).await?;
        }
        // A canary that is there stays as it is: it says that a complete set was published, which was true.
        let missing = canaries.filter(|key| snapshot.get(key.as_bytes()).is_none());
        let missing: Vec<(Bytes, Bytes)> = missing.map(|key| (key.into(), now.clone().into())).collect();
        let revision = self.publisher.announce(missing).await?;
        if waiting {
            info!(cluster = %self.cluster.name, revision, "published what does not wait for objects of identities");
        } else if self.withheld.is_empty() {
            info!(cluster = %self.cluster.name, revision, "complete set published");
        } else {
            let kinds: Vec<&str> = self.missing.iter().map(|kind| kind.as_str()).collect();
            let missing = kinds.join(",");
            warn!(cluster = %self.cluster.name, revision, missing, "published what does not depend on these");
        }
        Ok(())
    }
}
