//! One cluster's records as they come in: each is checked against where it comes from, and then changes the
//! cluster's state, or is refused. Pure.

mod suffix;

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::OrdMap;
use mesh_runtime::Chain;
use topology::admission::{Denied, Judgement};
use topology::record::ip::IpEntry;
use topology::record::key::{self, Kind};
use topology::record::local::LocalService;
use topology::record::node::Node;
use topology::record::service::RemoteService;
use topology::record::slice::SliceValue;
use topology::record::{Origin, Rejected, identity};
use topology::snapshot::Member;
use topology::{Admission, NodeName, ServiceName};

use self::suffix::{block_of, canonical, key_of_block, suffix};
use crate::view::{Rejection, Rejections};

/// A stream of records that is listed and watched on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feed {
    /// Records that clusters exchange.
    Records(Kind),
    /// The cluster's own services, for its own agents.
    LocalServices,
}

/// One cluster's state as its records have made it.
#[derive(Clone, Debug)]
pub struct Ledger {
    origin: Origin,
    cached: bool,
    member: Member,
    local_services: OrdMap<ServiceName, Arc<LocalService>>,
    synced_local_services: bool,
    admission: Admission,
    rejections: Rejections,
}

/// A change of one key, or a key of a list.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The whole key.
    pub key: &'a [u8],
    /// The new value; `None` if the key is gone.
    pub value: Option<&'a [u8]>,
}

impl Feed {
    /// The prefix, with its final slash, under which a hub keeps this feed of `cluster`; `cached` if the hub is
    /// a mirror.
    pub fn prefix(self, origin: &Origin, cached: bool) -> String {
        match self {
            Self::Records(kind) if cached => kind.cache_prefix(&origin.cluster),
            Self::Records(kind) => kind.state_prefix(&origin.cluster),
            Self::LocalServices => key::LOCAL_SERVICES.to_owned(),
        }
    }
}

impl std::fmt::Display for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Records(kind) => kind.fmt(f),
            Self::LocalServices => f.write_str("local services"),
        }
    }
}

impl Ledger {
    /// The state of a cluster of which nothing is known yet.
    pub fn new(origin: Origin, cached: bool) -> Self {
        let member = Member { id: Some(origin.id), ..Member::unknown(origin.cluster.clone()) };
        Self {
            origin,
            cached,
            member,
            local_services: OrdMap::new(),
            synced_local_services: false,
            admission: Admission::default(),
            rejections: Rejections::default(),
        }
    }

    /// Takes of what follows only what is admitted.
    #[must_use]
    pub fn with_admission(self, admission: Admission) -> Self {
        Self { admission, ..self }
    }

    /// Takes a complete list of a feed: what is not in it is gone. A key whose value is refused keeps the value
    /// that was known before, so that a peer's bad write takes nothing away. O(list + known).
    pub fn reset<'a>(&mut self, feed: Feed, entries: impl IntoIterator<Item = Entry<'a>>) {
        let prefix = feed.prefix(&self.origin, self.cached);
        let mut seen = BTreeSet::new();
        for entry in entries {
            if let Some(suffix) = suffix(&prefix, entry.key) {
                seen.insert(canonical(feed, suffix));
            }
            self.apply(feed, entry);
        }
        for gone in self.known(feed).into_iter().filter(|suffix| !seen.contains(suffix)) {
            self.remove(feed, &gone);
        }
        match feed {
            Feed::Records(kind) if !self.member.synced.contains(&kind) => self.member.synced.push(kind),
            Feed::Records(_) => {}
            Feed::LocalServices => self.synced_local_services = true,
        }
    }

    /// Takes note that this cluster exports no services, and why: as a complete list without any.
    pub fn without_services(&mut self, reason: &str) {
        let feed = Feed::Records(Kind::Services);
        self.reset(feed, []);
        self.rejections.add(&feed.to_string(), &feed.prefix(&self.origin, self.cached), reason);
    }

    /// Takes a change of one key. A refused value is counted, and the value known before stays.
    pub fn apply(&mut self, feed: Feed, entry: Entry<'_>) {
        let prefix = feed.prefix(&self.origin, self.cached);
        let Some(suffix) = suffix(&prefix, entry.key) else {
            let found = String::from_utf8_lossy(entry.key).into_owned();
            self.rejections.add(&feed.to_string(), &found, &format!("key is not below {prefix}"));
            return;
        };
        let outcome = match entry.value {
            Some(value) => self.upsert(feed, suffix, value),
            None => {
                self.remove(feed, suffix);
                Ok(None)
            }
        };
        let (reason, is_wanted) = match outcome {
            Ok(None) => return,
            Ok(Some(denied)) => (denied.to_string(), denied.is_by_grant()),
            Err(rejected) => (Chain(&rejected).to_string(), false),
        };
        let key = format!("{prefix}{suffix}");
        let (count, Rejection { key, reason }) = self.rejections.add(&feed.to_string(), &key, &reason);
        // The first few by name, then ever fewer: a peer with a million bad records does not own the log. What the
        // operator does not grant is no news.
        if !is_wanted && (count <= NAMED || count.is_power_of_two()) {
            tracing::warn!(cluster = %self.origin.cluster, key, reason, refused = count, "record refused");
        }
    }

    /// True if this is the state of just that cluster, read from just there, of which just this is taken.
    pub fn is_of(&self, origin: &Origin, cached: bool, admission: &Admission) -> bool {
        let is_same =
            self.origin.cluster == origin.cluster && self.origin.id == origin.id && self.cached == cached;
        is_same && self.admission == *admission
    }

    /// The cluster's records.
    pub fn member(&self) -> &Member {
        &self.member
    }

    /// The cluster's own services.
    pub fn local_services(&self) -> &OrdMap<ServiceName, Arc<LocalService>> {
        &self.local_services
    }

    /// Records that were not taken.
    pub fn rejections(&self) -> &Rejections {
        &self.rejections
    }

    /// True if a complete list of every one of `feeds` has been taken.
    pub fn is_synced(&self, feeds: &[Feed]) -> bool {
        feeds.iter().all(|feed| match feed {
            Feed::Records(kind) => self.member.synced.contains(kind),
            Feed::LocalServices => self.synced_local_services,
        })
    }

    /// Takes a record as far as it is admitted; gives why it is not, or not all of it.
    fn upsert(&mut self, feed: Feed, suffix: &str, value: &[u8]) -> Result<Option<Denied>, Rejected> {
        let origin = &self.origin;
        let denied = match feed {
            Feed::Records(Kind::Nodes) => {
                let node = Node::decode(origin, suffix, value)?;
                let (node, denied) = taken(self.admission.node(&node), node);
                if let Some(node) = node {
                    self.member.nodes.insert(node.name.clone(), Arc::new(node));
                }
                denied
            }
            Feed::Records(Kind::Services) => match RemoteService::decode(origin, suffix, value)? {
                Some(service) => {
                    let (service, denied) = taken(self.admission.service(&service), service);
                    match service {
                        Some(service) => {
                            drop(self.member.services.insert(service.name.clone(), Arc::new(service)));
                        }
                        None => self.remove(feed, suffix),
                    }
                    denied
                }
                None => {
                    self.remove(feed, suffix);
                    None
                }
            },
            Feed::Records(Kind::Identities) => {
                let number = identity::decode_key(origin, suffix)?;
                let labels = identity::decode_value(origin, value)?;
                let (labels, denied) = taken(self.admission.identity(&labels), labels);
                match labels {
                    Some(labels) => drop(self.member.identities.insert(number, Arc::new(labels))),
                    None => self.remove(feed, suffix),
                }
                denied
            }
            Feed::Records(Kind::Ip) => {
                let entry = IpEntry::decode(origin, suffix, value)?;
                let (entry, denied) = taken(self.admission.address(&entry), entry);
                match entry {
                    Some(entry) => drop(self.member.addresses.insert(entry.block, Arc::new(entry))),
                    None => self.remove(feed, suffix),
                }
                denied
            }
            // Counted and checked; balancing uses services, as stock 1.20 does.
            Feed::Records(Kind::EndpointSlices) => {
                SliceValue::decode_record(origin, suffix, value)?;
                None
            }
            Feed::Records(Kind::ServiceExports) => None,
            Feed::LocalServices => {
                let service = LocalService::decode(suffix, value)?;
                self.local_services.insert(service.name.clone(), Arc::new(service));
                None
            }
        };
        Ok(denied)
    }

    /// Removing what is not known changes nothing.
    fn remove(&mut self, feed: Feed, suffix: &str) {
        match feed {
            Feed::Records(Kind::Nodes) => {
                if let Ok(name) = suffix.parse::<NodeName>() {
                    self.member.nodes.remove(&name);
                }
            }
            Feed::Records(Kind::Services) => {
                if let Ok(name) = suffix.parse::<ServiceName>() {
                    self.member.services.remove(&name);
                }
            }
            Feed::Records(Kind::Identities) => {
                if let Ok(number) = identity::decode_key(&self.origin, suffix) {
                    self.member.identities.remove(&number);
                }
            }
            Feed::Records(Kind::Ip) => {
                if let Some(block) = block_of(suffix) {
                    self.member.addresses.remove(&block);
                }
            }
            Feed::Records(Kind::EndpointSlices | Kind::ServiceExports) => {}
            Feed::LocalServices => {
                if let Ok(name) = suffix.parse::<ServiceName>() {
                    self.local_services.remove(&name);
                }
            }
        }
    }

    fn known(&self, feed: Feed) -> Vec<String> {
        match feed {
            Feed::Records(Kind::Nodes) => self.member.nodes.keys().map(ToString::to_string).collect(),
            Feed::Records(Kind::Services) => self.member.services.keys().map(ToString::to_string).collect(),
            Feed::Records(Kind::Identities) => {
                self.member.identities.keys().map(ToString::to_string).collect()
            }
            Feed::Records(Kind::Ip) => self.member.addresses.keys().map(key_of_block).collect(),
            Feed::Records(Kind::EndpointSlices | Kind::ServiceExports) => Vec::new(),
            Feed::LocalServices => self.local_services.keys().map(ToString::to_string).collect(),
        }
    }
}

/// What is taken of a record, and why that is not all of it.
fn taken<T>(judgement: Judgement<T>, whole: T) -> (Option<T>, Option<Denied>) {
    match judgement {
        Judgement::Whole => (Some(whole), None),
        Judgement::Part(part, denied) => (Some(part), Some(denied)),
        Judgement::Nothing(denied) => (None, Some(denied)),
    }
}

/// How many refused records of a kind are all named in the log.
const NAMED: u64 = 32;

#[cfg(test)]
mod tests;
