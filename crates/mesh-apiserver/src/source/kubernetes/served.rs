//! Which kinds the API server has besides those of Kubernetes itself: it is asked, since a kind that it does not have and
//! one that this hub may not read are both answered 403.

use std::collections::BTreeSet;
use std::time::Duration;

use kube::{Client, Error};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::follow::LONGEST_PAUSE;
use mesh_resources::mesh_identity;

/// What the API server has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// The kinds of Cilium that are read where it runs.
    pub cilium: bool,
    /// Cilium's endpoint slices; the kind is there also where Cilium was not told to use it.
    pub cilium_slices: bool,
    /// Cilium's policies.
    pub cilium_policies: bool,
    /// Our own identities.
    pub mesh_identities: bool,
}

/// What to make of Cilium's kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum CiliumChoice {
    /// They count where the API server has them.
    #[default]
    Auto,
    /// They do not count: an earlier Cilium has left them behind.
    Off,
}

/// Asks what there is, tells it, and tells it again when there is more, until nobody listens.
pub async fn discover(client: Client, choice: CiliumChoice, news: mpsc::Sender<Served>) {
    let mut told: Option<Served> = None;
    let mut pause = SHORTEST_PAUSE;
    while !news.is_closed() {
        match look(&client, choice).await {
            Ok(found) => {
                pause = INTERVAL;
                // Kinds do not go while a hub runs: their watches say what became of them, and what is known stays.
                let before = told.unwrap_or_default();
                let now = Served {
                    cilium: found.cilium || before.cilium,
                    cilium_slices: found.cilium_slices || before.cilium_slices,
                    cilium_policies: found.cilium_policies || before.cilium_policies,
                    mesh_identities: found.mesh_identities || before.mesh_identities,
                };
                if told != Some(now) {
                    info!(
                        cilium = now.cilium,
                        cilium_slices = now.cilium_slices,
                        cilium_policies = now.cilium_policies,
                        mesh_identities = now.mesh_identities,
                        "kinds of the API server"
                    );
                    told = Some(now);
                    // Nobody listens any more: the loop ends with this.
                    news.send(now).await.ok();
                }
            }
            Err(error) => {
                debug!(error = %mesh_runtime::Chain(&error), "ask which kinds the API server has");
                pause = if told.is_some() { INTERVAL } else { (pause * 2).min(LONGEST_PAUSE) };
            }
        }
        sleep(pause).await;
    }
}

async fn look(client: &Client, choice: CiliumChoice) -> Result<Served, Error> {
    let mut served = Served::default();
    if choice == CiliumChoice::Auto {
        let has = resources(client, "cilium.io/v2").await?;
        let all = |names: &[&str]| names.iter().all(|name| has.contains(*name));
        served.cilium = all(&["ciliumidentities", "ciliumendpoints", "ciliumnodes"]);
        served.cilium_policies = all(&["ciliumnetworkpolicies", "ciliumclusterwidenetworkpolicies"]);
        if served.cilium {
            let has = resources(client, "cilium.io/v2alpha1").await?;
            served.cilium_slices = has.contains("ciliumendpointslices");
        }
    }
    let version = format!("{}/{}", mesh_resources::GROUP, mesh_resources::VERSION);
    served.mesh_identities = resources(client, &version).await?.contains(mesh_identity::PLURAL);
    Ok(served)
}

async fn resources(client: &Client, version: &str) -> Result<BTreeSet<String>, Error> {
    match client.list_api_group_resources(version).await {
        Ok(list) => Ok(list.resources.into_iter().map(|resource| resource.name).collect()),
        Err(Error::Api(status)) if status.code == 404 => Ok(BTreeSet::new()),
        Err(Error::Api(status)) if status.code == 403 => {
            warn!(
                version,
                message = status.message,
                "API server does not say which kinds it has, taken for none"
            );
            Ok(BTreeSet::new())
        }
        Err(error) => Err(error),
    }
}

/// How often the API server is asked.
const INTERVAL: Duration = Duration::from_secs(30);
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
