//! The admin port: is it alive, is it ready, what does it see, what does it count.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::readiness::Readiness;
use crate::shutdown::Shutdown;

/// Says what `/status` shows, at the moment of asking.
pub type StatusSource = Arc<dyn Fn() -> Value + Send + Sync>;

/// A bound admin port, not yet serving.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
}

/// What the admin port shows.
#[derive(Clone)]
pub struct AdminPages {
    /// `/readyz`: 200, or 503 with what is waited for.
    pub readiness: Readiness,
    /// `/metrics`, in Prometheus' text format.
    pub registry: Arc<Registry>,
    /// `/status`, as JSON.
    pub status: StatusSource,
    /// Other pages of the owner.
    pub extra: Router,
}

/// Holds what the handlers need.
#[derive(Clone)]
struct Pages {
    readiness: Readiness,
    registry: Arc<Registry>,
    status: StatusSource,
    shutdown: Shutdown,
}

impl Admin {
    /// Binds the port; 0 takes a free one. Fails if the address cannot be bound.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// The address that was bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the shutdown is requested: at most [`MAX_CONNECTIONS`] at a time, each of which has
    /// [`HEADER_TIMEOUT`] to ask and lives at most [`MAX_LIFETIME`].
    pub async fn serve(self, pages: AdminPages, shutdown: Shutdown) -> anyhow::Result<()> {
        let router = router(pages, shutdown.clone());
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            // All arms are cancel-safe: a connection is either still in the backlog or in our hands.
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                () = shutdown.requested() => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "accept on the admin port");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // A full house turns newcomers away instead of letting them wait unseen.
            let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
            let router = router.clone();
            connections.spawn(async move {
                serve_connection(stream, router).await;
                drop(slot);
            });
        }
        // What is asked now is about why it stops; nothing here is worth a drain.
        connections.shutdown().await;
        Ok(())
    }
}

async fn serve_connection(stream: TcpStream, router: Router) {
    let mut builder = auto::Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match tokio::time::timeout(MAX_LIFETIME, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "admin connection"),
        Err(_) => debug!("admin connection has reached its age"),
    }
}

fn router(pages: AdminPages, shutdown: Shutdown) -> Router {
    let AdminPages { readiness, registry, status, extra } = pages;
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/status", get(async |State(pages): State<Pages>| axum::Json((pages.status)())))
        .route("/metrics", get(metrics))
        .with_state(Pages { readiness, registry, status, shutdown })
        .merge(extra)
        .layer(DefaultBodyLimit::max(MAX_BODY))
}

async fn readyz(State(pages): State<Pages>) -> Response {
    let mut waiting = pages.readiness.waiting_for();
    if pages.shutdown.is_requested() {
        waiting.push("shutting down".to_owned());
    }
    let code = if waiting.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, axum::Json(json!({ "ready": waiting.is_empty(), "waitingFor": waiting }))).into_response()
}

async fn metrics(State(pages): State<Pages>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &pages.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Connections at a time.
pub const MAX_CONNECTIONS: usize = 64;
/// How long a client may take to send the header of a request.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection lives, whatever it does.
pub const MAX_LIFETIME: Duration = Duration::from_secs(300);
/// Bytes that a request may carry.
const MAX_BODY: usize = 64 * 1024;
/// Pause after a failed accept, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("the port is bound");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("write");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("read");
        answer
    }

    #[tokio::test]
    async fn pages_say_what_is() {
        let mut registry = Registry::default();
        let counter: Counter = Counter::default();
        registry.register("mesh_test_things", "Things that happened", counter.clone());
        counter.inc();
        let readiness = Readiness::new();
        let guard = readiness.block("first sync");
        let pages = AdminPages {
            readiness,
            registry: Arc::new(registry),
            status: Arc::new(|| json!({ "cluster": "paris" })),
            extra: Router::new().route("/extra", get(async || "more")),
        };
        let admin = Admin::bind("127.0.0.1:0".parse().expect("an address")).await.expect("a free port");
        let address = admin.address();
        let shutdown = Shutdown::new();
        let server = tokio::spawn(admin.serve(pages, shutdown.clone()));

        assert!(ask(address, "/livez").await.ends_with("ok\n"));
        let answer = ask(address, "/readyz").await;
        assert!(answer.contains("503") && answer.contains("first sync"), "{answer}");
        drop(guard);
        let answer = ask(address, "/readyz").await;
        assert!(answer.contains("200 OK") && answer.contains(r#""ready":true"#), "{answer}");
        let answer = ask(address, "/status").await;
        assert!(answer.ends_with(r#"{"cluster":"paris"}"#), "{answer}");
        let answer = ask(address, "/metrics").await;
        assert!(answer.contains("mesh_test_things_total 1"), "{answer}");
        assert!(ask(address, "/extra").await.ends_with("more"));
        assert!(ask(address, "/other").await.contains("404"));

        shutdown.request();
        let ended = tokio::time::timeout(Duration::from_secs(5), server).await.expect("it ends");
        assert!(ended.expect("no panic").is_ok());
    }
}
