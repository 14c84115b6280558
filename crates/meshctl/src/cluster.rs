//! A Kubernetes cluster, as an operator reaches it.
//!
//! * [`access`]: which one, with what credentials.
//! * [`apply`]: objects made so, by server-side apply.
//! * [`rollout`]: whether programs run, and what keeps them from it.
//! * [`cilium`]: whether Cilium is there, and what it calls the cluster.

pub(crate) mod access;
pub(crate) mod apply;
pub(crate) mod cilium;
pub(crate) mod rollout;

use std::time::Duration;

use anyhow::{Context, Result};
use kube::api::DynamicObject;
use kube::core::ApiResource;
use kube::{Api, Client};
use tokio::time::{Instant, sleep};

/// A connection to an API server.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) server: String,
}

impl Cluster {
    /// Objects of a kind: of one namespace, or those of the cluster.
    pub(crate) fn api(&self, resource: &ApiResource, namespace: Option<&str>) -> Api<DynamicObject> {
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, resource),
            None => Api::all_with(self.client.clone(), resource),
        }
    }
}

/// Runs a command that talks to a cluster.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start")?;
    runtime.block_on(work)
}

/// Asks again and again until the answer is that nothing is waited for any more. What is waited for is said when it
/// changes. Fails with the last of it at the deadline, and at once if asking fails.
pub(crate) async fn until(
    deadline: Instant,
    what: &str,
    mut ask: impl AsyncFnMut() -> Result<Option<String>>,
) -> Result<()> {
    let mut said = String::new();
    loop {
        let Some(waits) = ask().await? else { return Ok(()) };
        if waits != said {
            eprintln!("waiting for {what}: {waits}");
            said.clone_from(&waits);
        }
        if Instant::now() >= deadline {
            anyhow::bail!("{what} within the time given (--timeout): {waits}");
        }
        sleep(LOOK.min(deadline.saturating_duration_since(Instant::now()))).await;
    }
}

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(500);
