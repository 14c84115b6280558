//! Taking back what was signed: events of the ledger, and the deny list that is made from them.

use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use topology::ClusterName;

use super::event::Event;
use super::ledger::Ledger;
use super::lock::Lock;
use super::{Authority, AuthorityError};
use crate::certificate;
use crate::deny::{Denied, DenyList, MAX_DENIED, Target};
use crate::durable::{self, Access};
use crate::files::DENY_LISTS;
use crate::fingerprint::Fingerprint;
use crate::moment::Moment;
use crate::signed::{self, DocumentKind};
use crate::spiffe::{ClusterUri, LeafUri};

/// Holds what a revocation gave.
#[derive(Clone, Debug)]
pub struct Revoked {
    /// What is denied from now on.
    pub denied: Vec<Denied>,
    /// True if the cluster left: its name, id and addresses are free.
    pub left: bool,
    /// The number of the deny list that says so.
    pub list: u64,
    /// SHA-256 of the ledger's last line.
    pub ledger_head: Fingerprint,
}

/// What is to be revoked.
#[derive(Clone, Debug)]
pub enum Subject<'a> {
    /// All passports of a cluster that have not ended, and with them every leaf below.
    Cluster {
        /// The cluster.
        name: ClusterName,
        /// Whether its name, id and addresses become free, too. Peers that do not have the deny list yet would then
        /// accept both clusters.
        leave: bool,
    },
    /// One passport or leaf.
    Certificate {
        /// The certificate.
        der: &'a CertificateDer<'a>,
        /// False: whatever else its key has or gets a certificate for is denied, too.
        keep_key: bool,
    },
}

impl Authority {
    /// Revokes, writes the ledger, then the deny list into the authority's directory.
    ///
    /// Fails if the cluster or the certificate's cluster is not in the ledger, or nothing of it is still valid.
    pub fn revoke(&self, subject: &Subject<'_>, reason: &str) -> Result<Revoked, AuthorityError> {
        let _lock = Lock::take(&self.dir)?;
        let mut ledger = self.ledger()?;
        let now = SystemTime::now();
        let (at, reason) = (Moment::from(now), certificate::printable(reason));
        let make = |target, cluster, until| Denied { target, cluster, at, until, reason: reason.clone() };
        let mut events = Vec::new();
        let left = match subject {
            Subject::Cluster { name, leave } => {
                let present = ledger.of(name).is_some();
                let earlier = ledger.enrolments().iter().filter(|earlier| earlier.request.cluster == *name);
                if !present && earlier.clone().next().is_none() {
                    return Err(AuthorityError::unknown(name, &ledger));
                }
                let valid = earlier.filter(|earlier| {
                    !earlier.not_after.is_past(now) && ledger.revocation(earlier).is_none()
                });
                let denied = valid.map(|one| make(Target::Key(one.spki), name.clone(), one.not_after));
                events.extend(denied.map(Event::Revoke));
                let leaves = *leave && present;
                if leaves {
                    events.push(Event::Leave { at, cluster: name.clone() });
                }
                leaves
            }
            Subject::Certificate { der, keep_key } => {
                let (cluster, until, spki) = belongs(der, &ledger)?;
                let fingerprint = Fingerprint::of(der);
                let known = |denied: &&Denied| denied.target.names(spki, fingerprint);
                if !until.is_past(now) && !ledger.revocations().iter().any(|denied| known(&denied)) {
                    let target = if *keep_key { Target::Certificate(fingerprint) } else { Target::Key(spki) };
                    events.push(Event::Revoke(make(target, cluster, until)));
                }
                false
            }
        };
        if events.is_empty() {
            return Err(AuthorityError::NothingToRevoke);
        }
        let denied: Vec<Denied> = events.iter().filter_map(denied).cloned().collect();
        let found = self.list(&ledger, now).denied.len() + denied.len();
        if found > MAX_DENIED {
            return Err(AuthorityError::TooManyDenied { found });
        }
        ledger.append(events)?;
        let list = self.list(&ledger, now);
        self.write_list(&list)?;
        Ok(Revoked { denied, left, list: list.number, ledger_head: ledger.head() })
    }

    /// The deny list as the ledger gives it now, signed: one line without its newline. `None` if nothing was ever revoked.
    pub fn deny_list(&self) -> Result<Option<String>, AuthorityError> {
        let ledger = self.ledger()?;
        if ledger.revocations().is_empty() {
            return Ok(None);
        }
        self.sign(&self.list(&ledger, SystemTime::now())).map(Some)
    }

    fn list(&self, ledger: &Ledger, now: SystemTime) -> DenyList {
        let valid = ledger.revocations().iter().filter(|denied| !denied.until.is_past(now));
        DenyList {
            trust_domain: self.trust_domain.clone(),
            number: ledger.revocations().len() as u64,
            issued_at: now.into(),
            denied: valid.cloned().collect(),
        }
    }

    fn sign(&self, list: &DenyList) -> Result<String, AuthorityError> {
        let kind = DocumentKind::DenyList;
        signed::sign(&self.key, kind, list).ok_or(AuthorityError::Sign { kind })
    }

    fn write_list(&self, list: &DenyList) -> Result<(), AuthorityError> {
        let path = self.dir.join(DENY_LISTS);
        let line = format!("{}\n", self.sign(list)?);
        durable::write(&path, line.as_bytes(), Access::Everyone)
            .map_err(|source| AuthorityError::Write { path, source })
    }
}

fn denied(event: &Event) -> Option<&Denied> {
    match event {
        Event::Revoke(denied) => Some(denied),
        Event::Init { .. } | Event::Enrol(_) | Event::Leave { .. } => None,
    }
}

/// The cluster that a passport or leaf says it is of, when it ends, and its key. Whether it is genuine does not matter: an
/// entry for a forged one denies nothing that exists.
fn belongs(
    der: &CertificateDer<'_>,
    ledger: &Ledger,
) -> Result<(ClusterName, Moment, Fingerprint), AuthorityError> {
    let foreign = |found: String| AuthorityError::NotOurs { found };
    let x509 = certificate::parse(der).map_err(|error| foreign(error.to_string()))?;
    let names = certificate::alternative_names(&x509).map_err(|error| foreign(error.to_string()))?;
    let cluster = names.uris.iter().find_map(|uri| {
        let passport = uri.parse::<ClusterUri>().map(|uri| (uri.trust_domain, uri.cluster));
        passport.or_else(|_| uri.parse::<LeafUri>().map(|uri| (uri.trust_domain, uri.cluster))).ok()
    });
    let known = |(domain, cluster): &(_, ClusterName)| {
        domain == ledger.trust_domain()
            && ledger.enrolments().iter().any(|known| known.request.cluster == *cluster)
    };
    let (_, cluster) = cluster.filter(known).ok_or_else(|| foreign(certificate::describe(der)))?;
    let until = certificate::time(x509.validity().not_after).into();
    Ok((cluster, until, Fingerprint::of(x509.public_key().raw)))
}
