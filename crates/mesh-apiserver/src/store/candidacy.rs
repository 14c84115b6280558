//! How one of several hubs comes to write, and ceases to: by the Lease where there is one, and by etcd in any case.
//!
//! ```text
//!   Lease held, or of no use ──> stands in etcd ──> term: store fenced, API server permitted
//!        ^                         │ a leader without the Lease is deposed       │
//!        └── released, then etcd's key: whoever waits looks when the key goes <──┘
//! ```

use std::convert::Infallible;
use std::time::Duration;

use kvstore::etcd::{Contender, LEASE_TTL_SECS, Leadership};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use crate::election::{Election, Mandate, Permit};

/// Stands for election and resigns.
#[derive(Clone, Debug)]
pub struct Candidacy {
    contender: Contender,
    election: Option<Election>,
    permit: Permit,
}

/// A term as the leader. To be given back to [`Candidacy::resign`].
#[derive(Debug)]
pub struct Term {
    leadership: Leadership,
    mandate: Option<Mandate>,
}

impl Term {
    /// The term in etcd.
    pub fn leadership(&self) -> &Leadership {
        &self.leadership
    }
}

impl Candidacy {
    /// A candidacy in etcd alone, of a hub that does not write to an API server.
    pub fn new(contender: Contender) -> Self {
        Self { contender, election: None, permit: Permit::always() }
    }

    /// By the Lease, where there is to be one. `permit`: that of all clients which write to the API server.
    #[must_use]
    pub fn by(self, election: Option<Election>, permit: Permit) -> Self {
        Self { election, permit, ..self }
    }

    /// The name of the leader of the moment, as the mirror of etcd has it.
    pub fn leader(&self) -> Option<String> {
        self.contender.leader()
    }

    /// The election by the Lease, if there is one.
    pub fn election(&self) -> Option<&Election> {
        self.election.as_ref()
    }

    /// Waits until this replica leads. Who drops the future has to [withdraw](Self::withdraw).
    pub async fn elected(&self) -> Term {
        let Some(election) = &self.election else {
            let leadership = self.contender.elected().await;
            return Term { leadership, mandate: None };
        };
        loop {
            // Who cannot be elected leaves the Lease to others.
            self.contender.in_contact().await;
            // Both arms may be dropped.
            let mandate = tokio::select! {
                mandate = election.mandate() => mandate,
                never = self.look_when_vacated(election) => match never {},
            };
            // A campaign in etcd may be dropped; a lease without a key runs out by itself.
            tokio::select! {
                leadership = self.contender.elected() => return Term { leadership, mandate: Some(mandate) },
                reason = election.lost(mandate) => debug!(reason, "no longer stands for election"),
                () = self.make_way(election) => {
                    warn!("this replica holds the Lease and is not elected in etcd: it lets others try");
                    election.withdraw().await;
                    sleep(election.settings().times.duration).await;
                }
            }
        }
    }

    /// Waits until the term is over and says why. Cancel safe.
    pub async fn lost(&self, term: &mut Term) -> String {
        let Term { leadership, mandate } = term;
        match (&self.election, mandate) {
            (Some(election), Some(mandate)) => {
                // Both arms only wait.
                tokio::select! {
                    reason = leadership.lost() => reason,
                    reason = election.lost(*mandate) => reason,
                }
            }
            _ => leadership.lost().await,
        }
    }

    /// Permits writes to the API server for as long as this replica knows that it leads. To be dropped with the term.
    /// `kept`: until when the term lasts in etcd, as far as known.
    pub async fn keep_permit(&self, mut kept: watch::Receiver<Instant>) -> Infallible {
        let mut standing = self.election.as_ref().map(Election::standing);
        loop {
            let etcd = *kept.borrow_and_update();
            let lease = self.election.as_ref().and_then(Election::relied_until);
            self.permit.grant_until(lease.map_or(etcd, |lease| lease.min(etcd)));
            let stands = async {
                match &mut standing {
                    Some(standing) => standing.changed().await.is_ok(),
                    None => std::future::pending().await,
                }
            };
            // Both arms only wait. Where a sender is gone there is no more news, and the permit expires.
            tokio::select! {
                Ok(()) = kept.changed() => {}
                true = stands => {}
                else => std::future::pending::<()>().await,
            }
        }
    }

    /// Ends a term, so that another replica takes over at once. Takes four seconds at most. Whatever wrote during the
    /// term has to be stopped before.
    pub async fn resign(&self, term: Term) {
        // The Lease first: who waits looks at it when etcd's key goes.
        self.withdraw().await;
        term.leadership.resign().await;
    }

    /// Leaves the Lease to others. Takes two seconds at most.
    pub async fn withdraw(&self) {
        self.permit.withhold();
        if let Some(election) = &self.election {
            election.withdraw().await;
        }
    }

    /// A leader that leaves in order has released the Lease when its key in etcd goes.
    async fn look_when_vacated(&self, election: &Election) -> Infallible {
        loop {
            self.contender.vacated().await;
            election.look();
        }
    }

    /// Deposes a leader that has not the Lease, once this replica has it. Returns if that did not help.
    async fn make_way(&self, election: &Election) {
        let relied = || election.relied_until().is_some_and(|until| Instant::now() < until);
        let mut standing = election.standing();
        while !relied() {
            if standing.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
        sleep(GRACE).await;
        if relied() {
            match self.contender.depose().await {
                Ok(Some(name)) => warn!(name, "a replica that led without the Lease leads no longer"),
                Ok(None) => {}
                Err(error) => debug!(%error, "nobody deposed"),
            }
        }
        sleep(PATIENCE).await;
    }
}

/// A leader that is gone leaves its key in etcd for as long as its lease there, and one that ends its term needs a moment.
const GRACE: Duration = Duration::from_secs(LEASE_TTL_SECS.unsigned_abs() + 1);
/// Longer than it takes to be elected in an etcd that works.
const PATIENCE: Duration = Duration::from_secs(30);
