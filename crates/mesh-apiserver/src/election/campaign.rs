//! The task that asks the API server about the Lease.

use std::convert::Infallible;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::{Api, Client, Error};
use mesh_runtime::Chain;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::Settings;
use super::standing::{Election, Standing};
use super::view::{View, Wish};
use crate::finding::{Finding, Reason};

/// Asks, renews, releases.
pub struct Campaign {
    settings: Settings,
    api: Api<Lease>,
    view: View,
    wanted: watch::Receiver<bool>,
    standing: watch::Sender<Standing>,
    look: Arc<Notify>,
    /// Something was written, taken or not, since the Lease was wanted.
    tried: bool,
    /// When the last attempt was not in vain.
    worked: Instant,
}

/// Why an attempt was in vain.
#[derive(Debug)]
enum Failure {
    /// The object is another by now.
    Outdated,
    /// What the API server, or the connection, said; whether it refuses.
    Failed { text: String, denied: bool },
}

impl Election {
    /// A campaign that has not begun, for a replica of this name: no other may have the same.
    pub fn new(client: Client, settings: Settings, me: &str) -> (Self, Campaign) {
        let (wanted, is_wanted) = watch::channel(false);
        let (sender, standing) = watch::channel(Standing { withdrawn: true, ..Standing::default() });
        let look = Arc::new(Notify::new());
        let campaign = Campaign {
            api: Api::namespaced(client, &settings.namespace),
            view: View::new(settings.clone(), me),
            settings: settings.clone(),
            wanted: is_wanted,
            standing: sender,
            look: Arc::clone(&look),
            tried: false,
            worked: Instant::now(),
        };
        (Self { settings, wanted, standing, look }, campaign)
    }
}

impl Campaign {
    /// Asks every `retry_period`, until it is dropped.
    pub async fn run(mut self) -> Infallible {
        self.worked = Instant::now();
        loop {
            let begun = Instant::now();
            let wanted = *self.wanted.borrow_and_update();
            let outcome = if wanted { self.lead().await } else { self.leave().await };
            self.tell(wanted, outcome);
            // All arms are cancel-safe.
            tokio::select! {
                () = sleep_until(begun + self.settings.times.retry_period) => {}
                Ok(()) = self.wanted.changed() => {}
                () = self.look.notified() => {}
            }
        }
    }

    async fn lead(&mut self) -> Result<(), Failure> {
        if self.view.holds() {
            // What was last answered is most likely still so, and if not, the API server says it.
            let wish = self.view.to_lead(Instant::now(), Timestamp::now());
            match self.write(wish).await {
                Err(Failure::Outdated) => {}
                done => return done,
            }
        }
        self.read().await?;
        let wish = self.view.to_lead(Instant::now(), Timestamp::now());
        match self.write(wish).await {
            // Somebody was faster.
            Err(Failure::Outdated) => self.read().await,
            done => done,
        }
    }

    async fn leave(&mut self) -> Result<(), Failure> {
        self.view.give_up();
        if !self.tried {
            return self.read().await;
        }
        self.read().await?;
        let wish = self.view.to_leave(Timestamp::now());
        let is_held = wish != Wish::Nothing;
        match self.write(wish).await {
            Err(Failure::Outdated) => return self.read().await,
            done => done?,
        }
        self.tried = false;
        if is_held {
            info!(lease = self.settings.place(), "Lease released");
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<(), Failure> {
        let answer = timeout(self.settings.times.answer(), self.api.get_opt(&self.settings.name)).await;
        let lease = answer.map_err(|_elapsed| self.no_answer())?.map_err(|error| Failure::of(&error))?;
        self.view.read(lease, Instant::now());
        Ok(())
    }

    async fn write(&mut self, wish: Wish) -> Result<(), Failure> {
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let begun = Instant::now();
        let (name, limit) = (&self.settings.name, self.settings.times.answer());
        let answer = match &wish {
            Wish::Nothing => return Ok(()),
            Wish::Create(lease) => timeout(limit, self.api.create(&params, lease)).await,
            Wish::Update(lease) => timeout(limit, self.api.replace(name, &params, lease)).await,
        };
        self.tried = true;
        let lease = answer.map_err(|_elapsed| self.no_answer())?.map_err(|error| match (&error, &wish) {
            (Error::Api(status), _) if status.code == 409 => Failure::Outdated,
            (Error::Api(status), Wish::Update(_)) if status.code == 404 => Failure::Outdated,
            _ => Failure::of(&error),
        })?;
        self.view.wrote(lease, begun, Instant::now());
        Ok(())
    }

    fn no_answer(&self) -> Failure {
        let text = format!("no answer within {} s", self.settings.times.answer().as_secs_f32());
        Failure::Failed { text, denied: false }
    }

    /// Tells where the replica stands after an attempt.
    fn tell(&mut self, wanted: bool, outcome: Result<(), Failure>) {
        let unusable = match outcome {
            Ok(()) => {
                self.worked = Instant::now();
                None
            }
            Err(failure) => {
                debug!(lease = self.settings.place(), ?failure, "Lease");
                let lasts = self.worked.elapsed() >= self.settings.times.duration;
                let before = self.standing.borrow().unusable.clone();
                // The first text counts: more of the same is no news.
                lasts.then(|| before.unwrap_or_else(|| self.unusable(&failure)))
            }
        };
        let now = Standing {
            holder: self.view.holder().map(str::to_owned),
            renewed: self.view.renewed(),
            transitions: self.view.transitions(),
            unusable,
            rivals: self.view.rivals(),
            withdrawn: !wanted && !self.tried,
        };
        let before = self.standing.send_replace(now.clone());
        let lease = self.settings.place();
        match (&before.unusable, &now.unusable) {
            (None, Some(finding)) => warn!(reason = finding.reason.as_str(), "{finding}"),
            (Some(_), None) => info!(lease, "the Lease can be used again: its holder leads"),
            _ => {}
        }
        if now.holds() && !before.holds() {
            info!(lease, transitions = now.transitions, "this replica holds the Lease");
        } else if before.holder != now.holder && !now.holds() {
            info!(lease, holder = now.holder.as_deref().unwrap_or("nobody"), "the Lease has another holder");
        }
    }

    fn unusable(&self, failure: &Failure) -> Finding {
        let finding = Finding::error(Reason::LeaderLease, format_args!("Lease {}", self.settings.place()));
        let finding = match failure {
            Failure::Failed { text, denied: true } => finding.found(text).expected(
                "to be allowed to get and update it: Role rule {apiGroups: [coordination.k8s.io], resources: [leases], \
                 verbs: [get, update]}, and create, if it is not there",
            ),
            Failure::Failed { text, denied: false } => {
                finding.found(text).expected("an API server that answers")
            }
            Failure::Outdated => finding.found("others write it all the time").expected("one holder"),
        };
        finding.so("etcd alone says which replica writes, until the Lease can be used again")
    }
}

impl Failure {
    fn of(error: &Error) -> Self {
        match error {
            Error::Api(status) => Self::Failed {
                text: format!("{} {}", status.code, status.message),
                denied: matches!(status.code, 401 | 403 | 404),
            },
            error => Self::Failed { text: Chain(error).to_string(), denied: false },
        }
    }
}

impl std::fmt::Debug for Campaign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Campaign").field("view", &self.view).finish_non_exhaustive()
    }
}

/// The name under which the API server notes who wrote.
const MANAGER: &str = "isthmus-hub";
