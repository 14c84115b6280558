//! What is to be written for a service: the difference between the slices that it is to have and those that it has. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use topology::block::parse_address;
use topology::record::Protocol;
use topology::{ClusterName, ServiceName};

use super::layout::layout;
use super::own::GlobalService;
use super::wanted::{Endpoint, Family, Group, Peers, Ports, Wanted, is_mirrored, wanted};
use super::{Profile, SERVICE_NAME, SOURCE_CLUSTER, WRITTEN_BY};
use crate::export::service::{HEADLESS_LABEL, MANAGED_BY, MESH_CONTROLLER, is_headless};
use crate::finding::{Finding, Reason};

/// How slices are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Who balances.
    pub profile: Profile,
    /// Endpoints of a slice; at least one.
    pub per_slice: usize,
}

/// The slices of a service, by name.
pub type Slices = BTreeMap<String, Arc<EndpointSlice>>;

/// What is to be done for a service, in order: nothing is taken away before what replaces it is there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// What is to be written.
    pub writes: Vec<Write>,
    /// What is odd about it.
    pub findings: Vec<Finding>,
    /// Slices that this hub then has for the service.
    pub slices: usize,
    /// Endpoints in them.
    pub endpoints: usize,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// A new slice.
    Create(Box<EndpointSlice>),
    /// The slice as it is to be, with the revision that it has.
    Update(Box<EndpointSlice>),
    /// This slice is to go, if it still is this one.
    Delete {
        /// Its name.
        name: String,
        /// The object, by number.
        uid: Option<String>,
        /// Its revision.
        revision: Option<String>,
        /// The cluster whose backends it holds.
        cluster: Option<String>,
    },
}

impl Write {
    /// The slice's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Create(slice) | Self::Update(slice) => slice.metadata.name.as_deref().unwrap_or_default(),
            Self::Delete { name, .. } => name,
        }
    }

    /// The cluster whose backends the slice holds.
    pub fn cluster(&self) -> Option<&str> {
        match self {
            Self::Create(slice) | Self::Update(slice) => label(slice, SOURCE_CLUSTER),
            Self::Delete { cluster, .. } => cluster.as_deref(),
        }
    }

    /// The word for it.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Update(_) => "update",
            Self::Delete { .. } => "delete",
        }
    }
}

impl Plan {
    /// The plan for a service that has the slices `there`. `taken` are names that other objects have. O(slices + backends).
    pub fn new(
        settings: Settings,
        name: &ServiceName,
        service: Option<&GlobalService>,
        there: &Slices,
        peers: &Peers,
        taken: &BTreeSet<String>,
    ) -> Self {
        let mut plan = Self::default();
        let (ours, foreign): (Vec<_>, Vec<_>) = there.iter().partition(|(_, slice)| is_ours(slice));
        let mut service = service.filter(|service| is_mirrored(settings.profile, service));
        if let Some((other, _)) = foreign.first().filter(|_| service.is_some()) {
            plan.findings.push(
                Finding::warning(Reason::SlicesForeign, format_args!("Service {name}"))
                    .found(format_args!(
                        "another controller writes slices of other clusters' backends: {other}"
                    ))
                    .expected("one that does; Cilium's operator does with --clustermesh-enable-endpoint-sync")
                    .so("this hub writes none for the service"),
            );
            service = None;
        }
        let wanted = match service {
            Some(service) => wanted(settings.profile, service, peers, &mut plan.findings),
            None => Wanted::new(),
        };
        let mut groups: BTreeMap<Group, BTreeMap<String, BTreeSet<IpAddr>>> =
            wanted.keys().map(|group| (group.clone(), BTreeMap::new())).collect();
        let mut deletes = Vec::new();
        for (slice_name, slice) in ours {
            let cluster = label(slice, SOURCE_CLUSTER).and_then(|text| text.parse::<ClusterName>().ok());
            let peer = cluster.as_ref().and_then(|cluster| peers.get(cluster));
            match (service, peer, cluster.and_then(|cluster| group_of(cluster, slice))) {
                // It has not told what it offers: what is there stays.
                (Some(_), Some(None), _) => plan.count(slice.endpoints.as_ref().map_or(0, Vec::len)),
                (Some(_), Some(Some(_)), Some(group)) => {
                    groups.entry(group).or_default().insert(slice_name.clone(), addresses(slice));
                }
                _ => deletes.push(delete(slice_name, slice)),
            }
        }
        let mut used: BTreeSet<String> = there.keys().chain(taken).cloned().collect();
        let none = BTreeMap::new();
        for (group, slices) in groups {
            let endpoints = wanted.get(&group).unwrap_or(&none);
            let addresses: BTreeSet<IpAddr> = endpoints.keys().copied().collect();
            for filled in layout(&slices, &addresses, settings.per_slice) {
                let existing = filled.slice.as_ref().and_then(|name| there.get(name));
                let (Some(service), false) = (service, filled.addresses.is_empty()) else {
                    deletes
                        .extend(filled.slice.iter().zip(existing).map(|(name, slice)| delete(name, slice)));
                    continue;
                };
                plan.count(filled.addresses.len());
                let slice_name = filled.slice.unwrap_or_else(|| new_name(name, &group.cluster, &mut used));
                let held = filled.addresses.iter().filter_map(|a| Some((*a, endpoints.get(a)?)));
                let mut slice = slice(service, &group, slice_name, held);
                match existing {
                    None => plan.writes.push(Write::Create(Box::new(slice))),
                    Some(existing) if is_as_wanted(existing, &slice) => {}
                    Some(existing) => {
                        slice.metadata.resource_version = existing.metadata.resource_version.clone();
                        plan.writes.push(Write::Update(Box::new(slice)));
                    }
                }
            }
        }
        plan.writes.append(&mut deletes);
        plan
    }

    fn count(&mut self, endpoints: usize) {
        self.slices += 1;
        self.endpoints += endpoints;
    }
}

/// Whether this hub writes a slice.
pub fn is_ours(slice: &EndpointSlice) -> bool {
    label(slice, WRITTEN_BY.0) == Some(WRITTEN_BY.1) && label(slice, MANAGED_BY) == Some(MESH_CONTROLLER)
}

fn label<'a>(slice: &'a EndpointSlice, name: &str) -> Option<&'a str> {
    slice.metadata.labels.as_ref()?.get(name).map(String::as_str)
}

fn delete(name: &str, slice: &EndpointSlice) -> Write {
    let ObjectMeta { uid, resource_version, .. } = slice.metadata.clone();
    let cluster = label(slice, SOURCE_CLUSTER).map(str::to_owned);
    Write::Delete { name: name.to_owned(), uid, revision: resource_version, cluster }
}

/// The group that a slice belongs to; `None` for one that was changed by others so that it is of no use.
fn group_of(cluster: ClusterName, slice: &EndpointSlice) -> Option<Group> {
    let family = Family::ALL.into_iter().find(|family| family.as_str() == slice.address_type)?;
    let mut ports = Ports::new();
    for port in slice.ports.iter().flatten() {
        let protocol = Protocol::from_kubernetes(port.protocol.as_deref().unwrap_or("TCP"))?;
        let number = port.port.and_then(|number| u16::try_from(number).ok())?;
        ports.insert(port.name.clone().unwrap_or_default(), (protocol, number));
    }
    Some(Group { cluster, family, ports })
}

fn addresses(slice: &EndpointSlice) -> BTreeSet<IpAddr> {
    let all = slice.endpoints.iter().flatten().flat_map(|endpoint| &endpoint.addresses);
    all.filter_map(|text| parse_address(text)).collect()
}

/// The slice as it is to be.
fn slice<'a>(
    service: &GlobalService,
    group: &Group,
    name: String,
    endpoints: impl Iterator<Item = (IpAddr, &'a Endpoint)>,
) -> EndpointSlice {
    let object = &service.object;
    let mut labels = object.metadata.labels.clone().unwrap_or_default();
    labels.retain(|name, _| name != HEADLESS_LABEL);
    let service_name = service.local.name.name();
    for (name, value) in [
        (SERVICE_NAME, service_name),
        (MANAGED_BY, MESH_CONTROLLER),
        (SOURCE_CLUSTER, group.cluster.as_str()),
        WRITTEN_BY,
    ] {
        labels.insert(name.to_owned(), value.to_owned());
    }
    if is_headless(object) {
        labels.insert(HEADLESS_LABEL.to_owned(), String::new());
    }
    let owner = object.metadata.uid.clone().map(|uid| OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Service".to_owned(),
        name: service_name.to_owned(),
        uid,
        controller: Some(true),
        block_owner_deletion: None,
    });
    let spec = object.spec.as_ref();
    // Where clients prefer their own zone, one endpoint without a hint would end that for all of the service.
    let hinted = spec
        .and_then(|spec| spec.traffic_distribution.as_deref())
        .is_some_and(|text| matches!(text, "PreferClose" | "PreferSameZone"));
    let endpoint = |(address, endpoint): (IpAddr, &Endpoint)| discovery::Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(discovery::EndpointConditions {
            ready: Some(true),
            serving: Some(true),
            terminating: Some(false),
        }),
        hostname: endpoint.hostname.clone(),
        // As stock. It is no node of this cluster, so policies that say `Local` do not use it.
        node_name: Some(group.cluster.to_string()),
        zone: endpoint.zone.clone(),
        hints: endpoint.zone.clone().filter(|_| hinted).map(|name| discovery::EndpointHints {
            for_zones: Some(vec![discovery::ForZone { name }]),
            ..discovery::EndpointHints::default()
        }),
        ..discovery::Endpoint::default()
    };
    let port = |(name, (protocol, number)): (&String, &(Protocol, u16))| discovery::EndpointPort {
        name: Some(name.clone()),
        protocol: Some(protocol.as_str().to_owned()),
        port: Some(i32::from(*number)),
        app_protocol: None,
    };
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(service.local.name.namespace().to_owned()),
            labels: Some(labels),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        address_type: group.family.as_str().to_owned(),
        endpoints: Some(endpoints.map(endpoint).collect()),
        ports: Some(group.ports.iter().map(port).collect()),
    }
}

/// Whether a slice needs no write. Labels that others added are theirs; the group is the same.
fn is_as_wanted(there: &EndpointSlice, wanted: &EndpointSlice) -> bool {
    let labels = |slice: &EndpointSlice| slice.metadata.labels.clone().unwrap_or_default();
    let owner = |slice: &EndpointSlice| {
        slice.metadata.owner_references.iter().flatten().map(|owner| owner.uid.clone()).collect::<Vec<_>>()
    };
    let endpoints = |slice: &EndpointSlice| {
        let mut endpoints = slice.endpoints.clone().unwrap_or_default();
        endpoints
            .sort_by_cached_key(|endpoint| endpoint.addresses.first().and_then(|text| parse_address(text)));
        endpoints
    };
    let has = labels(there);
    labels(wanted).iter().all(|(name, value)| has.get(name) == Some(value))
        && owner(there) == owner(wanted)
        && endpoints(there) == endpoints(wanted)
}

/// A name that no slice has: service, cluster and a hash, with which names of other pairs differ although the texts before it
/// may be equal. The same service gets the same names again.
fn new_name(service: &ServiceName, cluster: &ClusterName, used: &mut BTreeSet<String>) -> String {
    let mut prefix = format!("{}-{cluster}", service.name());
    prefix.truncate(prefix.floor_char_boundary(MAX_NAME - 14));
    let prefix = prefix.trim_end_matches(['-', '.']);
    for number in 0_u64.. {
        let name = format!("{prefix}-{}", hash(service.name(), cluster.as_str(), number));
        if used.insert(name.clone()) {
            return name;
        }
    }
    unreachable!("there are more numbers than slices")
}

/// FNV-1a of the parts, each with its length, as 13 characters that a name can hold.
fn hash(service: &str, cluster: &str, number: u64) -> String {
    let (lengths, number) =
        ([service.len() as u64, cluster.len() as u64].map(u64::to_be_bytes), number.to_be_bytes());
    let parts = [&lengths[0][..], service.as_bytes(), &lengths[1], cluster.as_bytes(), &number];
    let bytes = parts.into_iter().flatten();
    let sum = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let letter =
        |at: u32| char::from_digit(u32::try_from((sum >> (at * 5)) & 31).unwrap_or(0), 32).unwrap_or('0');
    (0..13).map(letter).collect()
}

/// The longest name of an endpoint slice.
const MAX_NAME: usize = 253;

#[cfg(test)]
mod tests;
