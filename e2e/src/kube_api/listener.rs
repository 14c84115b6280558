//! Accepting connections, and going away for a while.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::faults::Absence;
use super::handler::{Shared, serve};

/// Most connections at a time; more wait to be accepted.
const CONNECTION_LIMIT: usize = 2048;
/// Most time for a handshake, and for the last answer before going away.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Most time between two requests, and for the headers of one.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// How long to try to listen again on the same port.
const BIND_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves until it is dropped. Each absence closes the listener and all connections; then it listens again on the same
/// address.
pub async fn run(
    mut listener: TcpListener,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    mut absences: mpsc::Receiver<Absence>,
) -> Result<()> {
    let address = listener.local_addr().context("address of the listener")?;
    loop {
        let (closing, _) = watch::channel(());
        let mut connections = JoinSet::new();
        let absence = loop {
            // Accepting and receiving lose nothing when they are dropped half way; so does waiting for the end of one.
            tokio::select! {
                accepted = listener.accept(), if connections.len() < CONNECTION_LIMIT => {
                    if let Ok((stream, _)) = accepted {
                        connections.spawn(connection(stream, tls.clone(), Arc::clone(&shared), closing.subscribe()));
                    }
                }
                absence = absences.recv() => match absence {
                    Some(absence) => break absence,
                    None => return Ok(()),
                },
                Some(_) = connections.join_next() => {}
            }
        };
        drop(listener);
        drop(closing);
        if absence.begun.send(()).is_err() {
            tracing::debug!("whoever asked for the absence does not wait for it");
        }
        while connections.join_next().await.is_some() {}
        sleep(absence.length).await;
        listener = listen_again(address).await?;
    }
}

/// Another program may hold the port for a moment.
async fn listen_again(address: SocketAddr) -> Result<TcpListener> {
    let end = Instant::now() + BIND_TIMEOUT;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(error) if Instant::now() > end => {
                return Err(error).with_context(|| format!("listen again on {address}"));
            }
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    closing: watch::Receiver<()>,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "set TCP_NODELAY");
    }
    match tls {
        None => talk(stream, shared, closing).await,
        Some(tls) => match timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(stream)) => talk(stream, shared, closing).await,
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake"),
            Err(_) => tracing::debug!("TLS handshake takes too long"),
        },
    }
}

async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    shared: Arc<Shared>,
    mut closing: watch::Receiver<()>,
) {
    // Who asked for the absence gets an answer; all others are cut off, in the middle of an answer too.
    let is_lab = Arc::new(AtomicBool::new(false));
    let saw = Arc::clone(&is_lab);
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        saw.store(request.uri().path().starts_with("/_lab/"), Ordering::Relaxed);
        serve(Arc::clone(&shared), request.map(Body::new))
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = std::pin::pin!(served);
    tokio::select! {
        // Whoever was told that the absence has begun gets no answer on an old connection.
        biased;
        _ = closing.changed() => {
            if is_lab.load(Ordering::Relaxed) {
                served.as_mut().graceful_shutdown();
                drop(timeout(HANDSHAKE_TIMEOUT, served).await);
            }
        }
        ended = served.as_mut() => {
            if let Err(error) = ended {
                tracing::debug!(%error, "connection");
            }
        }
    }
}
