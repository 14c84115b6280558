//! What an authority signs for a cluster: its passport, or the addresses of a passport that another authority signed.

use std::collections::BTreeSet;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use topology::ClusterName;

use super::claim::{self, Conflict, Findings, Overlap};
use super::enrolment::EnrolRequest;
use super::event::{Enrolment, Event};
use super::ledger::Ledger;
use super::lock::Lock;
use super::{Authority, AuthorityError};
use crate::certificate;
use crate::fingerprint::Fingerprint;
use crate::key::SigningRequest;
use crate::passport::{NotAPassport, Passport};
use crate::profile::{PassportSpec, issue_passport};
use crate::spiffe::ClusterUri;

/// Holds what an enrolment gave.
#[derive(Clone, Debug)]
pub struct Enrolled {
    /// The passport.
    pub passport: Passport,
    /// The root that signed it.
    pub root: CertificateDer<'static>,
    /// True if the cluster was enrolled before and this replaces its passport.
    pub renewed: bool,
    /// Overlaps that are allowed, for the operator to know: equal service blocks are normal.
    pub notes: Vec<Overlap>,
    /// The block statement, if another authority signed the passport: one line without its newline.
    pub statement: Option<String>,
    /// SHA-256 of the ledger's line for it.
    pub ledger_head: Fingerprint,
}

/// Why addresses cannot be stated for another authority's passport.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAttestable {
    /// The certificate is no passport.
    #[error("the certificate cannot be a passport: {0}")]
    NotAPassport(#[from] NotAPassport),
    /// It is another cluster's.
    #[error("the certificate is for {found}, expected {expected}")]
    Uri {
        /// Its URI.
        found: String,
        /// What was asked for.
        expected: String,
    },
    /// It has ended.
    #[error("the certificate ended at {}", crate::certificate::time_text(*.at))]
    Ended {
        /// When.
        at: SystemTime,
    },
    /// Its leaves could carry more names than were asked for.
    #[error(
        "the certificate permits {names}, which the request does not list; list it (--hub-address), or have a certificate without it"
    )]
    Permits {
        /// The names or addresses.
        names: String,
    },
}

impl Authority {
    /// Signs a passport, unless the request collides with what another cluster has.
    ///
    /// A cluster that is enrolled with the same name and id gets a new passport, for which it must have a new key: of
    /// two passports of one key the holder could choose. The line in the ledger is on disk before this returns.
    /// Waits a few seconds if another process is enrolling.
    pub fn enroll(
        &self,
        request: &EnrolRequest,
        signing: &SigningRequest,
    ) -> Result<Enrolled, AuthorityError> {
        let request = request.canonical()?;
        let _lock = Lock::take(&self.dir)?;
        let mut ledger = self.ledger()?;
        let earlier = ledger.enrolments().iter().find(|earlier| earlier.spki == signing.spki());
        let notes = admit(&ledger, &request, earlier)?;
        let now = SystemTime::now();
        let passport = self.passport(&request, signing, now)?;
        let renewed = ledger.of(&request.cluster).is_some();
        ledger.append(vec![Event::Enrol(Enrolment::new(request, &passport, now.into(), false))])?;
        let (root, ledger_head) = (self.root.clone(), ledger.head());
        Ok(Enrolled { passport, root, renewed, notes, statement: None, ledger_head })
    }

    /// Signs a new passport for an enrolled cluster, for the name, id and addresses that it has.
    ///
    /// Fails if the cluster is not enrolled, or its passport was signed by another authority; else as [`Self::enroll`].
    pub fn renew(&self, cluster: &ClusterName, signing: &SigningRequest) -> Result<Enrolled, AuthorityError> {
        let ledger = self.ledger()?;
        let present = ledger.of(cluster).ok_or_else(|| AuthorityError::unknown(cluster, &ledger))?;
        if present.attested {
            return Err(AuthorityError::Attested { cluster: cluster.clone() });
        }
        self.enroll(&present.request, signing)
    }

    /// Signs the addresses of a passport that an organisation's own authority signed and could not write them into.
    ///
    /// The certificate must be a passport otherwise, in the mesh's trust domain, and permit no name beyond the request. The
    /// claim is checked and recorded as in [`Self::enroll`]; the same key may be stated for again.
    pub fn attest(
        &self,
        request: &EnrolRequest,
        der: &CertificateDer<'_>,
    ) -> Result<Enrolled, AuthorityError> {
        let request = request.canonical()?;
        let now = SystemTime::now();
        let passport = self.attestable(&request, der, now)?;
        let _lock = Lock::take(&self.dir)?;
        let mut ledger = self.ledger()?;
        let again = |earlier: &&Enrolment| earlier.attested && earlier.request.cluster == request.cluster;
        let earlier = ledger.enrolments().iter().find(|earlier| earlier.spki == passport.spki);
        let notes = admit(&ledger, &request, earlier.filter(|earlier| !again(earlier)))?;
        let renewed = ledger.of(&request.cluster).is_some();
        let enrolment = Enrolment::new(request, &passport, now.into(), true);
        let line = self.statement(&ledger, &enrolment)?;
        ledger.append(vec![Event::Enrol(enrolment)])?;
        let (root, ledger_head) = (self.root.clone(), ledger.head());
        Ok(Enrolled { passport, root, renewed, notes, statement: Some(line), ledger_head })
    }

    fn passport(
        &self,
        request: &EnrolRequest,
        signing: &SigningRequest,
        now: SystemTime,
    ) -> Result<Passport, AuthorityError> {
        let spec = PassportSpec {
            uri: self.uri(request),
            blocks: request.address_space(),
            dns_names: request.dns_names(),
            addresses: request.addresses(),
            life: self.passport_life,
        };
        let der = issue_passport(&self.root, &self.key, &spec, signing, now)?;
        Ok(Passport::read(&der)?)
    }

    fn attestable(
        &self,
        request: &EnrolRequest,
        der: &CertificateDer<'_>,
        now: SystemTime,
    ) -> Result<Passport, NotAttestable> {
        let passport = Passport::read_with_blocks(der, request.address_space())?;
        let expected = self.uri(request);
        if passport.uri != expected {
            let (found, expected) = (passport.uri.to_string(), expected.to_string());
            return Err(NotAttestable::Uri { found, expected });
        }
        if passport.not_after <= now {
            return Err(NotAttestable::Ended { at: passport.not_after });
        }
        let names: BTreeSet<String> = request.dns_names().into_iter().collect();
        let addresses: BTreeSet<_> = request.addresses().into_iter().collect();
        let unlisted = passport.listed_names().filter(|name| !names.contains(*name)).map(str::to_owned);
        let beyond = passport.addresses.iter().filter(|net| {
            let single = net.prefix_len() == net.max_prefix_len();
            !single || !(net.addr().is_loopback() || addresses.contains(&net.addr()))
        });
        let permits: Vec<String> = unlisted.chain(beyond.map(ToString::to_string)).collect();
        if permits.is_empty() {
            Ok(passport)
        } else {
            Err(NotAttestable::Permits { names: certificate::printable(&permits.join(", ")) })
        }
    }

    fn uri(&self, request: &EnrolRequest) -> ClusterUri {
        let (trust_domain, cluster) = (self.trust_domain.clone(), request.cluster.clone());
        ClusterUri { trust_domain, cluster, id: request.id }
    }
}

/// Holds a request against everybody else's. `same_key` is an enrolment that stands in the way by its key.
fn admit(
    ledger: &Ledger,
    request: &EnrolRequest,
    same_key: Option<&Enrolment>,
) -> Result<Vec<Overlap>, AuthorityError> {
    let present = ledger.current().map(|enrolment| &enrolment.request);
    let Findings { mut refusals, notes } = claim::compare_all(request, present);
    if let Some(earlier) = same_key {
        refusals.push(Conflict::Key { cluster: earlier.request.cluster.clone(), at: earlier.at });
    }
    if refusals.is_empty() { Ok(notes) } else { Err(AuthorityError::Refused { refusals }) }
}

impl From<NotAttestable> for AuthorityError {
    fn from(error: NotAttestable) -> Self {
        Self::NotAttestable(Box::new(error))
    }
}

impl AuthorityError {
    pub(super) fn unknown(cluster: &ClusterName, ledger: &Ledger) -> Self {
        let known: Vec<String> = ledger.current().map(|known| known.request.cluster.to_string()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Self::UnknownCluster { cluster: cluster.clone(), known }
    }
}
