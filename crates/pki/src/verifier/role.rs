//! What a peer is: its common name, held against the passport and the URI.

use super::identity::{Expected, Role};
use super::refusal::Refusal;
use crate::certificate::printable;
use crate::passport::Passport;
use crate::profile::LeafRole;
use crate::spiffe::LeafUri;
use crate::trust::Trust;

/// A common name counts only under the right issuer: otherwise any member could mint `admin-<cluster>`.
pub(super) fn client_role(
    trust: &Trust,
    common_name: &str,
    uri: &LeafUri,
    passport: &Passport,
) -> Result<Role, Refusal> {
    let cluster = &passport.uri.cluster;
    let (role, named) =
        split(common_name).ok_or_else(|| Refusal::UnknownName { found: printable(common_name) })?;
    if named.is_some_and(|named| named != cluster.as_str()) {
        let named = printable(named.unwrap_or_default());
        return Err(Refusal::NamesAnother { named, passport: cluster.clone() });
    }
    let own = trust.own();
    let by_own_passport = own.is_some_and(|own| own.spki == passport.spki);
    if matches!(role, LeafRole::Local | LeafRole::Admin) && !by_own_passport {
        return Err(Refusal::NotOwn { common_name: printable(common_name), passport: cluster.clone() });
    }
    if let Some(own) = own.filter(|_| !by_own_passport) {
        not_ourselves(own, passport)?;
    }
    if role != uri.role {
        return Err(Refusal::RoleMismatch { common_name: printable(common_name), role: uri.role });
    }
    let (id, node) = (passport.uri.id, uri.node.clone());
    Ok(match role {
        LeafRole::Hub => Role::Hub { cluster: cluster.clone(), id, node },
        LeafRole::Remote => Role::Remote { peer: cluster.clone(), id, node },
        LeafRole::Local => Role::Local { node },
        LeafRole::Admin => Role::Admin { node },
        LeafRole::Etcd | LeafRole::Store => {
            return Err(Refusal::UnknownName { found: printable(common_name) });
        }
    })
}

pub(super) fn server_role(
    trust: &Trust,
    expected: &Expected,
    common_name: &str,
    uri: &LeafUri,
    passport: &Passport,
) -> Result<Role, Refusal> {
    let cluster = &passport.uri.cluster;
    match expected {
        Expected::OwnHub => {
            let own = trust.own().ok_or(Refusal::NoOwnPassport)?;
            if own.spki != passport.spki {
                return Err(Refusal::NotOwnHub { found: cluster.clone() });
            }
        }
        Expected::Peer(expected) if expected != cluster => {
            return Err(Refusal::WrongCluster { found: cluster.clone(), expected: expected.clone() });
        }
        Expected::Peer(_) => {
            if let Some(own) = trust.own().filter(|own| own.spki != passport.spki) {
                not_ourselves(own, passport)?;
            }
        }
        // Judged before.
        Expected::Unattested | Expected::Store => {}
    }
    if uri.role != LeafRole::Hub || common_name != LeafRole::Hub.common_name(cluster) {
        return Err(Refusal::RoleMismatch { common_name: printable(common_name), role: uri.role });
    }
    Ok(Role::Hub { cluster: cluster.clone(), id: passport.uri.id, node: uri.node.clone() })
}

/// A passport of another key must bear neither our name nor our id.
fn not_ourselves(own: &Passport, peer: &Passport) -> Result<(), Refusal> {
    if own.uri.cluster == peer.uri.cluster {
        return Err(Refusal::OwnName { name: peer.uri.cluster.clone() });
    }
    if own.uri.id == peer.uri.id {
        return Err(Refusal::OwnId { peer: peer.uri.cluster.clone(), id: peer.uri.id });
    }
    Ok(())
}

/// The role that a common name claims, and the cluster it names.
fn split(common_name: &str) -> Option<(LeafRole, Option<&str>)> {
    if common_name == HUB {
        return Some((LeafRole::Hub, None));
    }
    let (role, cluster) = common_name.split_once('-')?;
    let role: LeafRole = role.parse().ok()?;
    let is_client = matches!(role, LeafRole::Remote | LeafRole::Local | LeafRole::Admin);
    (is_client && !cluster.is_empty()).then_some((role, Some(cluster)))
}

const HUB: &str = "isthmus hub";

#[cfg(test)]
mod tests {
    use super::*;
    use topology::ClusterName;

    #[test]
    fn common_names_split() {
        assert_eq!(split("remote-eu-west-1"), Some((LeafRole::Remote, Some("eu-west-1"))));
        assert_eq!(split("isthmus hub"), Some((LeafRole::Hub, None)));
        let cluster: ClusterName = "paris".parse().expect("a name");
        assert_eq!(split(&LeafRole::Hub.common_name(&cluster)), Some((LeafRole::Hub, None)));
        for none in [
            "remote",
            "remote-",
            "root",
            "",
            "hub-paris",
            "Remote-paris",
            "isthmus hub ",
            "isthmus etcd",
            "isthmus store",
            "etcd-paris",
            "store-paris",
        ] {
            assert_eq!(split(none), None, "{none}");
        }
    }
}
