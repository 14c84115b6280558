//! What a replica knows of its standing, and what it may do by it: the handle of a [`Campaign`](super::Campaign).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::Settings;
use crate::finding::Finding;

/// Where a replica stands, as far as it knows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// Who holds the Lease, or held it last; `None`: nobody, or not known.
    pub holder: Option<String>,
    /// When its last renewal by this replica began; `None`: it does not hold it.
    pub renewed: Option<Instant>,
    /// How often the Lease went from one holder to another.
    pub transitions: i32,
    /// Why the Lease elects nobody: for as long as it lasts, every attempt was in vain.
    pub unusable: Option<Finding>,
    /// How often another replica was seen to take or renew it.
    pub(super) rivals: u64,
    /// It is not wanted, and not held.
    pub(super) withdrawn: bool,
}

/// Why a replica may stand for election in etcd, until another one is seen to hold the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mandate {
    rivals: u64,
}

/// The handle. Clones are of one campaign.
#[derive(Clone, Debug)]
pub struct Election {
    pub(super) settings: Settings,
    pub(super) wanted: watch::Sender<bool>,
    pub(super) standing: watch::Receiver<Standing>,
    pub(super) look: Arc<Notify>,
}

impl Standing {
    /// Whether this replica holds the Lease, as far as it knows.
    pub fn holds(&self) -> bool {
        self.renewed.is_some()
    }
}

impl Election {
    /// Which Lease, and its times.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where this replica stands.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Wants the Lease from now on, and waits until it is held, or cannot be used by anybody. Cancel safe.
    pub async fn mandate(&self) -> Mandate {
        self.wanted.send_replace(true);
        self.until(|standing| standing.holds() || standing.unusable.is_some()).await
    }

    /// Waits until another replica is seen to hold the Lease, and says so. Cancel safe.
    pub async fn lost(&self, mandate: Mandate) -> String {
        self.until(|standing| standing.rivals > mandate.rivals).await;
        let (lease, holder) = (self.settings.place(), self.standing.borrow().holder.clone());
        format!("{} holds the Lease {lease}", holder.as_deref().unwrap_or("another replica"))
    }

    /// Wants the Lease no longer, and waits until it is free for others: two seconds at most.
    pub async fn withdraw(&self) {
        self.wanted.send_replace(false);
        if timeout(RELEASE, self.until(|standing| standing.withdrawn)).await.is_err() {
            debug!(lease = self.settings.place(), "Lease not released, it runs out");
        }
    }

    /// Looks at the Lease at once: there is a sign that it is free.
    pub fn look(&self) {
        self.look.notify_one();
    }

    /// Until when the holder of a mandate may write to the API server for all that is known of the Lease; `None`: for as
    /// long as etcd says, since the Lease cannot be used.
    pub fn relied_until(&self) -> Option<Instant> {
        let standing = self.standing.borrow();
        if standing.unusable.is_some() {
            return None;
        }
        let until = standing.renewed.map(|renewed| renewed + self.settings.times.renew_deadline);
        Some(until.unwrap_or_else(Instant::now))
    }

    async fn until(&self, is_so: impl FnMut(&Standing) -> bool) -> Mandate {
        let mut standing = self.standing.clone();
        let found = standing.wait_for(is_so).await.map(|standing| Mandate { rivals: standing.rivals });
        match found {
            Ok(mandate) => mandate,
            // The campaign has ended, and so does the process.
            Err(_) => std::future::pending().await,
        }
    }
}

/// How long a release may take: the next replica then waits for the Lease to run out.
const RELEASE: Duration = Duration::from_secs(2);
