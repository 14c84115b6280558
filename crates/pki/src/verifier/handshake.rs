//! The verifier as rustls calls it, one value a connection.

use std::cell::RefCell;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme};

use super::identity::{Expected, Outcome, PeerIdentity};
use super::judge::{Finding, judge};
use super::sentence;
use crate::certificate;
use crate::files::provider;
use crate::passport::Passport;
use crate::profile::{IssueError, LeafRole};
use crate::trust::Trust;

/// Verifies the peer of one connection and keeps the result.
#[derive(Debug)]
pub(crate) struct PeerVerifier {
    trust: Arc<Trust>,
    side: Side,
    provider: Arc<CryptoProvider>,
    result: OnceLock<Result<Arc<PeerIdentity>, String>>,
}

/// Whom the verifier looks at.
#[derive(Clone, Debug)]
pub(crate) enum Side {
    /// We are the server, the peer may be any client.
    Clients,
    /// We are the etcd behind a store, the peer is its hub; for holding what is issued against the rules.
    StoreClients,
    /// We are the client and dialled a server.
    Server(Expected),
}

/// Holds a leaf that was just issued against our own rules, with its passport as the only authority. Returns when it
/// ends. What other readers would refuse must never leave the house.
pub(crate) fn check_issued(
    passport: &Passport,
    leaf: &CertificateDer<'_>,
    role: LeafRole,
    now: SystemTime,
) -> Result<SystemTime, IssueError> {
    let unsound = |found: String| IssueError::Unsound { subject: certificate::describe(leaf), found };
    let trust = Trust::of_passport(passport).map_err(|error| unsound(error.to_string()))?;
    let side = match role {
        LeafRole::Hub => Side::Server(Expected::OwnHub),
        LeafRole::Etcd => Side::Server(Expected::Store),
        LeafRole::Store => Side::StoreClients,
        LeafRole::Remote | LeafRole::Local | LeafRole::Admin => Side::Clients,
    };
    let verifier = PeerVerifier::new(Arc::new(trust), side, provider());
    let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
    match verifier.outcome(leaf, &[], None, now) {
        Ok(Outcome::Accepted(accepted)) => Ok(accepted.expires),
        Ok(Outcome::Refused(refusal)) => Err(unsound(refusal.to_string())),
        Err((sentence, _)) => Err(unsound(sentence)),
    }
}

impl PeerVerifier {
    pub(crate) fn new(trust: Arc<Trust>, side: Side, provider: Arc<CryptoProvider>) -> Self {
        Self { trust, side, provider, result: OnceLock::new() }
    }

    /// The peer, once the handshake is complete; before, or if it failed, nothing.
    pub(crate) fn identity(&self) -> Option<Arc<PeerIdentity>> {
        self.result.get().and_then(|result| result.as_ref().ok()).map(Arc::clone)
    }

    /// What was wrong with the peer's certificate, in full, if that is why the handshake failed.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.result.get().and_then(|result| result.as_ref().err()).map(String::as_str)
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
        server_name: Option<&ServerName<'_>>,
        now: UnixTime,
    ) -> Result<Arc<PeerIdentity>, rustls::Error> {
        let subject = certificate::describe(leaf);
        let outcome = self.outcome(leaf, sent, server_name, now);
        let result = match outcome {
            Ok(outcome) => Ok(Arc::new(PeerIdentity { subject, outcome })),
            Err((sentence, alert)) => {
                let who = if matches!(self.side, Side::Server(_)) { "server" } else { "client" };
                Err((format!("{who} presented {subject}: {sentence}"), alert))
            }
        };
        let kept = result.as_ref().map(Arc::clone).map_err(|(sentence, _)| sentence.clone());
        // rustls asks once a connection; were it to ask again, the first answer stands and must be the same.
        if self.result.set(kept).is_err() {
            return Err(rustls::Error::General("a verifier serves one connection".to_owned()));
        }
        result.map_err(|(_, alert)| rustls::Error::InvalidCertificate(alert))
    }

    fn outcome(
        &self,
        leaf: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
        server_name: Option<&ServerName<'_>>,
        now: UnixTime,
    ) -> Result<Outcome, (String, CertificateError)> {
        let fail = |error: webpki::Error| {
            (sentence::sentence(&error, &self.trust, &self.side), sentence::alert(&error))
        };
        if sent.len() >= MAX_SENT {
            let sentence = format!("it sent {} certificates, expected at most {MAX_SENT}", sent.len() + 1);
            return Err((sentence, CertificateError::BadEncoding));
        }
        let end_entity = webpki::EndEntityCert::try_from(leaf).map_err(fail)?;
        let usage = match self.side {
            Side::Clients | Side::StoreClients => webpki::KeyUsage::client_auth(),
            Side::Server(_) => webpki::KeyUsage::server_auth(),
        };
        let moment = UNIX_EPOCH + Duration::from_secs(now.as_secs());
        let (accepted, finding) = (RefCell::new(None), RefCell::new(None));
        // Inside path building, so that a path which our rules refuse does not hide one that they accept.
        let accept =
            |path: &webpki::VerifiedPath<'_>| match judge(&self.trust, &self.side, path, leaf, moment) {
                Ok(found) => {
                    accepted.replace(Some(found));
                    Ok(())
                }
                Err(found) => {
                    finding.borrow_mut().get_or_insert(found);
                    Err(webpki::Error::UnknownIssuer)
                }
            };
        let algorithms = self.provider.signature_verification_algorithms.all;
        let anchors = self.trust.webpki();
        let verified =
            end_entity.verify_for_usage(algorithms, anchors, sent, now, usage, None, Some(&accept));
        if let Err(error) = verified {
            return match finding.take() {
                Some(Finding::Refused(refusal)) => self.refused(Outcome::Refused(refusal)),
                Some(Finding::Unsound { sentence, alert }) => Err((sentence, alert)),
                None => Err(fail(error)),
            };
        }
        if let Some(name) = server_name {
            end_entity.verify_is_valid_for_subject_name(name).map_err(fail)?;
        }
        match accepted.take() {
            Some(accepted) => Ok(Outcome::Accepted(accepted)),
            None => Err(fail(webpki::Error::UnknownIssuer)),
        }
    }

    /// A client learns the reason by an answer to its calls. A server has nothing to be answered: there the
    /// handshake ends.
    fn refused(&self, outcome: Outcome) -> Result<Outcome, (String, CertificateError)> {
        match (&self.side, &outcome) {
            (Side::Server(_), Outcome::Refused(refusal)) => {
                Err((refusal.to_string(), CertificateError::ApplicationVerificationFailure))
            }
            _ => Ok(outcome),
        }
    }

    fn signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }
}

impl ClientCertVerifier for PeerVerifier {
    /// Empty: with many roots every handshake would carry all their names, and clients that filter by them would
    /// send nothing.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, None, now).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, Some(server_name), now)
            .map(|_| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn only_tls13() -> rustls::Error {
    rustls::Error::General("only TLS 1.3 is spoken".to_owned())
}

/// With the leaf. A chain is a leaf and a passport; a cross-signed or rotated one has a few more.
const MAX_SENT: usize = 8;
