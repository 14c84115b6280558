//! Our own rules over a path that webpki has verified.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::CertificateError;
use rustls::pki_types::CertificateDer;
use webpki::VerifiedPath;
use x509_parser::certificate::X509Certificate;

use super::handshake::Side;
use super::identity::{Accepted, Expected, Refusal, Role};
use super::store::judge_store;
use crate::certificate::{self, Unreadable, printable, time_text};
use crate::passport::Passport;
use crate::profile::LeafRole;
use crate::spiffe::LeafUri;
use crate::trust::{Anchor, AnchorKind, Trust};

/// Why a path is not accepted.
#[derive(Clone, Debug)]
pub(super) enum Finding {
    /// Wrong as a certificate chain: the handshake fails.
    Unsound { sentence: String, alert: CertificateError },
    /// Sound, but against our rules: the handshake completes, the peer gets the reason.
    Refused(Refusal),
}

impl<T: Into<Refusal>> From<T> for Finding {
    fn from(refusal: T) -> Self {
        Self::Refused(refusal.into())
    }
}

/// Judges one candidate path. Everything is read from the path, never from the list that the peer sent.
pub(super) fn judge(
    trust: &Trust,
    side: &Side,
    path: &VerifiedPath<'_>,
    leaf: &CertificateDer<'_>,
    now: SystemTime,
) -> Result<Accepted, Finding> {
    let unknown =
        || unsound("the path ends in no accepted authority".to_owned(), CertificateError::UnknownIssuer);
    let anchor = trust.anchor(path.anchor()).ok_or_else(unknown)?;
    anchor_is_valid(anchor, now)?;
    let x509 = certificate::parse(leaf)?;
    leaf_usage(&x509, side)?;
    match side {
        Side::Server(Expected::Store) => return judge_store(LeafRole::Etcd, anchor, path, &x509),
        Side::StoreClients => return judge_store(LeafRole::Store, anchor, path, &x509),
        Side::Clients | Side::Server(_) => {}
    }
    let stock_server = matches!(side, Side::Server(Expected::Unattested));
    if stock_server || matches!(anchor.kind, AnchorKind::Unattested) {
        return unattested(side, anchor, &x509);
    }
    let passport = passport(anchor, path)?;
    let uri = leaf_names(&x509, &passport)?;
    let common_name = certificate::common_name(&x509).unwrap_or_default();
    let role = match side {
        Side::Clients | Side::StoreClients => client_role(trust, common_name, &uri, &passport)?,
        Side::Server(expected) => server_role(trust, expected, common_name, &uri, &passport)?,
    };
    let leaf_ends = certificate::time(x509.validity().not_after);
    let expires = leaf_ends.min(passport.not_after).min(anchor.not_after);
    Ok(Accepted { role, passport: Some(passport), expires, anchor: anchor.id() })
}

fn unsound(sentence: String, alert: CertificateError) -> Finding {
    Finding::Unsound { sentence, alert }
}

/// webpki takes an anchor as given; a root's own dates are ours to check.
fn anchor_is_valid(anchor: &Anchor, now: SystemTime) -> Result<(), Finding> {
    let Anchor { subject, not_before, not_after, .. } = anchor;
    if now > *not_after {
        let sentence = format!("the accepted root {subject} ended at {}", time_text(*not_after));
        return Err(unsound(sentence, CertificateError::Expired));
    }
    if now < *not_before {
        let sentence = format!("the accepted root {subject} starts at {}", time_text(*not_before));
        return Err(unsound(sentence, CertificateError::NotValidYet));
    }
    Ok(())
}

/// webpki looks at the extended key usage only if there is one, and never at the key usage.
fn leaf_usage(x509: &X509Certificate<'_>, side: &Side) -> Result<(), Finding> {
    let extended = x509.extended_key_usage().map_err(|_error| malformed("extended key usage"))?;
    let (wanted, present) = match side {
        Side::Clients | Side::StoreClients => {
            ("clientAuth", extended.as_ref().is_some_and(|usage| usage.value.client_auth))
        }
        Side::Server(_) => ("serverAuth", extended.as_ref().is_some_and(|usage| usage.value.server_auth)),
    };
    if !present {
        let found = if extended.is_some() { "another extended key usage" } else { "no extended key usage" };
        return Err(unsound(format!("it has {found}, expected {wanted}"), CertificateError::InvalidPurpose));
    }
    let usage = x509.key_usage().map_err(|_error| malformed("key usage"))?;
    if !usage.is_some_and(|usage| usage.value.digital_signature()) {
        let sentence = "it lacks the key usage digitalSignature".to_owned();
        return Err(unsound(sentence, CertificateError::InvalidPurpose));
    }
    Ok(())
}

fn malformed(extension: &'static str) -> Finding {
    let sentence = Unreadable::Extension { extension }.to_string();
    unsound(sentence, CertificateError::BadEncoding)
}

/// A stock peer: nothing proves its cluster. Clients may only be `remote`, or `remote-<cluster>` as newer charts say.
fn unattested(side: &Side, anchor: &Anchor, x509: &X509Certificate<'_>) -> Result<Accepted, Finding> {
    let common_name = certificate::common_name(x509).unwrap_or_default();
    let remote = common_name == "remote" || common_name.starts_with("remote-");
    if matches!(side, Side::Clients) && !remote {
        return Err(Refusal::UnknownName { found: printable(common_name) }.into());
    }
    let expires = certificate::time(x509.validity().not_after).min(anchor.not_after);
    let role = Role::Unattested { common_name: printable(common_name) };
    Ok(Accepted { role, passport: None, expires, anchor: anchor.id() })
}

/// The passport on the path: the one certificate between leaf and root, or the anchor itself.
pub(super) fn passport(anchor: &Anchor, path: &VerifiedPath<'_>) -> Result<Arc<Passport>, Finding> {
    let between = path.intermediate_certificates().count();
    let shape = || Refusal::Shape { between, anchor: anchor.subject.clone() };
    let mut intermediates = path.intermediate_certificates();
    match (&anchor.kind, intermediates.next(), intermediates.next()) {
        (AnchorKind::Passport(passport), None, _) => Ok(Arc::clone(passport)),
        (AnchorKind::Root(allowed), Some(certificate), None) => {
            let passport = Passport::read(&certificate.der())?;
            if !allowed.covers(&passport.blocks) {
                let (claimed, allowed) = (passport.blocks.to_string(), allowed.to_string());
                return Err(Refusal::BeyondRoot { claimed, allowed }.into());
            }
            Ok(Arc::new(passport))
        }
        (AnchorKind::Plain, Some(_), None) => {
            Err(Refusal::RootWithoutBlocks { root: anchor.subject.clone() }.into())
        }
        _ => Err(shape().into()),
    }
}

/// The leaf's names, held against the passport: webpki cannot compare URIs, and skips IP addresses where a passport
/// lists none.
pub(super) fn leaf_names(x509: &X509Certificate<'_>, passport: &Passport) -> Result<LeafUri, Finding> {
    let names = certificate::alternative_names(x509)?;
    if let Some(name) = names.dns.iter().find(|name| name.contains('*')) {
        return Err(Refusal::Wildcard { name: printable(name) }.into());
    }
    for bytes in names.addresses {
        let address = address(bytes);
        if !address.is_some_and(|address| passport.permits(address)) {
            let text =
                address.map_or_else(|| format!("of {} bytes", bytes.len()), |address| address.to_string());
            return Err(Refusal::Address { address: text }.into());
        }
    }
    let [uri] = names.uris[..] else { return Err(Refusal::Uris { found: names.uris.len() }.into()) };
    let uri: LeafUri = uri.parse()?;
    if (&uri.trust_domain, &uri.cluster) != (&passport.uri.trust_domain, &passport.uri.cluster) {
        let leaf = format!("{} in {}", uri.cluster, uri.trust_domain);
        let passport = format!("{} in {}", passport.uri.cluster, passport.uri.trust_domain);
        return Err(Refusal::UriOfAnother { leaf, passport }.into());
    }
    Ok(uri)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// A common name counts only under the right issuer: otherwise any member could mint `admin-<cluster>`.
fn client_role(
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

fn server_role(
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
