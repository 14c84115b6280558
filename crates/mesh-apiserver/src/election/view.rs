//! What one replica knows of the Lease, and what it does about it. Pure: it is told answers and the time.
//!
//! As in client-go, no clock is compared with another's: a Lease is free when it was not seen to change for as long as it
//! lasts. Unlike there, that time begins anew after nothing could be seen for longer than the renew deadline: when the API
//! server was away, the holder could renew the Lease no more than others could look.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use tokio::time::Instant;

use super::Settings;

/// The Lease as one replica knows it.
#[derive(Clone, Debug)]
pub struct View {
    settings: Settings,
    me: String,
    /// `None`: not read yet.
    seen: Option<Seen>,
    /// When the last own renewal began, while the Lease is held.
    renewed: Option<Instant>,
    rivals: u64,
}

/// An answer of the API server.
#[derive(Clone, Debug)]
struct Seen {
    /// `None`: there is no such object.
    lease: Option<Lease>,
    /// Since when it is as it is, as far as was looked.
    since: Instant,
    /// The last look.
    at: Instant,
}

/// What to write.
#[derive(Clone, Debug, PartialEq)]
pub enum Wish {
    /// Nothing: somebody else holds it, or it is not wanted.
    Nothing,
    /// A new object.
    Create(Lease),
    /// This version of the object is to become so.
    Update(Lease),
}

impl View {
    /// Nothing is known yet. `me`: the name under which the Lease is held; no two replicas may have the same.
    pub fn new(settings: Settings, me: impl Into<String>) -> Self {
        Self { settings, me: me.into(), seen: None, renewed: None, rivals: 0 }
    }

    /// Takes in what a read said; `None`: there is no such object.
    pub fn read(&mut self, lease: Option<Lease>, now: Instant) {
        let before = self.seen.take();
        let changed = before.as_ref().is_none_or(|seen| spec(&seen.lease) != spec(&lease));
        let followed =
            before.filter(|seen| now.duration_since(seen.at) <= self.settings.times.renew_deadline);
        let since = followed.as_ref().filter(|_| !changed).map_or(now, |seen| seen.since);
        // What changed while nobody looked may have been long ago, and its holder be gone since.
        let other = holder(&lease).is_some_and(|holder| *holder != self.me);
        if changed && followed.is_some() && other {
            self.rivals += 1;
        }
        if holder(&lease) != Some(&self.me) {
            self.renewed = None;
        }
        self.seen = Some(Seen { lease, since, at: now });
    }

    /// Takes in that an own write was taken, with the object as it then is; `begun`: when it was sent.
    pub fn wrote(&mut self, lease: Lease, begun: Instant, now: Instant) {
        self.renewed = (spec_of(&lease).holder_identity.as_ref() == Some(&self.me)).then_some(begun);
        self.seen = Some(Seen { lease: Some(lease), since: now, at: now });
    }

    /// Gives up what is held, before the API server is told: from here on it is no longer relied upon.
    pub fn give_up(&mut self) {
        self.renewed = None;
    }

    /// What to write, given the last read, for a replica that wants to lead.
    pub fn to_lead(&self, now: Instant, clock: Timestamp) -> Wish {
        let Some(seen) = &self.seen else { return Wish::Nothing };
        let Some(lease) = &seen.lease else {
            let (name, namespace) = (self.settings.name.clone(), self.settings.namespace.clone());
            let metadata =
                ObjectMeta { name: Some(name), namespace: Some(namespace), ..ObjectMeta::default() };
            let spec = self.taken(&LeaseSpec::default(), 0, clock);
            return Wish::Create(Lease { metadata, spec: Some(spec) });
        };
        let before = spec_of(lease);
        let transitions = before.lease_transitions.unwrap_or(0);
        let spec = match holder(&seen.lease) {
            Some(holder) if *holder == self.me => LeaseSpec {
                acquire_time: before.acquire_time.clone(),
                ..self.taken(&before, transitions, clock)
            },
            Some(_) if now.duration_since(seen.since) <= lasts(&before) => return Wish::Nothing,
            _ => self.taken(&before, transitions.saturating_add(1), clock),
        };
        Wish::Update(Lease { spec: Some(spec), ..lease.clone() })
    }

    /// What to write, given the last read, for a replica that no longer wants to lead.
    pub fn to_leave(&self, clock: Timestamp) -> Wish {
        let Some(Seen { lease: Some(lease), .. }) = &self.seen else { return Wish::Nothing };
        let before = spec_of(lease);
        if before.holder_identity.as_ref() != Some(&self.me) {
            return Wish::Nothing;
        }
        // As client-go leaves one behind: nobody's, and short in case somebody reads it otherwise.
        let spec = LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            renew_time: Some(MicroTime(clock)),
            ..before
        };
        Wish::Update(Lease { spec: Some(spec), ..lease.clone() })
    }

    /// Whether the Lease is held, as far as known, by a renewal of this process.
    pub fn holds(&self) -> bool {
        self.renewed.is_some()
    }

    /// When the last renewal began, while it is held. Others wait from then on, or from later.
    pub fn renewed(&self) -> Option<Instant> {
        self.renewed
    }

    /// Who holds it, or held it last; `None`: nobody, or not known.
    pub fn holder(&self) -> Option<&str> {
        holder(&self.seen.as_ref()?.lease).map(String::as_str)
    }

    /// How often it went from one holder to another, as the object says.
    pub fn transitions(&self) -> i32 {
        let lease = self.seen.as_ref().and_then(|seen| seen.lease.as_ref());
        lease.and_then(|lease| lease.spec.as_ref()?.lease_transitions).unwrap_or(0)
    }

    /// How often another replica was seen to take it or to renew it.
    pub fn rivals(&self) -> u64 {
        self.rivals
    }

    fn taken(&self, before: &LeaseSpec, transitions: i32, clock: Timestamp) -> LeaseSpec {
        let duration = self.settings.times.duration.as_secs();
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: Some(i32::try_from(duration).unwrap_or(i32::MAX)),
            acquire_time: Some(MicroTime(clock)),
            renew_time: Some(MicroTime(clock)),
            lease_transitions: Some(transitions),
            ..before.clone()
        }
    }
}

/// How long a Lease lasts by its own word, within reason: a holder may be of other settings than this replica.
fn lasts(spec: &LeaseSpec) -> Duration {
    let secs = spec.lease_duration_seconds.and_then(|secs| u64::try_from(secs).ok()).unwrap_or(0);
    Duration::from_secs(secs).min(LONGEST)
}

fn spec(lease: &Option<Lease>) -> Option<&LeaseSpec> {
    lease.as_ref().and_then(|lease| lease.spec.as_ref())
}

fn spec_of(lease: &Lease) -> LeaseSpec {
    lease.spec.clone().unwrap_or_default()
}

fn holder(lease: &Option<Lease>) -> Option<&String> {
    spec(lease)?.holder_identity.as_ref().filter(|holder| !holder.is_empty())
}

/// Nobody's word keeps a Lease longer than this.
const LONGEST: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests;
