//! From an endpoint of etcd to a channel: resolve, connect, mutual TLS, HTTP/2.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper_util::rt::TokioIo;
use kvstore::etcd::{Dial, DialError};
use pki::client::Connector;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tonic::transport::Channel;
use tower::service_fn;

use super::endpoint::Endpoint;

/// Dials the members of an etcd cluster.
#[derive(Debug)]
pub struct EtcdDial {
    endpoints: Vec<Endpoint>,
    connector: Option<Connector>,
}

impl EtcdDial {
    /// Endpoints with TLS need a connector.
    pub fn new(endpoints: Vec<Endpoint>, connector: Option<Connector>) -> Self {
        Self { endpoints, connector }
    }

    async fn connect(&self, endpoint: usize) -> Result<Channel, DialError> {
        let endpoint = self.endpoints.get(endpoint).ok_or("no such endpoint")?;
        let tcp = connect(endpoint).await?;
        if !endpoint.tls {
            return Ok(http2(tcp).await?);
        }
        let connector = self.connector.as_ref().ok_or("no certificates for TLS")?;
        let (tls, _identity) = connector.connect(&endpoint.host, tcp).await?;
        Ok(http2(tls).await?)
    }
}

impl Dial for EtcdDial {
    fn count(&self) -> usize {
        self.endpoints.len()
    }

    fn name(&self, endpoint: usize) -> String {
        self.endpoints.get(endpoint).map(ToString::to_string).unwrap_or_default()
    }

    fn dial(&self, endpoint: usize) -> BoxFuture<'_, Result<Channel, DialError>> {
        self.connect(endpoint).boxed()
    }
}

async fn connect(endpoint: &Endpoint) -> io::Result<TcpStream> {
    let found = timeout(ATTEMPT, lookup_host((endpoint.host.as_str(), endpoint.port))).await;
    let addresses: Vec<SocketAddr> = found.map_err(|_elapsed| io::ErrorKind::TimedOut)??.collect();
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{} has no address", endpoint.host));
    for address in addresses.into_iter().take(MOST_ADDRESSES) {
        let attempt = timeout(ATTEMPT, TcpStream::connect(address)).await;
        match attempt.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into())) {
            Ok(tcp) => {
                tcp.set_nodelay(true)?;
                return Ok(tcp);
            }
            Err(error) => last = io::Error::new(error.kind(), format!("connect to {address}: {error}")),
        }
    }
    Err(last)
}

async fn http2<S>(stream: S) -> Result<Channel, tonic::transport::Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    // The name is only for the requests' authority; the connection is made already, and there is but one.
    let endpoint = tonic::transport::Endpoint::from_static("http://etcd")
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(4 * WINDOW);
    let stream = Arc::new(Mutex::new(Some(TokioIo::new(stream))));
    let take = move |_: http::Uri| {
        let stream = Arc::clone(&stream);
        async move { stream.lock().await.take().ok_or_else(|| io::Error::other("the connection was lost")) }
    };
    endpoint.connect_with_connector(service_fn(take)).await
}

/// How long a name may take to resolve, and an address to answer.
const ATTEMPT: Duration = Duration::from_secs(3);
const MOST_ADDRESSES: usize = 4;
/// etcd allows a ping every five seconds (`--grpc-keepalive-min-time`), and none on a connection without a call; there is
/// always a watch.
const KEEPALIVE: Duration = Duration::from_secs(6);
const WINDOW: u32 = 1 << 20;
