//! The sign of life that readers of a ClusterMesh store expect.

use super::{PublishError, Publisher};
use std::{convert::Infallible, time::Duration};
use tracing::debug;

/// The key that stock clients list, watch and expect to be put at least every 120 s
/// (Cilium `pkg/kvstore/etcd.go`, heartbeat).
pub const HEARTBEAT_KEY: &str = "cilium/.heartbeat";

/// Time between two heartbeats, twice as often as stock servers.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(30);

/// Puts the current time (RFC 3339) to [`HEARTBEAT_KEY`], at once and at each interval, until the store refuses. A beat that
/// its disk does not take is left out.
///
/// It runs beside whatever proves that the process is of use: when that task ends, this one has to end too, or
/// readers would trust a store that nobody feeds.
pub async fn beat(publisher: &Publisher) -> Result<Infallible, PublishError> {
    let mut tick = tokio::time::interval(HEARTBEAT_INTERVAL);
    loop {
        tick.tick().await;
        let now = jiff::Timestamp::now();
        match publisher.put(HEARTBEAT_KEY, format!("{now:.0}")).await {
            Err(error) if error.is_disk() => debug!(%error, "no heartbeat"),
            beaten => drop(beaten?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        range::KeyRange,
        store::{Store, StoreOptions},
    };

    #[tokio::test(start_paused = true)]
    async fn beats_at_once_and_every_thirty_seconds() {
        let store = Store::in_memory(StoreOptions::default());
        let mut watcher = store.watch(KeyRange::key(HEARTBEAT_KEY), 2);
        let begin = tokio::time::Instant::now();
        let beating = tokio::spawn({
            let publisher = Publisher::new(store.clone(), ["ours/"]);
            async move { beat(&publisher).await }
        });
        let mut times = Vec::new();
        while times.len() < 3 {
            let changes = watcher.next().await.expect("not compacted");
            times.extend(changes.events.iter().map(|_| begin.elapsed().as_secs()));
            let value = &changes.events[0].entry.value;
            let text = std::str::from_utf8(value).expect("text");
            assert!(text.ends_with('Z') && text.parse::<jiff::Timestamp>().is_ok(), "not RFC 3339: {text}");
        }
        assert_eq!(times, [0, 30, 60]);
        beating.abort();
    }
}
