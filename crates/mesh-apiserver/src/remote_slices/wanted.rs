//! Which endpoints a service is to have of each other cluster. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use topology::record::Protocol;
use topology::record::local::{Affinity, LocalService};
use topology::record::service::RemoteBackend;
use topology::selection::{self, Frontend};
use topology::snapshot::{Member, Snapshot};
use topology::{ClusterName, NodeName};

use super::Profile;
use super::own::GlobalService;
use crate::export::annotation::{asks_for_slices, is_global_by_main_name};
use crate::export::service::is_headless;
use crate::finding::{Finding, Reason};

/// The peers, and what each has told; `None` for one that has not told everything yet.
pub type Peers = BTreeMap<ClusterName, Option<Arc<Member>>>;

/// An IP version, which is a slice's type of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the words say it")]
pub enum Family {
    V4,
    V6,
}

/// The ports of a slice, by name.
pub type Ports = BTreeMap<String, (Protocol, u16)>;

/// What slices have in common: whose backends they hold, of which family, at which ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    /// The cluster whose backends they are.
    pub cluster: ClusterName,
    /// Their family.
    pub family: Family,
    /// Their ports.
    pub ports: Ports,
}

/// One endpoint, at the ports of its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The name of its own, if it has one.
    pub hostname: Option<String>,
    /// Its zone, if that is known.
    pub zone: Option<String>,
}

/// The endpoints of each group, by address.
pub type Wanted = BTreeMap<Group, BTreeMap<IpAddr, Endpoint>>;

impl Family {
    /// The families.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// As Kubernetes has it: `addressType` of slices, `ipFamilies` of services.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    fn any(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Self::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }
}

/// Whether a service is to have slices of other clusters' backends.
pub fn is_mirrored(profile: Profile, service: &GlobalService) -> bool {
    let asks = asks_for_slices(&service.object);
    match profile {
        Profile::Agents => {
            is_global_by_main_name(&service.object) && asks.unwrap_or_else(|| is_headless(&service.object))
        }
        Profile::Agentless => asks.unwrap_or(true),
    }
}

/// The endpoints that a service is to have of each peer that has told its services. O(ports × backends).
pub fn wanted(
    profile: Profile,
    service: &GlobalService,
    peers: &Peers,
    findings: &mut Vec<Finding>,
) -> Wanted {
    let local = &service.local;
    let object = format!("Service {}", local.name);
    let members: Vec<&Arc<Member>> = peers.values().flatten().collect();
    let selected = (profile == Profile::Agentless && !is_headless(&service.object))
        .then(|| Selected::of(local, &members));
    if selected.is_some() && local.affinity == Affinity::Remote && !local.backends.is_empty() {
        findings.push(
            Finding::info(Reason::AffinityNotKept, &object)
                .found("affinity is remote, and the service has backends of its own")
                .expected("an agent on each node, or no backends of its own")
                .so("kube-proxy uses its own backends as well"),
        );
    }
    let families = families(service);
    let mut wanted = Wanted::new();
    for member in members {
        let Some(remote) = member.services.get(&local.name) else { continue };
        // An address can have one port of a name in a slice; others go to further slices.
        let mut layers: BTreeMap<IpAddr, Vec<Ports>> = BTreeMap::new();
        let mut endpoints: BTreeMap<IpAddr, Endpoint> = BTreeMap::new();
        for backend in remote.backends.iter().filter(|b| families.contains(&Family::of(b.address))) {
            if !is_endpoint(backend.address) {
                findings.push(
                    Finding::warning(Reason::AddressInvalid, &object)
                        .found(format_args!("cluster {} offers {}", member.name, backend.address))
                        .expected("an address that is reached from other machines")
                        .so("in no slice"),
                );
                continue;
            }
            if !endpoints.contains_key(&backend.address) && endpoints.len() >= MAX_ENDPOINTS {
                continue;
            }
            for (at, name) in names(local, backend) {
                if selected.as_ref().is_some_and(|selected| !selected.has(at, &member.name, backend)) {
                    continue;
                }
                let layers = layers.entry(backend.address).or_default();
                let layer = match layers.iter_mut().find(|layer| !layer.contains_key(&name)) {
                    Some(layer) => layer,
                    None => {
                        layers.push(Ports::new());
                        layers.last_mut().expect("one was added")
                    }
                };
                layer.insert(name, (backend.protocol, backend.port));
                endpoints.entry(backend.address).or_insert_with(|| endpoint(backend));
            }
        }
        if endpoints.len() >= MAX_ENDPOINTS {
            findings.push(
                Finding::warning(Reason::SlicesNotWritten, &object)
                    .found(format_args!("cluster {} offers {MAX_ENDPOINTS} backends or more", member.name))
                    .expected("fewer")
                    .so(format_args!("the first {MAX_ENDPOINTS} are in slices")),
            );
        }
        for (address, ports) in
            layers.into_iter().flat_map(|(a, layers)| layers.into_iter().map(move |l| (a, l)))
        {
            let group = Group { cluster: member.name.clone(), family: Family::of(address), ports };
            if let Some(endpoint) = endpoints.get(&address) {
                wanted.entry(group).or_default().insert(address, endpoint.clone());
            }
        }
    }
    wanted
}

/// The families that a service has: those that it is restricted to, else its own.
fn families(service: &GlobalService) -> BTreeSet<Family> {
    let read = |text: &str| Family::ALL.into_iter().find(|family| family.as_str() == text);
    let annotations = service.object.metadata.annotations.as_ref();
    let restricted = annotations.and_then(|map| map.get(SUPPORTED_FAMILIES)).and_then(|text| {
        let families: Option<BTreeSet<Family>> = text.split(',').map(|word| read(word.trim())).collect();
        families.filter(|families| !families.is_empty())
    });
    let of_spec = || -> BTreeSet<Family> {
        let spec = service.object.spec.as_ref();
        let families = spec.into_iter().flat_map(|spec| spec.ip_families.iter().flatten());
        families.filter_map(|text| read(text)).collect()
    };
    let of_addresses =
        || -> BTreeSet<Family> { service.local.cluster_ips.iter().map(|ip| Family::of(*ip)).collect() };
    let found = [restricted.unwrap_or_default(), of_spec(), of_addresses()];
    found.into_iter().find(|families| !families.is_empty()).unwrap_or_else(|| Family::ALL.into())
}

/// The names that a backend's port has in a slice, with which of the service's ports it is. Those are what readers of
/// slices look for; a service without ports has those of the backend.
fn names(local: &LocalService, backend: &RemoteBackend) -> Vec<(usize, String)> {
    if local.ports.is_empty() {
        let named = backend.port_names.iter().filter(|name| is_label(name)).cloned();
        let mut names: Vec<String> = named.collect();
        if names.is_empty() {
            names.push(String::new());
        }
        return names.into_iter().map(|name| (0, name)).collect();
    }
    let ports = local.ports.iter().enumerate().filter(|(_, port)| {
        port.protocol == backend.protocol && selection::port_matches(&port.name, &backend.port_names)
    });
    ports.map(|(at, port)| (at, port.name.clone())).collect()
}

/// The backends that affinity admits, for each port of the service and each family.
struct Selected(BTreeSet<(usize, ClusterName, IpAddr, u16)>);

impl Selected {
    fn of(local: &LocalService, members: &[&Arc<Member>]) -> Self {
        let own = Arc::new(Member::unknown("own".parse().expect("a sound name")));
        let node: NodeName = "none".parse().expect("a sound name");
        let peers = members.iter().map(|member| (member.name.clone(), Arc::clone(member))).collect();
        let (services, health) = Default::default();
        let snapshot = Snapshot { node, own, services, peers, health };
        let mut admitted = BTreeSet::new();
        for (at, port) in local.ports.iter().enumerate() {
            for family in Family::ALL {
                let frontend = Frontend { address: family.any(), port };
                let candidates = selection::candidates(&snapshot, local, frontend);
                let reasons = selection::select(local.affinity, &candidates);
                for (candidate, reason) in candidates.into_iter().zip(reasons) {
                    if let (Some(cluster), true) = (candidate.cluster, reason.is_in()) {
                        admitted.insert((at, cluster, candidate.address, candidate.port));
                    }
                }
            }
        }
        Self(admitted)
    }

    fn has(&self, port: usize, cluster: &ClusterName, backend: &RemoteBackend) -> bool {
        self.0.contains(&(port, cluster.clone(), backend.address, backend.port))
    }
}

fn endpoint(backend: &RemoteBackend) -> Endpoint {
    let is_zone = |zone: &&String| {
        let sound = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let ends = [zone.bytes().next(), zone.bytes().last()];
        zone.len() <= 63
            && zone.bytes().all(sound)
            && ends.into_iter().flatten().all(|b| b.is_ascii_alphanumeric())
    };
    Endpoint {
        hostname: backend.hostname.as_ref().filter(|name| is_label(name)).cloned(),
        zone: backend.zone.as_ref().filter(is_zone).cloned(),
    }
}

/// Whether an API server takes an address as an endpoint (Kubernetes `pkg/apis/core/validation`,
/// `ValidateNonSpecialIP`): for one that it does not, it refuses a whole slice.
fn is_endpoint(address: IpAddr) -> bool {
    let special = match address {
        IpAddr::V4(address) => address.is_link_local() || address.octets()[..3] == [224, 0, 0],
        IpAddr::V6(address) => {
            let first = address.segments()[0];
            first & 0xffc0 == 0xfe80 || first & 0xff0f == 0xff02 || address.to_ipv4_mapped().is_some()
        }
    };
    !(special || address.is_unspecified() || address.is_loopback())
}

/// Whether a text is a DNS label (RFC 1123), as names of ports and of endpoints must be.
fn is_label(text: &str) -> bool {
    let sound = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(sound)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// The annotation that restricts the families of a service. Cilium `pkg/annotation/clustermesh.go`.
const SUPPORTED_FAMILIES: &str = "clustermesh.cilium.io/supported-ip-families";
/// Endpoints of one service and one cluster: a peer cannot fill the own API server.
const MAX_ENDPOINTS: usize = 20_000;

#[cfg(test)]
mod tests;
