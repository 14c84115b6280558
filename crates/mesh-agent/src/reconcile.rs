//! The loop that makes the maps hold what the sources say: by change, and by timer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mesh_runtime::{BlockReady, Chain};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use crate::desired::{Desired, desired, probe_targets};
use crate::image::Image;
use crate::maps::Maps;
use crate::plan::Plan;
use crate::probe::prober::Targets;
use crate::programmer::Programmer;
use crate::sources::Sources;
use crate::status::{Reconciled, Shown};

/// Owns the maps and keeps them as the sources want them.
#[derive(Debug)]
pub struct Reconciler<M> {
    sources: Sources,
    changed: Arc<Notify>,
    programmer: Programmer<M>,
    /// What the maps held at the start: kept for clusters that are not heard from yet.
    restored: Image,
    /// Ids of clusters that have told everything since the start: nothing restored counts for them any more.
    settled: BTreeSet<u16>,
    shown: watch::Sender<Option<Arc<Shown>>>,
    targets: watch::Sender<Targets>,
    reconciled: Reconciled,
    ready: Option<BlockReady>,
    retry: Retry,
}

/// When failed steps are tried again.
#[derive(Clone, Copy, Debug)]
struct Retry {
    wait: Duration,
    at: Option<Instant>,
}

impl<M: Maps> Reconciler<M> {
    /// Takes over `maps` as they are. `ready` is given up after the first run.
    ///
    /// Fails if the maps cannot be read.
    pub fn new(
        sources: Sources,
        changed: Arc<Notify>,
        maps: M,
        ready: BlockReady,
    ) -> Result<Self, crate::maps::MapError> {
        let programmer = Programmer::recover(maps)?;
        let restored = programmer.applied().clone();
        info!(
            frontends = restored.frontends.len(),
            backends = programmer.backends(),
            addresses = restored.ipcache.len(),
            "maps read back from the kernel"
        );
        Ok(Self {
            sources,
            changed,
            programmer,
            restored,
            settled: BTreeSet::new(),
            shown: watch::Sender::new(None),
            targets: watch::Sender::new(Targets::new()),
            reconciled: Reconciled::never("the first complete lists of the own hub"),
            ready: Some(ready),
            retry: Retry { wait: Retry::FIRST, at: None },
        })
    }

    /// What the pages show, renewed with each run.
    pub fn shown(&self) -> watch::Receiver<Option<Arc<Shown>>> {
        self.shown.subscribe()
    }

    /// Whom the probes should ask, renewed with each run.
    pub fn targets(&self) -> watch::Receiver<Targets> {
        self.targets.subscribe()
    }

    /// Runs until the future is dropped. The maps stay as they are then: traffic outlives the agent.
    ///
    /// Fails if the maps cannot be read at an audit.
    pub async fn run(mut self) -> Result<std::convert::Infallible, crate::maps::MapError> {
        let mut audit = Instant::now() + AUDIT;
        loop {
            let due = self.reconcile();
            let wake = due.map_or(audit, |due| due.min(audit));
            // Both arms are cancel-safe: a notification that is not taken stays.
            tokio::select! {
                () = self.changed.notified() => {}
                () = sleep_until(wake) => {}
            }
            if Instant::now() >= audit {
                self = self.audit()?;
                audit = Instant::now() + AUDIT;
            }
        }
    }

    /// Makes the maps hold what the sources say. Returns when it has to run again by itself, if it has: failed steps
    /// and the ends of grace periods wait for the own hub like everything else.
    fn reconcile(&mut self) -> Option<Instant> {
        let started = Instant::now();
        let heard = self.sources.heard();
        if !heard.own_synced {
            self.show(heard, Desired::default());
            return None;
        }
        let mut wanted = desired(&heard.snapshot);
        self.settled.extend(&heard.synced_ids);
        if heard.peers_known && heard.unheard.is_empty() {
            self.restored = Image::default();
        }
        wanted.image.keep_unheard(&self.restored, &self.settled);
        let plan = Plan::between(self.programmer.applied(), &wanted.image);
        if !plan.is_empty() {
            debug!(
                frontends = plan.set_frontends.len(),
                gone = plan.remove_frontends.len(),
                addresses = plan.set_addresses.len() + plan.remove_addresses.len(),
                "maps change"
            );
        }
        let outcome = self.programmer.apply(plan, started);
        for failure in outcome.failures.iter().filter(|f| !self.reconciled.failures.contains(f)) {
            warn!(error = failure, "map entry not written, it is tried again");
        }
        self.retry.after(outcome.failures.is_empty());
        self.reconciled.ran(started, outcome);
        let targets = probe_targets(&heard.snapshot);
        self.targets.send_if_modified(|before| {
            let changed = *before != targets;
            *before = targets;
            changed
        });
        if self.ready.take().is_some() {
            info!(frontends = self.programmer.applied().frontends.len(), "maps hold what the own hub says");
        }
        self.show(heard, wanted);
        [self.retry.at, self.programmer.next_release()].into_iter().flatten().min()
    }

    fn show(&self, heard: crate::sources::Heard, wanted: Desired) {
        let shown = Shown::new(heard, wanted, &self.programmer, self.reconciled.clone());
        self.shown.send_replace(Some(Arc::new(shown)));
    }

    fn audit(self) -> Result<Self, crate::maps::MapError> {
        let (programmer, drift) = self.programmer.audit().inspect_err(|error| {
            warn!(error = %Chain(error), "maps cannot be read back");
        })?;
        if drift > 0 {
            warn!(entries = drift, "maps were changed by somebody else; they are mended");
        }
        let mut reconciled = self.reconciled;
        reconciled.drift += drift as u64;
        Ok(Self { programmer, reconciled, ..self })
    }
}

impl Retry {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(30);

    fn after(&mut self, success: bool) {
        if success {
            *self = Self { wait: Self::FIRST, at: None };
        } else {
            self.at = Some(Instant::now() + self.wait);
            self.wait = (self.wait * 2).min(Self::LONGEST);
        }
    }
}

/// How often the kernel's maps are read back and compared.
const AUDIT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maps::MemoryMaps;
    use ebpf_types::{Backend, IpcacheEntry, IpcacheKey, Protocol};
    use peering::directory::Peers;
    use peering::follow::unknown;
    use peering::view::View;
    use topology::record::Kind;

    fn reconciler(own: View, peers: watch::Receiver<Peers>, maps: MemoryMaps) -> Reconciler<MemoryMaps> {
        let sources = Sources {
            node: "n1".parse().expect("a name"),
            own: watch::channel(own).1,
            peers,
            health: watch::channel(Arc::default()).1,
        };
        let ready = mesh_runtime::Readiness::new().block("a test");
        Reconciler::new(sources, Arc::default(), maps, ready).expect("memory")
    }

    fn own() -> View {
        unknown(&"paris".parse().expect("a name"))
    }

    /// The own hub may answer before the folder of peers has been looked at.
    #[tokio::test]
    async fn what_is_restored_stays_until_it_is_known_who_the_peers_are() {
        let mut maps = MemoryMaps::new(8);
        let key = IpcacheKey::host("10.2.0.1".parse().expect("an address"));
        maps.set_address(key, IpcacheEntry::new(131_073, 2, None)).expect("memory");
        let mut own = View { local_services_synced: true, ..own() };
        let member = Arc::make_mut(&mut own.member);
        member.id = topology::ClusterId::try_from(1).ok();
        member.synced = Kind::ALL.to_vec();
        let (told, peers) = watch::channel(Peers::default());
        let mut reconciler = reconciler(own, peers, maps);
        reconciler.reconcile();
        assert!(reconciler.programmer.applied().ipcache.contains_key(&key));
        told.send_replace(Peers { known: true, ..Peers::default() });
        reconciler.reconcile();
        assert_eq!(reconciler.programmer.applied(), &Image::default());
    }

    /// Backends that nobody uses wait for their end from the start; a hub that is down must not make that a busy
    /// loop.
    #[tokio::test(start_paused = true)]
    async fn without_the_own_hub_nothing_is_due_and_nothing_is_removed() {
        let mut maps = MemoryMaps::new(8);
        let backend = Backend::new("10.2.0.1:80".parse().expect("an address"), Protocol::Tcp, 2);
        maps.set_backend(1, backend).expect("memory");
        let mut reconciler = reconciler(own(), watch::channel(Peers::default()).1, maps);
        assert!(reconciler.programmer.next_release().is_some());
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(reconciler.reconcile(), None);
        assert_eq!(reconciler.programmer.backends(), 1);
    }
}
