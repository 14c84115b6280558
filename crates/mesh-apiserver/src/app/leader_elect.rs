//! Flags of the election by a Lease, and its parts.

use anyhow::Context;

use super::Args;
use crate::election::settings::{InvalidTimes, Times};
use crate::election::{Campaign, Election, Permit, Settings};
use crate::source::SourceSpec;
use crate::source::kubernetes::access::{self, Access};
use crate::store::StoreSpec;

/// Which of several hubs writes. The names are those of Kubernetes' own components.
#[derive(Clone, Debug, clap::Args)]
pub struct LeaderElect {
    /// For `--source kubernetes` with `--store etcd:`: whether a Lease of the API server says which replica writes
    /// (docs/leader-election.md), or etcd alone. No other hub has rivals
    #[arg(long, env = "MESH_APISERVER_LEADER_ELECT", default_value_t = true, action = clap::ArgAction::Set)]
    pub leader_elect: bool,

    /// Name of the Lease
    #[arg(long, env = "MESH_APISERVER_LEADER_ELECT_RESOURCE_NAME", default_value = "mesh-apiserver")]
    pub leader_elect_resource_name: String,

    /// Namespace of the Lease [default: that of the pod, or of the kubeconfig's context]
    #[arg(long, env = "MESH_APISERVER_LEADER_ELECT_RESOURCE_NAMESPACE")]
    pub leader_elect_resource_namespace: Option<String>,

    /// Seconds after which a Lease that is not renewed is another replica's to take
    #[arg(long, env = "MESH_APISERVER_LEADER_ELECT_LEASE_DURATION", default_value_t = 15)]
    pub leader_elect_lease_duration: u16,

    /// Seconds after which a leader that cannot renew the Lease writes nothing more to the API server; shorter than the Lease
    #[arg(long, env = "MESH_APISERVER_LEADER_ELECT_RENEW_DEADLINE", default_value_t = 10)]
    pub leader_elect_renew_deadline: u16,

    /// Seconds between two renewals, and between two looks of those who wait; shorter than the deadline
    #[arg(long, env = "MESH_APISERVER_LEADER_ELECT_RETRY_PERIOD", default_value_t = 2)]
    pub leader_elect_retry_period: u16,
}

impl LeaderElect {
    /// The times, if they can work.
    pub fn times(&self) -> Result<Times, InvalidTimes> {
        let (duration, deadline) = (self.leader_elect_lease_duration, self.leader_elect_renew_deadline);
        Times::new(duration, deadline, self.leader_elect_retry_period)
    }
}

/// The permit of this hub's clients at the API server: one of several has to be elected first.
pub(super) fn permit(args: &Args) -> Permit {
    match args.store {
        StoreSpec::Embedded => Permit::always(),
        StoreSpec::Etcd(_) => Permit::withheld(),
    }
}

/// The election of this replica, and the task behind it; none where etcd alone elects. The API server is not asked.
///
/// Fails if the times cannot work.
pub(super) async fn prepare(
    args: &Args,
    access: &Access,
    me: &str,
) -> anyhow::Result<Option<(Election, Campaign)>> {
    let flags = &args.leader_elect;
    if !flags.leader_elect || args.source != SourceSpec::Kubernetes {
        return Ok(None);
    }
    let times = flags.times().context("--leader-elect-lease-duration and the like")?;
    let config = access.read().await.context("reach the API server")?;
    let namespace = flags.leader_elect_resource_namespace.clone();
    let settings = Settings {
        namespace: namespace.unwrap_or_else(|| config.default_namespace.clone()),
        name: flags.leader_elect_resource_name.clone(),
        times,
    };
    // Not by the permit, which it is about.
    let client = access::client(&config, &std::sync::Arc::default())?;
    Ok(Some(Election::new(client, settings, me)))
}
