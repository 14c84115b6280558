//! Connections: who is it, what may it read, and for how long.
//!
//! ```text
//!   accept ─> TLS handshake (in a task of its own, with a deadline) ─> PeerIdentity ─> Grants ─> etcd API
//! ```
//! A peer whose certificate is sound but which our rules refuse is answered PermissionDenied with the reason on every
//! call, and closed after [`REFUSED_LIFETIME`]: a TLS alert could not carry a text.

pub mod clients;
pub mod handshakes;
pub mod metrics;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use mesh_runtime::{Chain, Shutdown};
use pki::server::{AcceptError, Acceptor};
use pki::{Outcome, PeerIdentity, Role};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use topology::ClusterName;
use tracing::{debug, info, warn};

use self::clients::{Clients, Refused};
use self::handshakes::{Handshake, Handshakes};
use self::metrics::Metrics;
use crate::etcd_api::{self, Grants, Limits};

/// The bound port of the API, not yet serving.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

/// What connections are served with.
#[derive(Clone, Debug)]
pub struct Service {
    /// The own cluster.
    pub cluster: ClusterName,
    /// Makes TLS streams of connections.
    pub acceptor: Acceptor,
    /// The API.
    pub routes: Router,
    /// Its bounds.
    pub limits: Limits,
    /// Who is there, for the status page.
    pub clients: Clients,
    /// What is counted.
    pub metrics: Metrics,
}

impl Server {
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

    /// Serves until the shutdown is requested, then closes all connections: clients resume elsewhere or later, from
    /// the revision that they have.
    pub async fn serve(self, service: Service, shutdown: Shutdown) -> anyhow::Result<()> {
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let handshakes = Handshakes::default();
        let others = Arc::new(Semaphore::new(MAX_OTHERS));
        let mut tasks = JoinSet::new();
        loop {
            // All arms are cancel-safe: a connection is either still in the backlog or in our hands.
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
                () = shutdown.requested() => break,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let places = connections.clone().try_acquire_owned().ok().zip(handshakes.begin(address.ip()));
            let Some((connection, handshake)) = places else {
                service.metrics.turned_away();
                debug!(%address, "too many connections, turned away");
                continue;
            };
            let (service, others) = (service.clone(), others.clone());
            tasks.spawn(async move {
                service.connection(stream, address, handshake, others).await;
                drop(connection);
            });
        }
        tasks.shutdown().await;
        Ok(())
    }
}

impl Service {
    async fn connection(
        self,
        tcp: TcpStream,
        address: SocketAddr,
        handshake: Handshake,
        others: Arc<Semaphore>,
    ) {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        // Changes are small and must not wait for more to come.
        if let Err(error) = tcp.set_nodelay(true) {
            debug!(%error, %address, "set TCP_NODELAY");
        }
        let accepted = self.acceptor.accept(tcp).await;
        drop(handshake);
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => return self.handshake_failed(address, &error),
        };
        let own = matches!(
            peer.accepted().map(|accepted| &accepted.role),
            Some(Role::Local { .. } | Role::Admin { .. })
        );
        let place = others.try_acquire().ok().filter(|_| !own);
        if place.is_none() && !own {
            self.metrics.turned_away();
            warn!(%address, peer = %peer.subject, "too many connections of other clusters, turned away");
            return;
        }
        let grants = Arc::new(self.grants(&peer));
        let lifetime = match &peer.outcome {
            Outcome::Refused(refusal) => {
                warn!(%address, peer = %peer.subject, reason = %refusal, "client refused");
                self.refused(address, "peer-refused", peer.to_string());
                Some(REFUSED_LIFETIME)
            }
            Outcome::Accepted(accepted) => {
                info!(%address, peer = %peer.subject, role = %accepted.role, "client connected");
                None
            }
        };
        let role = peer.accepted().map_or("refused", |accepted| role_word(&accepted.role));
        let entry = self.clients.enter(address, &peer);
        self.metrics.connected(role);
        let serving = etcd_api::serve(stream, self.routes.clone(), grants, self.limits);
        let ended = match lifetime {
            Some(lifetime) => tokio::time::timeout(lifetime, serving).await.unwrap_or(Ok(())),
            None => serving.await,
        };
        drop((entry, place));
        match ended {
            Ok(()) => debug!(%address, role, "client left"),
            Err(error) => debug!(%address, role, error = %Chain(&error), "client left"),
        }
    }

    /// What a peer may read and write (`docs/wire-format.md`).
    fn grants(&self, peer: &PeerIdentity) -> Grants {
        match &peer.outcome {
            Outcome::Refused(refusal) => Grants::refused(refusal.to_string()),
            Outcome::Accepted(accepted) => match &accepted.role {
                Role::Local { .. } => Grants::local(),
                Role::Admin { .. } => Grants::admin(),
                Role::Remote { .. } | Role::Hub { .. } | Role::Unattested { .. } => {
                    Grants::remote(self.cluster.as_str())
                }
            },
        }
    }

    fn handshake_failed(&self, address: SocketAddr, error: &AcceptError) {
        let reason = match error {
            AcceptError::Timeout { .. } => "timeout",
            AcceptError::Certificate { .. } => "certificate",
            AcceptError::NoCertificate { .. } => "no-certificate",
            AcceptError::OldTls => "old-tls",
            AcceptError::Tls(_) => "tls",
            AcceptError::Io(_) => "connection-lost",
        };
        let text = Chain(error).to_string();
        match error {
            // Probes of load balancers and port scans do this all day.
            AcceptError::Io(_) => debug!(%address, error = %text, "no TLS connection"),
            _ => warn!(%address, reason, error = %text, "client refused"),
        }
        self.refused(address, reason, text);
    }

    fn refused(&self, address: SocketAddr, kind: &'static str, reason: String) {
        self.metrics.refused(kind);
        self.clients.refused(Refused { at: jiff::Timestamp::now(), address, kind, reason });
    }
}

/// The word for a role, for counting.
pub fn role_word(role: &Role) -> &'static str {
    match role {
        Role::Remote { .. } => "remote",
        Role::Local { .. } => "local",
        Role::Admin { .. } => "admin",
        Role::Hub { .. } => "hub",
        Role::Unattested { .. } => "unattested",
    }
}

/// Connections at a time.
pub const MAX_CONNECTIONS: usize = 8192;
/// Of them, those of other clusters: own agents and administrators always find a place.
pub const MAX_OTHERS: usize = MAX_CONNECTIONS - MAX_CONNECTIONS / 4;
/// How long a refused client is answered with the reason.
pub const REFUSED_LIFETIME: Duration = Duration::from_secs(5);
/// Pause after a failed accept, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
