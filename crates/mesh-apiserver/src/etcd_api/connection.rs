//! One client connection: HTTP/2 for gRPC, HTTP/1.1 for `/version`.

use super::{Calls, Grants, Limits, SharedRoom, arriving::Arriving, hello, room::Room};
use futures_util::{StreamExt, stream::FuturesUnordered};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use std::{pin::pin, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tower::Service;

/// A connection ended other than by the client closing it.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// It failed, or the client broke the protocol.
    #[error("client connection failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The client said nothing.
    #[error("client has spoken neither HTTP/2 nor HTTP/1.1 within {} s", after.as_secs())]
    Silent {
        /// The limit.
        after: Duration,
    },
    /// The client left what it had asked for unread.
    #[error("client has not read a list that it asked for {} s ago", after.as_secs())]
    Unread {
        /// The limit.
        after: Duration,
    },
}

/// Serves `calls` on a connection (after its TLS handshake) until it ends, all its requests under `grants`.
///
/// Cancel safe: dropping the future closes the connection. A peer that stops answering is noticed by HTTP/2 pings
/// within 50 s; one that does not read holds its flow-control windows and one list, and that for
/// [`Limits::list_time`] at most.
pub async fn serve<I>(io: I, calls: Calls, grants: Arc<Grants>, limits: Limits) -> Result<(), ConnectionError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    serve_until(io, calls, grants, SharedRoom::default(), limits, std::future::pending()).await
}

/// As [`serve`], within a room that is shared with other connections, and until `end` is ready at the latest: then the
/// client is told to go elsewhere (HTTP/2 GOAWAY), and calls under way have five seconds to end.
pub async fn serve_until<I>(
    io: I,
    calls: Calls,
    grants: Arc<Grants>,
    room: SharedRoom,
    limits: Limits,
    end: impl Future<Output = ()>,
) -> Result<(), ConnectionError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let room = Room::new(room, &limits);
    let reads_only = !grants.may_write_any();
    let of_requests = room.clone();
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (mut head, body) = request.into_parts();
        let body = Arriving::new(body, head.uri.path(), &of_requests, &limits);
        head.extensions.insert(grants.clone());
        head.extensions.insert(of_requests.clone());
        calls.clone().call(http::Request::from_parts(head, body))
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_per_connection)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    if reads_only {
        builder
            .http2()
            .initial_stream_window_size(READER_WINDOW)
            .initial_connection_window_size(4 * READER_WINDOW);
    }
    let (io, hello) = hello::heard(io);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    let bounds = async {
        tokio::select! {
            () = room.overdue(limits.list_time) => Err(ConnectionError::Unread { after: limits.list_time }),
            () = hello.missing(limits.hello_time) => {
                Err(ConnectionError::Silent { after: limits.hello_time })
            }
            () = end => Ok(()),
        }
    };
    // A set of one: it is looked at when one of the bounds has something to say, and not whenever the client has.
    let mut bounds = FuturesUnordered::from_iter([bounds]);
    tokio::select! {
        biased;
        ended = connection.as_mut() => return ended.map_err(ConnectionError::Failed),
        Some(reached) = bounds.next() => reached?,
    }
    connection.as_mut().graceful_shutdown();
    // Watches never end by themselves.
    timeout(CLOSING, connection).await.unwrap_or(Ok(())).map_err(ConnectionError::Failed)
}

/// Time without traffic after which the client is pinged.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// Time that it has to answer.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Time that an HTTP/1.1 client has to send its request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Time that calls have to end on a connection that is being closed.
const CLOSING: Duration = Duration::from_secs(5);
/// Bytes of a request that a client sends ahead, where requests are small: nobody but administrators writes.
const READER_WINDOW: u32 = 64 << 10;
