//! Whose records an etcd holds: one cluster's, and never those of Kubernetes itself.

use kvstore::{KeyRange, Store};

use crate::export::Cluster;

/// The key that says whose records these are: `<cluster>/<id>`. STABLE FORMAT. The first leader writes it.
pub const OWNER: &str = "isthmus/v1/hub/cluster";

/// An etcd that this hub must not write to: it would take away what is another's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOurs {
    /// It holds the records of another cluster.
    #[error(
        "etcd holds the records of cluster {found}, this is the hub of {expected}: each cluster needs an etcd of its own (if \
         the cluster was renamed, delete the key {OWNER})"
    )]
    Cluster {
        /// Name and id.
        found: String,
        /// Ours.
        expected: String,
    },
    /// It is the etcd of a Kubernetes API server.
    #[error(
        "etcd holds keys below /registry/: it belongs to a Kubernetes API server; give the hub an etcd of its own"
    )]
    Kubernetes,
}

/// Fails if what etcd holds is not this cluster's to write.
pub fn check_owner(mirror: &Store, cluster: &Cluster) -> Result<(), NotOurs> {
    let snapshot = mirror.snapshot();
    if snapshot.range(&KeyRange::prefix("/registry/")).next().is_some() {
        return Err(NotOurs::Kubernetes);
    }
    let expected = owner(cluster);
    match snapshot.get(OWNER.as_bytes()) {
        Some(entry) if entry.value != expected => {
            let found = String::from_utf8_lossy(&entry.value).chars().take(80).collect();
            Err(NotOurs::Cluster { found, expected })
        }
        _ => Ok(()),
    }
}

/// What the key of the owner says of a cluster.
pub(super) fn owner(cluster: &Cluster) -> String {
    format!("{}/{}", cluster.name, cluster.id)
}

#[cfg(test)]
mod tests {
    use kvstore::StoreOptions;
    use topology::cluster::{ClusterId, MaxClusters};

    use super::*;

    #[test]
    fn what_is_anothers_is_left_alone() {
        let cluster = Cluster {
            name: "paris".parse().expect("a name"),
            id: ClusterId::try_from(1).expect("an id"),
            max: MaxClusters::N255,
            global_namespaces: true,
        };
        let store = Store::in_memory(StoreOptions::default());
        assert_eq!(check_owner(&store, &cluster), Ok(()), "a new etcd is anybody's");
        store.put(OWNER, "paris/1").expect("put");
        assert_eq!(check_owner(&store, &cluster), Ok(()));
        for found in ["paris/2", "tokyo/1", ""] {
            store.put(OWNER, found).expect("put");
            let expected = NotOurs::Cluster { found: found.to_owned(), expected: "paris/1".to_owned() };
            assert_eq!(check_owner(&store, &cluster), Err(expected));
        }
        store.put("/registry/pods/default/a", "").expect("put");
        assert_eq!(check_owner(&store, &cluster), Err(NotOurs::Kubernetes));
    }
}
