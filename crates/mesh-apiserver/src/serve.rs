//! Connections: who is it, what may it read, and for how long.
//!
//! ```text
//!   accept ─> TLS handshake (in a task of its own, with a deadline) ─> PeerIdentity ─> Grants ─> etcd API
//! ```
//! A peer whose certificate is sound but which our rules refuse is answered PermissionDenied with the reason on every
//! call, and closed after [`REFUSED_LIFETIME`]: a TLS alert could not carry a text. So is one that has all the
//! connections it may have, with ResourceExhausted.
//!
//! A connection lives as long as what it was accepted for: when its certificate ends, or its authority is no longer
//! accepted, it is closed.

pub mod clients;
pub mod handshakes;
pub mod metrics;
pub mod notices;
pub mod shares;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_runtime::{Chain, Shutdown};
use pki::server::{AcceptError, Acceptor, TlsStream};
use pki::{Accepted, Outcome, PeerIdentity, Role};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::Status;
use topology::ClusterName;
use tracing::{debug, info, warn};

use self::clients::Clients;
use self::handshakes::{Handshake, Handshakes};
use self::metrics::Metrics;
use self::notices::{Notices, Repeated};
use self::shares::{Share, Shares};
use crate::etcd_api::{self, Calls, ConnectionError, Grants, Limits};
use crate::peer_filters::in_force::Peer;

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
    pub calls: Calls,
    /// Its bounds.
    pub limits: Limits,
    /// Who is there, for the status page.
    pub clients: Clients,
    /// Who holds how many connections.
    pub shares: Shares,
    /// What is counted.
    pub metrics: Metrics,
    /// What the log was told lately.
    pub notices: Notices,
}

/// A peer that has a place.
struct Admitted {
    accepted: Accepted,
    share: Share,
    _place: Option<OwnedSemaphorePermit>,
}

/// Why a peer with a sound certificate is not served.
enum Refusal {
    /// Our rules refuse it.
    Rules(String),
    /// There is no place.
    Full(String),
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
        let mut look = tokio::time::interval(notices::LOOK);
        loop {
            // All arms are cancel-safe: a connection is either still in the backlog or in our hands.
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
                _ = look.tick() => {
                    service.notices.repeated().iter().for_each(tell);
                    continue;
                }
                () = shutdown.requested() => break,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Such as for want of file descriptors: then it comes again and again.
                    if service.notices.say(self.address, "accept", &error.to_string()) {
                        warn!(%error, "accept a connection");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let places = connections.clone().try_acquire_owned().ok().zip(handshakes.begin(address.ip()));
            let Some((connection, handshake)) = places else {
                service.metrics.turned_away();
                if service.notices.say(address, "turned-away", "too many connections or handshakes") {
                    warn!(%address, "too many connections or handshakes, turned away");
                }
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
        mut handshake: Handshake,
        others: Arc<Semaphore>,
    ) {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        // Changes are small and must not wait for more to come.
        if let Err(error) = tcp.set_nodelay(true) {
            debug!(%error, %address, "set TCP_NODELAY");
        }
        let accepted = tokio::select! {
            accepted = self.acceptor.accept(tcp) => accepted,
            () = handshake.lost() => {
                self.metrics.turned_away();
                return debug!(%address, "a handshake from an address that has fewer took its place");
            }
        };
        drop(handshake);
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => return self.handshake_failed(address, &error),
        };
        // The futures that it is handed through would each have room for it, for as long as it lives.
        let stream = Box::new(stream);
        match self.admit(&peer, &others) {
            Ok(admitted) => self.serve(stream, address, &peer, admitted).await,
            Err(reason) => self.refuse(stream, address, &peer, reason).await,
        }
    }

    /// Whether there is a place for this peer, and if not, what it is answered.
    fn admit(&self, peer: &PeerIdentity, others: &Arc<Semaphore>) -> Result<Admitted, Refusal> {
        let accepted = match &peer.outcome {
            Outcome::Refused(reason) => return Err(Refusal::Rules(reason.to_string())),
            Outcome::Accepted(accepted) => accepted.clone(),
        };
        let share = self.shares.enter(peer).map_err(|full| Refusal::Full(full.to_string()))?;
        let place = match accepted.role {
            Role::Local { .. } | Role::Admin { .. } => None,
            Role::Remote { .. } | Role::Hub { .. } | Role::Store { .. } | Role::Unattested { .. } => {
                let full = "too many connections of other clusters";
                let place = others.clone().try_acquire_owned();
                Some(place.map_err(|_none_left| Refusal::Full(full.to_owned()))?)
            }
        };
        Ok(Admitted { accepted, share, _place: place })
    }

    async fn serve(
        &self,
        stream: Box<TlsStream<TcpStream>>,
        address: SocketAddr,
        peer: &PeerIdentity,
        admitted: Admitted,
    ) {
        let role = role_word(&admitted.accepted.role);
        if self.notices.say(address, "connected", &peer.subject) {
            info!(%address, peer = %peer.subject, role = %admitted.accepted.role, "client connected");
        } else {
            debug!(%address, peer = %peer.subject, role = %admitted.accepted.role, "client connected");
        }
        let grants = Arc::new(self.grants(&admitted.accepted.role));
        let _entry = self.clients.enter(address, peer, grants.peer().cloned());
        self.metrics.connected(role);
        let room = admitted.share.room().clone();
        let end = async {
            let (kind, reason) = self.outlived(&admitted.accepted).await;
            self.closed(address, peer, kind, reason);
        };
        let serving = etcd_api::serve_until(stream, self.calls.clone(), grants, room, self.limits, end).await;
        match serving {
            Ok(()) => debug!(%address, role, "client left"),
            Err(error @ ConnectionError::Failed(_)) => {
                debug!(%address, role, error = %Chain(&error), "client left");
            }
            Err(error @ (ConnectionError::Unread { .. } | ConnectionError::Silent { .. })) => {
                let kind = if matches!(error, ConnectionError::Unread { .. }) { "unread" } else { "silent" };
                self.closed(address, peer, kind, &error.to_string());
            }
        }
    }

    /// Tells a peer for a while why it is not served.
    async fn refuse(
        &self,
        stream: Box<TlsStream<TcpStream>>,
        address: SocketAddr,
        peer: &PeerIdentity,
        refusal: Refusal,
    ) {
        let (kind, reason) = match &refusal {
            Refusal::Rules(reason) => ("peer-refused", reason),
            Refusal::Full(reason) => ("too-many", reason),
        };
        let text = format!("{}: {reason}", peer.subject);
        if self.notices.say(address, kind, &text) {
            warn!(%address, peer = %peer.subject, reason, "client refused");
        }
        self.refused(address, kind, text);
        // Those who find no place here either are closed without a word.
        let Ok(place) = self.shares.enter_refused() else { return self.metrics.turned_away() };
        let _entry = self.clients.enter(address, peer, None);
        self.metrics.connected("refused");
        let (calls, grants) = match refusal {
            Refusal::Rules(reason) => (self.calls.clone(), Grants::refused(reason)),
            Refusal::Full(reason) => {
                let status = Status::resource_exhausted(format!("etcdserver: too many requests: {reason}"));
                (Calls::refusing(status), Grants::refused("too many connections"))
            }
        };
        let room = place.room().clone();
        let serving =
            etcd_api::serve_until(stream, calls, Arc::new(grants), room, self.limits, std::future::pending());
        if let Ok(Err(error)) = timeout(REFUSED_LIFETIME, serving).await {
            debug!(%address, error = %Chain(&error), "client left");
        }
    }

    /// Returns when a peer's certificates have ended or their authority is no longer accepted, and says which.
    async fn outlived(&self, accepted: &Accepted) -> (&'static str, &'static str) {
        let mut credentials = self.acceptor.credentials().clone();
        loop {
            if credentials.current().trust().denial(accepted).is_some() {
                return ("revoked", "its passport or leaf is on the deny list of its authority");
            }
            if !credentials.current().trust().still_accepts(accepted) {
                return ("root-removed", "the root or passport of its certificate is no longer accepted");
            }
            let Ok(left) = accepted.expires.duration_since(SystemTime::now()) else {
                return ("expired", "its certificate has ended");
            };
            // Both arms may be dropped at any time. A clock that is set is noticed within a minute.
            tokio::select! {
                () = credentials.changed() => {}
                () = tokio::time::sleep(left.min(CLOCK_LOOK)) => {}
            }
        }
    }

    /// What a client may read and write (`docs/wire-format.md`).
    fn grants(&self, role: &Role) -> Grants {
        match role {
            Role::Local { .. } => Grants::local(),
            Role::Admin { .. } => Grants::admin(),
            // Never accepted as a client; were it, it would be nobody.
            Role::Store { common_name } => Grants::refused(format!("{common_name} is no client of hubs")),
            Role::Remote { .. } | Role::Hub { .. } | Role::Unattested { .. } => {
                let grants = Grants::remote(self.cluster.as_str());
                match filtered(&self.cluster, role) {
                    Some(peer) => grants.seen_by(peer),
                    None => grants,
                }
            }
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
            _ if self.notices.say(address, reason, &text) => {
                warn!(%address, reason, error = %text, "client refused");
            }
            _ => {}
        }
        self.refused(address, reason, text);
    }

    /// Reports that a client that had been served was sent away.
    fn closed(&self, address: SocketAddr, peer: &PeerIdentity, kind: &'static str, reason: &str) {
        let text = format!("{}: {reason}", peer.subject);
        if self.notices.say(address, kind, &text) {
            warn!(%address, peer = %peer.subject, reason, "connection closed");
        }
        self.refused(address, kind, text);
    }

    fn refused(&self, address: SocketAddr, kind: &'static str, reason: String) {
        self.metrics.refused(kind);
        self.clients.refused(jiff::Timestamp::now(), address, kind, reason);
    }
}

/// Says what was counted because it repeated itself.
fn tell(repeated: &Repeated) {
    let Repeated { from, kind, what, count } = repeated;
    let what = if what.is_empty() { "many different ones" } else { what };
    match *kind {
        "connected" => info!(%from, client = what, count, "client connected again"),
        _ => warn!(%from, reason = kind, what, count, "clients refused again"),
    }
}

/// Whose export filter applies to a role: that of the cluster that the certificate proves. The own cluster's agents,
/// administrators and hubs are never filtered; its `remote` certificate is, if a filter has its name: it shows what such
/// a peer would see.
pub fn filtered(own: &ClusterName, role: &Role) -> Option<Peer> {
    match role {
        Role::Remote { peer, .. } => Some(Peer::named(peer)),
        Role::Hub { cluster, .. } if cluster == own => None,
        Role::Hub { cluster, .. } => Some(Peer::named(cluster)),
        Role::Unattested { .. } => Some(Peer::unnamed()),
        Role::Local { .. } | Role::Admin { .. } | Role::Store { .. } => None,
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
        Role::Store { .. } => "store",
    }
}

/// Connections at a time.
pub const MAX_CONNECTIONS: usize = 16_384;
/// Of them, those of other clusters: own agents and administrators always find a place.
pub const MAX_OTHERS: usize = MAX_CONNECTIONS - MAX_CONNECTIONS / 4;
/// How long a refused client is answered with the reason.
pub const REFUSED_LIFETIME: Duration = Duration::from_secs(5);
/// How often connections look at the clock for the end of their certificates.
const CLOCK_LOOK: Duration = Duration::from_secs(60);
/// Pause after a failed accept, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
