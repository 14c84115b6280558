//! The own cluster, as far as records depend on it.

use topology::cluster::MaxClusters;
use topology::{ClusterId, ClusterName};

/// What the hub knows about its cluster from its command line.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Its name.
    pub name: ClusterName,
    /// Its id.
    pub id: ClusterId,
    /// How identities are numbered in this mesh.
    pub max: MaxClusters,
    /// Whether a namespace takes part that does not say
    /// (stock `--clustermesh-default-global-namespace`, true).
    pub global_namespaces: bool,
}

#[cfg(test)]
impl Cluster {
    /// A cluster named north, with id 9, for tests.
    pub fn north() -> Self {
        Self {
            name: "north".parse().expect("a name"),
            id: ClusterId::try_from(9).expect("an id"),
            max: MaxClusters::N255,
            global_namespaces: true,
        }
    }
}
