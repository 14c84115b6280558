//! The dialling side: TLS 1.3, the server must be the hub that was meant, sessions are never resumed.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

pub use tokio_rustls::client::TlsStream;

use crate::files::{LiveCredentials, provider};
use crate::verifier::{Expected, PeerIdentity, PeerVerifier, Side};

/// Turns connections to one server into TLS streams whose peer is known.
#[derive(Clone, Debug)]
pub struct Connector {
    credentials: LiveCredentials,
    expected: Expected,
    handshake_timeout: Duration,
}

/// Why a connection did not become one.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name to connect to is none.
    #[error("server name {found:?}, expected a DNS name or an address")]
    Name {
        /// The name.
        found: String,
    },
    /// The server took too long.
    #[error("TLS handshake with {server} not complete after {} ms", after.as_millis())]
    Timeout {
        /// The name dialled.
        server: String,
        /// The limit.
        after: Duration,
    },
    /// The server's certificate is wrong, or not of the hub that was meant; the text is the whole sentence.
    #[error("{sentence}")]
    Certificate {
        /// What was presented and what is wrong with it.
        sentence: String,
    },
    /// Another fault of the TLS protocol.
    #[error("TLS handshake with {server}")]
    Tls {
        /// The name dialled.
        server: String,
        /// The cause.
        source: rustls::Error,
    },
    /// The connection broke.
    #[error("connection to {server} lost during the TLS handshake")]
    Io {
        /// The name dialled.
        server: String,
        /// The cause.
        source: io::Error,
    },
}

impl Connector {
    /// Connects with the credentials that are current when each connection begins.
    pub fn new(credentials: LiveCredentials, expected: Expected) -> Self {
        Self { credentials, expected, handshake_timeout: HANDSHAKE_TIMEOUT }
    }

    /// Replaces the limit of ten seconds for a handshake.
    #[must_use]
    pub fn with_handshake_timeout(self, handshake_timeout: Duration) -> Self {
        Self { handshake_timeout, ..self }
    }

    /// Completes the handshake of one connection to `server_name`, a DNS name or an address that the server's
    /// certificate must carry.
    ///
    /// The identity is always an accepted one. In TLS 1.3 the server judges our certificate afterwards: a refusal
    /// shows as an error of the first read.
    pub async fn connect<S>(
        &self,
        server_name: &str,
        io: S,
    ) -> Result<(TlsStream<S>, Arc<PeerIdentity>), ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(server_name.to_owned())
            .map_err(|_error| ConnectError::Name { found: server_name.to_owned() })?;
        let credentials = self.credentials.current();
        let side = Side::Server(self.expected.clone());
        let verifier = Arc::new(PeerVerifier::new(Arc::clone(credentials.trust()), side, provider()));
        let tls = |source| ConnectError::Tls { server: server_name.to_owned(), source };
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(tls)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as _)
            .with_client_cert_resolver(credentials.leaf());
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = Resumption::disabled();
        let after = self.handshake_timeout;
        let outcome = timeout(after, TlsConnector::from(Arc::new(config)).connect(name, io)).await;
        if let Some(sentence) = verifier.failure() {
            return Err(ConnectError::Certificate { sentence: sentence.to_owned() });
        }
        let stream = outcome
            .map_err(|_elapsed| ConnectError::Timeout { server: server_name.to_owned(), after })?
            .map_err(|error| {
                match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                    Some(source) => tls(source.clone()),
                    None => ConnectError::Io { server: server_name.to_owned(), source: error },
                }
            })?;
        let identity = verifier.identity().ok_or_else(|| tls(rustls::Error::NoCertificatesPresented))?;
        Ok((stream, identity))
    }
}

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
