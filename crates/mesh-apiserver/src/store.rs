//! Which store the records are in: one of this process on its own disk, or an etcd cluster that several replicas share.
//!
//! ```text
//!   embedded     Hub ─> Store (journal on disk) ─> API
//!   etcd:…       Replica: elected? ─> Hub ─> etcd ─> Follower ─> Store (mirror) ─> API ── puts of clients ──> etcd
//! ```
//! `docs/store.md` says what to choose, and what goes on when what fails.

pub mod candidacy;
pub mod dial;
pub mod endpoint;
pub mod owner;
pub mod replica;

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use kvstore::etcd::Follower;
use kvstore::{Etcd, StoreOptions};
use mesh_runtime::Shutdown;
use pki::client::Connector;
use pki::{Expected, Files, LiveCredentials, Reloader};
use tracing::info;

use self::dial::EtcdDial;
use self::endpoint::{Endpoint, InvalidEndpoint};

/// A store as on the command line: `embedded`, or `etcd:<endpoint>,<endpoint>…`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StoreSpec {
    /// A store of this process, in `--data-dir`.
    #[default]
    Embedded,
    /// An etcd cluster with these members; at least one.
    Etcd(Vec<Endpoint>),
}

/// Why a text is not a store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidStore {
    /// Neither kind.
    #[error("store {found:?}: expected embedded, or etcd:https://HOST:PORT[,https://HOST:PORT…]")]
    Kind {
        /// The text.
        found: String,
    },
    /// An endpoint is wrong.
    #[error(transparent)]
    Endpoint(#[from] InvalidEndpoint),
}

/// An etcd cluster that has answered, and the tasks behind it.
pub struct EtcdStore {
    /// The handle, with a mirror that is complete.
    pub etcd: Etcd,
    /// Keeps the mirror in step; to be run.
    pub follower: Follower,
    /// Follows the certificate files; none without TLS.
    pub reloader: Option<Reloader>,
}

impl FromStr for StoreSpec {
    type Err = InvalidStore;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let kind = || InvalidStore::Kind { found: text.chars().take(200).collect() };
        match text.split_once(':') {
            None if text == "embedded" => Ok(Self::Embedded),
            Some(("etcd", endpoints)) if !endpoints.is_empty() => {
                let endpoints = endpoints.split(',').map(Endpoint::from_str).collect::<Result<_, _>>()?;
                Ok(Self::Etcd(endpoints))
            }
            _ => Err(kind()),
        }
    }
}

/// Connects to the first endpoint that answers and reads everything. Fails after a minute without an answer, or if the
/// certificates in `tls_dir` cannot be used; `None` if the shutdown is requested first.
pub async fn open(
    endpoints: &[Endpoint],
    tls_dir: Option<&Path>,
    shutdown: &Shutdown,
) -> anyhow::Result<Option<EtcdStore>> {
    let wants_tls = endpoints.iter().any(|endpoint| endpoint.tls);
    let (connector, reloader) = match tls_dir {
        Some(dir) if wants_tls => {
            let (credentials, reloader) = LiveCredentials::watch(Files::in_dir(dir))
                .with_context(|| format!("load certificates for etcd from {}", dir.display()))?;
            (Some(Connector::new(credentials, Expected::Store)), Some(reloader))
        }
        None if wants_tls => bail!(
            "--store with https:// needs --store-tls-dir, a directory with tls.crt, tls.key and ca.crt (see meshctl ca leaf \
             --role store)"
        ),
        _ => (None, None),
    };
    let names: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
    info!(endpoints = names.join(","), "waiting for the store at etcd");
    let dial = EtcdDial::new(endpoints.to_vec(), connector);
    let opened = tokio::time::timeout(PATIENCE, Etcd::open(dial, StoreOptions::default()));
    let (etcd, follower) = tokio::select! {
        opened = opened => opened
            .with_context(|| format!("no answer from etcd ({}) within {PATIENCE:?}", names.join(", ")))?
            .context("read the store at etcd")?,
        () = shutdown.requested() => return Ok(None),
    };
    let mirror = etcd.mirror();
    info!(
        store = format_args!("{:x}", mirror.cluster_id()),
        revision = mirror.revision(),
        keys = mirror.snapshot().len(),
        "store at etcd read"
    );
    Ok(Some(EtcdStore { etcd, follower, reloader }))
}

/// How long etcd may be silent at the start, before the process gives up and its supervisor starts it anew.
const PATIENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_are_read() {
        assert_eq!("embedded".parse(), Ok(StoreSpec::Embedded));
        let two: StoreSpec =
            "etcd:https://a.example:2379,https://[2001:db8::1]:2379".parse().expect("a store");
        let StoreSpec::Etcd(endpoints) = &two else { panic!("{two:?}") };
        let shown: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["https://a.example:2379", "https://[2001:db8::1]:2379"]);
        for bad in ["", "etcd", "etcd:", "embedded:", "redis:https://a:1", "etcd:https://a:1,", "etcd:a:1"] {
            assert!(bad.parse::<StoreSpec>().is_err(), "{bad}");
        }
    }
}
