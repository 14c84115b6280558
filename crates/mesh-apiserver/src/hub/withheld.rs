//! Records that are neither changed nor deleted, because kinds of objects that they depend on have never been read.

use std::collections::BTreeSet;

use kvstore::{KeyRange, Snapshot};
use topology::ClusterName;
use topology::record::{Kind, key};

use crate::identity::allocator::ALLOCATIONS;
use crate::object::ObjectKind;

/// What is left as an earlier run published it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Withheld {
    kinds: BTreeSet<Kind>,
    prefixes: Vec<String>,
}

impl Withheld {
    /// What depends on these kinds of objects.
    pub(super) fn new(cluster: &ClusterName, missing: &BTreeSet<ObjectKind>) -> Self {
        let kinds: BTreeSet<Kind> = missing.iter().flat_map(|kind| records(*kind)).copied().collect();
        let mut prefixes: Vec<String> = kinds.iter().map(|kind| kind.state_prefix(cluster)).collect();
        if kinds.contains(&Kind::Services) {
            prefixes.push(key::LOCAL_SERVICES.to_owned());
        }
        if kinds.contains(&Kind::Identities) {
            prefixes.push(ALLOCATIONS.to_owned());
        }
        Self { kinds, prefixes }
    }

    /// Whether there is nothing to withhold.
    pub(super) fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// Whether a key is left as it is.
    pub(super) fn holds(&self, key: &[u8]) -> bool {
        self.prefixes.iter().any(|prefix| key.starts_with(prefix.as_bytes()))
    }

    /// The kinds of records that are complete.
    pub(super) fn complete(&self) -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().filter(|kind| !self.kinds.contains(kind))
    }

    /// What is left as it is, with its values.
    pub(super) fn kept(&self, snapshot: &Snapshot) -> Vec<(bytes::Bytes, bytes::Bytes)> {
        let ranges = self.prefixes.iter().map(|prefix| KeyRange::prefix(prefix.clone()));
        let mut kept = Vec::new();
        for range in ranges {
            kept.extend(snapshot.range(&range).map(|entry| (entry.key.clone(), entry.value.clone())));
        }
        kept
    }
}

/// The kinds of records that a kind of objects has a part in.
fn records(kind: ObjectKind) -> &'static [Kind] {
    match kind {
        // Whether a namespace takes part: without it, what is to be kept at home might be published.
        ObjectKind::Namespace => &Kind::ALL,
        ObjectKind::Node | ObjectKind::CiliumNode => &[Kind::Nodes],
        ObjectKind::CiliumIdentity => &[Kind::Identities],
        ObjectKind::CiliumEndpoint | ObjectKind::CiliumEndpointSlice => &[Kind::Ip],
        // Without them the store remembers.
        ObjectKind::MeshIdentity => &[],
        // Of policies nothing is published.
        ObjectKind::NetworkPolicy
        | ObjectKind::CiliumNetworkPolicy
        | ObjectKind::CiliumClusterwideNetworkPolicy => &[],
        ObjectKind::Service | ObjectKind::EndpointSlice => &[Kind::Services, Kind::EndpointSlices],
        ObjectKind::Pod => &[Kind::Identities, Kind::Ip],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_depends_on_a_kind_is_left_alone() {
        let cluster: ClusterName = "north".parse().expect("a name");
        let of = |kinds: &[ObjectKind]| Withheld::new(&cluster, &kinds.iter().copied().collect());
        let holds = |withheld: &Withheld, key: String| withheld.holds(key.as_bytes());
        let prefix = |kind: Kind| format!("{}x", kind.state_prefix(&cluster));
        let none = of(&[]);
        assert!(none.is_empty() && Kind::ALL.iter().all(|kind| !holds(&none, prefix(*kind))));
        let pods = of(&[ObjectKind::Pod]);
        assert!(holds(&pods, prefix(Kind::Ip)) && holds(&pods, prefix(Kind::Identities)));
        assert!(holds(&pods, format!("{ALLOCATIONS}256")));
        assert!(!holds(&pods, prefix(Kind::Services)) && !holds(&pods, prefix(Kind::Nodes)));
        let slices = of(&[ObjectKind::EndpointSlice]);
        assert!(
            holds(&slices, prefix(Kind::Services)) && holds(&slices, format!("{}a/b", key::LOCAL_SERVICES))
        );
        let namespaces = of(&[ObjectKind::Namespace]);
        assert!(Kind::ALL.iter().all(|kind| holds(&namespaces, prefix(*kind))));
        assert_eq!(namespaces.complete().count(), 0);
    }
}
