//! What others get from a followed hub: its cluster's records, and how the connection to it is.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use imbl::OrdMap;
use serde::Serialize;
use tokio::time::Instant;
use topology::ServiceName;
use topology::record::local::LocalService;
use topology::snapshot::Member;

/// A followed hub at one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// The cluster's records.
    pub member: Arc<Member>,
    /// The cluster's own services, where this side may read them: from the own hub only.
    pub local_services: OrdMap<ServiceName, Arc<LocalService>>,
    /// The first complete list of those services has been read.
    pub local_services_synced: bool,
    /// How the connection is.
    pub link: Link,
    /// Records that were not taken.
    pub rejections: Arc<Rejections>,
}

/// How the connection to a hub is. It says nothing about the cluster's traffic: that is for probes to say.
#[derive(Clone, Debug)]
pub enum Link {
    /// No connection has ever been made; the text says what is tried, or why it failed.
    Joining(String),
    /// Connected, and the first lists are under way.
    Syncing,
    /// Connected, and everything is known up to now.
    Fresh,
    /// The connection was lost. What is known is kept and served.
    Stale {
        /// When the hub was last heard.
        since: Instant,
        /// Why.
        reason: String,
    },
    /// The hub, or its certificate, is not acceptable; nothing is imported.
    Refused(String),
}

/// Records that were not taken, by kind, with the last few in full.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rejections {
    /// How many, by kind of record, since the start.
    pub count: BTreeMap<String, u64>,
    /// The last ones, oldest first.
    pub last: VecDeque<Rejection>,
}

/// A record that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rejection {
    /// Its key.
    pub key: String,
    /// What was found, and what was expected.
    pub reason: String,
}

const KEPT: usize = 20;
/// More than the longest key that Kubernetes names can make.
const LONGEST: usize = 768;

impl Link {
    /// The state as one word: `joining`, `syncing`, `fresh`, `stale` or `refused`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Joining(_) => "joining",
            Self::Syncing => "syncing",
            Self::Fresh => "fresh",
            Self::Stale { .. } => "stale",
            Self::Refused(_) => "refused",
        }
    }

    /// Why it is not fresh, if it is not.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Joining(reason) | Self::Refused(reason) | Self::Stale { reason, .. } => Some(reason),
            Self::Syncing | Self::Fresh => None,
        }
    }
}

impl Rejections {
    /// Takes note of one more. Both texts can hold what a peer wrote, so only their beginning is kept; what is kept
    /// is returned, and how many of that kind there were by now.
    pub fn add(&mut self, kind: &str, key: &str, reason: &str) -> (u64, Rejection) {
        let count = self.count.entry(kind.to_owned()).or_default();
        *count += 1;
        let count = *count;
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        let rejection = Rejection { key: beginning(key), reason: beginning(reason) };
        self.last.push_back(rejection.clone());
        (count, rejection)
    }
}

/// The first [`LONGEST`] bytes of a text, up to a whole character.
fn beginning(text: &str) -> String {
    match text.get(..text.floor_char_boundary(LONGEST)) {
        Some(start) if start.len() < text.len() => format!("{start}…"),
        _ => text.to_owned(),
    }
}
