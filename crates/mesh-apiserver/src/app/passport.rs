//! The own passport, at the start and at each reload.

use pki::Credentials;
use tracing::warn;

use crate::export::Cluster;

/// A hub with another cluster's certificate would be refused by everyone, would not know its own agents, and would take
/// that cluster's administrators for its own. Says what is wrong, at the start and at each reload.
pub(super) fn check_passport(cluster: &Cluster, credentials: &Credentials) -> Result<(), String> {
    match credentials.passport() {
        Some(passport) if passport.uri.cluster != cluster.name || passport.uri.id != cluster.id => {
            Err(format!(
                "the certificate's passport is that of cluster {} with id {}, expected cluster {} with id {}: \
             check --cluster-name, --cluster-id and --tls-dir",
                passport.uri.cluster, passport.uri.id, cluster.name, cluster.id
            ))
        }
        Some(_) => Ok(()),
        None => {
            warn!(
                certificate = credentials.subject(),
                "tls.crt holds no passport after the leaf: own agents and administrators cannot be told from others and \
                 are refused"
            );
            Ok(())
        }
    }
}
