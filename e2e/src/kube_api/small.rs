//! The small API server as a value: started in this process, with its faults, counters and bulk loader at hand.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::clock::Clock;
use super::credentials::{Access, ServerIdentity};
use super::failure::Failure;
use super::faults::Faults;
use super::handler::Shared;
use super::listener;
use super::load::{load, make_namespace};
use super::names;
use super::rbac::Tokens;
use super::requests::{Counter, Tally};
use super::store::Store;
use super::watch::WatchRules;

/// Namespaces that every cluster has.
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// How a small API server is started.
#[derive(Clone, Debug)]
pub struct SmallOptions {
    /// Where it listens; port 0: any.
    pub listen: SocketAddr,
    /// Address that clients use, if it is another than the one it listens on.
    pub advertise: Option<IpAddr>,
    /// HTTPS with a certificate made now, or plain HTTP.
    pub tls: bool,
    /// The token that clients must show; none: a new one with HTTPS, none is needed with HTTP.
    pub token: Option<String>,
    /// Changes of each kind that are kept; older ones get 410.
    pub history_limit: usize,
    /// Most watches at a time; more get 429.
    pub watch_limit: usize,
    /// How often a bookmark is sent to those who want them.
    pub bookmark_interval: Duration,
    /// Whether watches can begin with the state (`sendInitialEvents`), as in Kubernetes from 1.32 on.
    pub streaming_lists: bool,
}

/// A small API server that runs in this process, until it is dropped.
#[derive(Debug)]
pub struct SmallApi {
    shared: Arc<Shared>,
    access: Access,
    watch_limit: usize,
    server: JoinHandle<Result<()>>,
}

impl Default for SmallOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            advertise: None,
            tls: true,
            token: None,
            history_limit: 50_000,
            watch_limit: 1000,
            bookmark_interval: Duration::from_secs(60),
            streaming_lists: true,
        }
    }
}

impl SmallApi {
    /// Starts one. Fails if it cannot listen.
    pub async fn start(options: SmallOptions) -> Result<Self> {
        let listener = TcpListener::bind(options.listen).await;
        let listener = listener.with_context(|| format!("listen on {}", options.listen))?;
        let bound = listener.local_addr().context("address of the listener")?;
        let address = options.advertise.unwrap_or_else(|| bound.ip());
        let identity = options.tls.then(|| ServerIdentity::new(&[address, bound.ip()])).transpose()?;
        let tls = match &identity {
            Some(identity) => Some(TlsAcceptor::from(Arc::new(identity.server_config()?))),
            None => None,
        };
        let token = options.token.or_else(|| options.tls.then(names::token));
        let scheme = if options.tls { "https" } else { "http" };
        let access = Access {
            url: format!("{scheme}://{}", SocketAddr::new(address, bound.port())),
            ca_pem: identity.map(|identity| identity.ca_pem),
            token: token.clone(),
        };
        let (store, clock) = (Arc::new(Store::new(options.history_limit)), Arc::new(Clock::default()));
        for name in NAMESPACES {
            let made = store.with(|state| make_namespace(state, &clock, name));
            made.with_context(|| format!("make namespace {name}"))?;
        }
        let (faults, absences) = Faults::new(Arc::clone(&store), Arc::clone(&clock));
        let shared = Arc::new(Shared {
            store,
            clock,
            faults,
            counter: Counter::default(),
            watch_rules: WatchRules {
                bookmark_interval: options.bookmark_interval,
                streaming_lists: options.streaming_lists,
            },
            watches: Arc::new(Semaphore::new(options.watch_limit)),
            token,
            tokens: Tokens::default(),
        });
        let server = tokio::spawn(listener::run(listener, tls, Arc::clone(&shared), absences));
        Ok(Self { shared, access, watch_limit: options.watch_limit, server })
    }

    /// How clients reach it.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Makes things go wrong.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// What was asked for so far.
    pub fn requests(&self) -> Tally {
        self.shared.counter.tally()
    }

    /// Begins to count anew.
    pub fn reset_requests(&self) {
        self.shared.counter.reset();
    }

    /// Watches that are open now.
    pub fn open_watches(&self) -> usize {
        self.watch_limit.saturating_sub(self.shared.watches.available_permits())
    }

    /// Writes many objects at once, past the rules for clients (see [`super::load`]). Gives their number.
    pub fn load(&self, objects: impl IntoIterator<Item = Value>) -> Result<usize, Failure> {
        load(&self.shared.store, &self.shared.clock, objects)
    }

    /// The revision of the last write.
    pub fn revision(&self) -> u64 {
        self.shared.store.with(|state| state.revision())
    }

    /// Runs until the server fails.
    pub async fn run(mut self) -> Result<()> {
        (&mut self.server).await.context("server task")?
    }
}

impl Drop for SmallApi {
    fn drop(&mut self) {
        // Its connections are tasks of its own and end with it.
        self.server.abort();
    }
}
