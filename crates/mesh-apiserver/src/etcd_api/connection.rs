//! One client connection: HTTP/2 for gRPC, HTTP/1.1 for `/version`.

use super::{Grants, Limits, room::Room};
use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use std::{sync::Arc, time::Duration};
use tokio::io::{AsyncRead, AsyncWrite};
use tower::ServiceExt;

/// A connection ended other than by the client closing it.
#[derive(Debug, thiserror::Error)]
#[error("client connection failed")]
pub struct ConnectionError(#[source] Box<dyn std::error::Error + Send + Sync>);

/// Serves `routes` on a connection (after its TLS handshake) until it ends, all its requests under `grants`.
///
/// Cancel safe: dropping the future closes the connection. A peer that stops answering is noticed by HTTP/2 pings
/// within 50 s; one that does not read holds its flow-control windows at most.
pub async fn serve<I>(
    io: I,
    routes: Router,
    grants: Arc<Grants>,
    limits: Limits,
) -> Result<(), ConnectionError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let room = Room::default();
    let service = hyper::service::service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(grants.clone());
        request.extensions_mut().insert(room.clone());
        routes.clone().oneshot(request.map(axum::body::Body::new))
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_per_connection)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder.serve_connection(TokioIo::new(io), service).await.map_err(ConnectionError)
}

/// Time without traffic after which the client is pinged.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// Time that it has to answer.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Time that an HTTP/1.1 client has to send its request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
