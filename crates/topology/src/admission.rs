//! Whether a record of a peer is taken: its addresses against what the peer's passport covers, its namespace and name
//! against the import grant. Pure.
//!
//! | record | addresses | grant |
//! |---|---|---|
//! | service | backends outside are left out | namespace and name |
//! | node | addresses and pod blocks outside are left out | |
//! | identity | | the label `k8s:io.kubernetes.pod.namespace` |
//! | `ip` | the block; a host outside is left out | the pod's namespace, unless the identity is a reserved one |
//!
//! Names of clusters, ids and ranges of identities are held against the record's [`Origin`](crate::record::Origin) when it
//! is read.

use std::sync::Arc;

use ipnet::IpNet;

use crate::ServiceName;
use crate::address_space::AddressSpace;
use crate::import_grant::ImportGrant;
use crate::labels::{Labels, NAMESPACE_LABEL};
use crate::record::Kind;
use crate::record::ip::IpEntry;
use crate::record::node::Node;
use crate::record::service::RemoteService;
use crate::snapshot::Member;

/// What is taken of a peer. The default takes everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// The addresses that it may have; `None` is any.
    pub space: Option<AddressSpace>,
    /// What it may offer.
    pub grant: ImportGrant,
}

/// The verdict on one record.
#[derive(Clone, Debug, PartialEq)]
pub enum Judgement<T> {
    /// It is taken as it is.
    Whole,
    /// This much of it is taken.
    Part(T, Denied),
    /// It is not taken.
    Nothing(Denied),
}

/// Why a record is not taken, or not all of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// A service that the peer may not offer.
    #[error("service {0} is not in the peer's import grant")]
    Service(ServiceName),
    /// An identity that the peer may not have.
    #[error("identities of {} are not in the peer's import grant", named(namespace.as_deref()))]
    Identity {
        /// Its namespace, if it has one.
        namespace: Option<String>,
    },
    /// Addresses that are not the peer's.
    #[error("{member}: {first}{}, expected addresses in {space}", more(*beyond))]
    Addresses {
        /// The member of the record, by its wire name.
        member: &'static str,
        /// The first address or block.
        first: String,
        /// How many there are beyond it.
        beyond: usize,
        /// The peer's addresses, in words.
        space: String,
    },
}

/// Holds a record that is no longer taken: its kind, the last part of its key, and why.
pub type Dropped = (Kind, String, Denied);

impl Denied {
    /// Whether the operator wants it so, rather than that the peer does what it must not.
    pub fn is_by_grant(&self) -> bool {
        matches!(self, Self::Service(_) | Self::Identity { .. })
    }

    fn identity_in(namespace: Option<&str>) -> Self {
        Self::Identity { namespace: namespace.map(str::to_owned) }
    }
}

impl Admission {
    /// The verdict on a service. O(patterns + backends × log blocks).
    pub fn service(&self, service: &RemoteService) -> Judgement<RemoteService> {
        if !self.grant.admits_service(&service.name) {
            return Judgement::Nothing(Denied::Service(service.name.clone()));
        }
        let addresses = service.backends.iter().map(|backend| backend.address);
        let Some(denied) = self.outside("backends", addresses.map(IpNet::from)) else {
            return Judgement::Whole;
        };
        let mut part = service.clone();
        part.backends.retain(|backend| self.covers(backend.address.into()));
        Judgement::Part(part, denied)
    }

    /// The verdict on a node. O(addresses × log blocks).
    pub fn node(&self, node: &Node) -> Judgement<Node> {
        let addresses = node.addresses.iter().copied().map(IpNet::from);
        let denied = self
            .outside("IPAddresses", addresses)
            .or_else(|| self.outside("IPv4AllocCIDR, IPv6AllocCIDR", node.pod_blocks.iter().copied()));
        let Some(denied) = denied else { return Judgement::Whole };
        let mut part = node.clone();
        part.addresses.retain(|address| self.covers((*address).into()));
        part.pod_blocks.retain(|block| self.covers(*block));
        Judgement::Part(part, denied)
    }

    /// The verdict on an address with its identity. O(patterns + log blocks).
    pub fn address(&self, entry: &IpEntry) -> Judgement<IpEntry> {
        let namespace = entry.pod.as_ref().map(|(namespace, _)| namespace.as_str());
        if !entry.identity.is_reserved() && !self.grant.admits_identity_in(namespace) {
            return Judgement::Nothing(Denied::identity_in(namespace));
        }
        if let Some(denied) = self.outside("IP", std::iter::once(entry.block)) {
            return Judgement::Nothing(denied);
        }
        match self.outside("HostIP", entry.host.into_iter().map(IpNet::from)) {
            Some(denied) => Judgement::Part(IpEntry { host: None, ..entry.clone() }, denied),
            None => Judgement::Whole,
        }
    }

    /// The verdict on an identity. O(patterns).
    pub fn identity(&self, labels: &Labels) -> Judgement<Labels> {
        let label = labels.get(NAMESPACE_LABEL).filter(|label| label.source == "k8s");
        let namespace = label.map(|label| label.value.as_str());
        match self.grant.admits_identity_in(namespace) {
            true => Judgement::Whole,
            false => Judgement::Nothing(Denied::identity_in(namespace)),
        }
    }

    /// What is left of a cluster's records, and what is not; `None` if all of them are taken as they are. O(records).
    pub fn narrow(&self, member: &Member) -> Option<(Member, Vec<Dropped>)> {
        if *self == Self::default() {
            return None;
        }
        let mut narrowed = member.clone();
        let mut dropped: Vec<Dropped> = Vec::new();
        for (name, service) in &member.services {
            let part = left(self.service(service), Kind::Services, || name.to_string(), &mut dropped);
            apply(&mut narrowed.services, name, part);
        }
        for (name, node) in &member.nodes {
            let part = left(self.node(node), Kind::Nodes, || name.to_string(), &mut dropped);
            apply(&mut narrowed.nodes, name, part);
        }
        for (block, entry) in &member.addresses {
            let part = left(self.address(entry), Kind::Ip, || block.to_string(), &mut dropped);
            apply(&mut narrowed.addresses, block, part);
        }
        for (number, labels) in &member.identities {
            let part = left(self.identity(labels), Kind::Identities, || number.to_string(), &mut dropped);
            apply(&mut narrowed.identities, number, part);
        }
        (!dropped.is_empty()).then_some((narrowed, dropped))
    }

    fn covers(&self, block: IpNet) -> bool {
        self.space.as_ref().is_none_or(|space| space.contains_block(block))
    }

    /// What is said of blocks that are not the peer's, if there are any.
    fn outside(&self, member: &'static str, blocks: impl Iterator<Item = IpNet>) -> Option<Denied> {
        let space = self.space.as_ref()?;
        let mut outside = blocks.filter(|block| !self.covers(*block));
        let first = outside.next()?;
        let is_single = first.prefix_len() == first.max_prefix_len();
        let first = if is_single { first.addr().to_string() } else { first.to_string() };
        Some(Denied::Addresses { member, first, beyond: outside.count(), space: space.to_string() })
    }
}

/// What is to become of a record in a map: `None` is to stay.
type Left<T> = Option<Option<T>>;

fn left<T>(
    judgement: Judgement<T>,
    kind: Kind,
    key: impl FnOnce() -> String,
    dropped: &mut Vec<Dropped>,
) -> Left<T> {
    let (part, denied) = match judgement {
        Judgement::Whole => return None,
        Judgement::Part(part, denied) => (Some(part), denied),
        Judgement::Nothing(denied) => (None, denied),
    };
    dropped.push((kind, key(), denied));
    Some(part)
}

fn apply<K: Ord + Clone, T>(map: &mut imbl::OrdMap<K, Arc<T>>, key: &K, part: Left<T>) {
    match part {
        None => {}
        Some(Some(part)) => drop(map.insert(key.clone(), Arc::new(part))),
        Some(None) => drop(map.remove(key)),
    }
}

fn named(namespace: Option<&str>) -> String {
    namespace.map_or_else(|| "no namespace".to_owned(), |name| format!("namespace {name}"))
}

fn more(beyond: usize) -> String {
    if beyond == 0 { String::new() } else { format!(" and {beyond} more") }
}

#[cfg(test)]
mod tests;
