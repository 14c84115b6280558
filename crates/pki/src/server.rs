//! The accepting side: TLS 1.3, a client certificate is compulsory, sessions are never resumed.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;

pub use tokio_rustls::server::TlsStream;

use crate::files::{LiveCredentials, provider};
use crate::verifier::{PeerIdentity, PeerVerifier, Side};

/// Turns accepted connections into TLS streams whose peer is known.
#[derive(Clone, Debug)]
pub struct Acceptor {
    credentials: LiveCredentials,
    handshake_timeout: Duration,
}

/// Why a connection did not become one.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The peer took too long.
    #[error("TLS handshake not complete after {} ms", after.as_millis())]
    Timeout {
        /// The limit.
        after: Duration,
    },
    /// The peer's certificate is wrong; the text is the whole sentence, certificate named.
    #[error("{sentence}")]
    Certificate {
        /// What was presented and what is wrong with it.
        sentence: String,
    },
    /// The peer sent no certificate.
    #[error("client presented no certificate; expected a leaf and its passport under one of: {accepted}")]
    NoCertificate {
        /// The accepted authorities.
        accepted: String,
    },
    /// The peer speaks an older TLS.
    #[error("client offers no TLS 1.3, and nothing older is spoken")]
    OldTls,
    /// Another fault of the TLS protocol.
    #[error("TLS handshake")]
    Tls(#[source] rustls::Error),
    /// The connection broke, or the client left (many leave when they refuse *our* certificate).
    #[error("connection lost during the TLS handshake")]
    Io(#[source] io::Error),
}

impl Acceptor {
    /// Accepts with the credentials that are current when each connection begins.
    pub fn new(credentials: LiveCredentials) -> Self {
        Self { credentials, handshake_timeout: HANDSHAKE_TIMEOUT }
    }

    /// Replaces the limit of ten seconds for a handshake.
    #[must_use]
    pub fn with_handshake_timeout(self, handshake_timeout: Duration) -> Self {
        Self { handshake_timeout, ..self }
    }

    /// The credentials that it accepts with.
    pub fn credentials(&self) -> &LiveCredentials {
        &self.credentials
    }

    /// Completes the handshake of one connection; run it in a task of its own, or one slow peer stops all.
    ///
    /// The identity may be refused: then every call is to be answered with the reason, and no handler reached.
    pub async fn accept<S>(&self, io: S) -> Result<(TlsStream<S>, Arc<PeerIdentity>), AcceptError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let after = self.handshake_timeout;
        timeout(after, self.handshake(io)).await.map_err(|_elapsed| AcceptError::Timeout { after })?
    }

    async fn handshake<S>(&self, io: S) -> Result<(TlsStream<S>, Arc<PeerIdentity>), AcceptError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), io);
        let start = start.await.map_err(AcceptError::from_io)?;
        // Taken now, not when the listener was made: this is how new roots and leaves come into force.
        let credentials = self.credentials.current();
        let trust = Arc::clone(credentials.trust());
        let verifier = Arc::new(PeerVerifier::new(Arc::clone(&trust), Side::Clients, provider()));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(AcceptError::Tls)?
            .with_client_cert_verifier(Arc::clone(&verifier) as _)
            .with_cert_resolver(credentials.leaf());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // On a resumed session the verifier is not asked, so a peer once revoked would come back.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        let outcome = start.into_stream(Arc::new(config)).await;
        if let Some(sentence) = verifier.failure() {
            return Err(AcceptError::Certificate { sentence: sentence.to_owned() });
        }
        let stream = outcome.map_err(|error| match AcceptError::from_io(error) {
            AcceptError::Tls(rustls::Error::NoCertificatesPresented) => {
                AcceptError::NoCertificate { accepted: trust.subjects().join(", ") }
            }
            other => other,
        })?;
        let identity = verifier.identity().ok_or(AcceptError::Tls(rustls::Error::NoCertificatesPresented))?;
        Ok((stream, identity))
    }
}

impl AcceptError {
    fn from_io(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::PeerIncompatible(
                rustls::PeerIncompatible::SupportedVersionsExtensionRequired
                | rustls::PeerIncompatible::Tls12NotOfferedOrEnabled,
            )) => Self::OldTls,
            Some(tls) => Self::Tls(tls.clone()),
            None => Self::Io(error),
        }
    }
}

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
