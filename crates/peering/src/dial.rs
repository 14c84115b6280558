//! From a configuration to a channel: resolve, connect, mutual TLS, HTTP/2.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use pki::PeerIdentity;
use pki::client::{ConnectError, Connector, TlsStream};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tonic::transport::Channel;
use tower::service_fn;

use crate::config::{Endpoint, HubConfig};

/// Why no endpoint of a hub could be used.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// A name has no address.
    #[error("resolve {host}: no address; add it to cilium-host-aliases or to DNS")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        #[source]
        source: std::io::Error,
    },
    /// Nobody answered.
    #[error("connect to {address} ({endpoint})")]
    Connect {
        /// The address tried last.
        address: SocketAddr,
        /// Whose it is.
        endpoint: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The answer was not that of the hub that was meant.
    #[error("TLS with {endpoint}")]
    Tls {
        /// Who was dialled.
        endpoint: String,
        /// Why.
        #[source]
        source: ConnectError,
    },
    /// HTTP/2 could not be spoken.
    #[error("HTTP/2 with {endpoint}")]
    Http {
        /// Who was dialled.
        endpoint: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
}

/// How long one address may take to answer a connection attempt.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

impl DialError {
    /// True if somebody answered who is not the hub that was meant: trying again will not help by itself.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Tls { source: ConnectError::Certificate { .. } | ConnectError::Name { .. }, .. })
    }
}

/// Connects to the first endpoint that works; endpoints and their addresses are tried in random order.
///
/// The channel is one connection: when it breaks, calls fail, and the caller dials again.
pub async fn dial(
    config: &HubConfig,
    connector: &Connector,
) -> Result<(Channel, Arc<PeerIdentity>), DialError> {
    let mut last = None;
    for endpoint in shuffled(&config.endpoints) {
        match dial_endpoint(config, endpoint, connector).await {
            Ok(dialled) => return Ok(dialled),
            Err(error) => last = Some(error),
        }
    }
    Err(last.expect("a configuration has at least one endpoint"))
}

async fn dial_endpoint(
    config: &HubConfig,
    endpoint: &Endpoint,
    connector: &Connector,
) -> Result<(Channel, Arc<PeerIdentity>), DialError> {
    let tcp = connect(config, endpoint).await?;
    let (tls, identity) = connector
        .connect(&endpoint.host, tcp)
        .await
        .map_err(|source| DialError::Tls { endpoint: endpoint.to_string(), source })?;
    let channel =
        http2(tls).await.map_err(|source| DialError::Http { endpoint: endpoint.to_string(), source })?;
    Ok((channel, identity))
}

async fn connect(config: &HubConfig, endpoint: &Endpoint) -> Result<TcpStream, DialError> {
    let mut last = None;
    for address in addresses(config, endpoint).await? {
        let attempt = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
        let attempt = attempt.unwrap_or_else(|_elapsed| Err(std::io::ErrorKind::TimedOut.into()));
        match attempt.and_then(|tcp| tcp.set_nodelay(true).map(|()| tcp)) {
            Ok(tcp) => return Ok(tcp),
            Err(source) => last = Some((address, source)),
        }
    }
    Err(match last {
        Some((address, source)) => DialError::Connect { address, endpoint: endpoint.to_string(), source },
        None => {
            DialError::Resolve { host: endpoint.host.clone(), source: std::io::ErrorKind::NotFound.into() }
        }
    })
}

/// In the order of stock clients: host aliases, then the name itself if it is an address, then DNS
/// (Cilium `pkg/dial`).
async fn addresses(config: &HubConfig, endpoint: &Endpoint) -> Result<Vec<SocketAddr>, DialError> {
    if let Some(aliases) = config.aliases.get(&endpoint.host) {
        return Ok(shuffled(aliases).into_iter().map(|ip| SocketAddr::new(*ip, endpoint.port)).collect());
    }
    if let Ok(ip) = endpoint.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, endpoint.port)]);
    }
    let resolve = |source| DialError::Resolve { host: endpoint.host.clone(), source };
    let found = timeout(CONNECT_TIMEOUT, lookup_host((endpoint.host.as_str(), endpoint.port))).await;
    let found = found.unwrap_or_else(|_elapsed| Err(std::io::ErrorKind::TimedOut.into())).map_err(resolve)?;
    Ok(found.collect())
}

async fn http2(tls: TlsStream<TcpStream>) -> Result<Channel, tonic::transport::Error> {
    // The name is only for the request's authority; the connection is made already, and there is but one.
    let endpoint = tonic::transport::Endpoint::from_static("http://hub")
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(4 * WINDOW);
    let stream = Arc::new(Mutex::new(Some(TokioIo::new(tls))));
    let take = move |_: http::Uri| {
        let stream = Arc::clone(&stream);
        async move { stream.lock().await.take().ok_or_else(|| std::io::Error::other("the connection was lost")) }
    };
    endpoint.connect_with_connector(service_fn(take)).await
}

fn shuffled<T>(items: &[T]) -> Vec<&T> {
    let order = RandomState::new();
    let mut items: Vec<(u64, &T)> =
        items.iter().enumerate().map(|(n, item)| (order.hash_one(n), item)).collect();
    items.sort_unstable_by_key(|(key, _)| *key);
    items.into_iter().map(|(_, item)| item).collect()
}

/// Pings on an idle connection (stock clients: 15 s and 25 s; a shorter timeout tells a dead path sooner).
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
const WINDOW: u32 = 1 << 20;
