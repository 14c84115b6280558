//! `cilium/cluster-config/<cluster>`: what a cluster is and how its records are to be read.
//! Cilium `pkg/clustermesh/types/types.go`.

use serde::{Deserialize, Serialize};

use super::{Rejected, from_json, to_json};
use crate::cluster::{ClusterId, MaxClusters};

/// A cluster's published configuration, in its wire form. STABLE FORMAT.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterConfig {
    /// The cluster's id; 0 (absent) is not a member of any mesh.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub id: u32,
    /// What the writer can do.
    #[serde(default)]
    pub capabilities: Capabilities,
}

/// What the writer of a cluster's records can do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Capabilities {
    /// Readers wait for the canary of each kind before they list it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub synced_canaries: bool,
    /// Records live under `cilium/cache/`: the writer is a mirror.
    #[serde(default, skip_serializing_if = "is_false")]
    pub cached: bool,
    /// 255 or 511.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub max_connected_clusters: u32,
    /// Absent: the writer predates MCS-API; false: it knows it, but it is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_exports_enabled: Option<bool>,
    /// Empty: services only; `services-and-endpointslices`; `endpointslices-only`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub endpoint_slices_export_mode: String,
}

impl ClusterConfig {
    /// The configuration of a hub of ours: canaries, services and slices, MCS-API known but off.
    pub fn of_hub(id: ClusterId, max: MaxClusters) -> Self {
        Self {
            id: id.into(),
            capabilities: Capabilities {
                synced_canaries: true,
                cached: false,
                max_connected_clusters: max.get(),
                service_exports_enabled: Some(false),
                endpoint_slices_export_mode: "services-and-endpointslices".to_owned(),
            },
        }
    }

    /// Reads a peer's configuration by the rules of Cilium's agent
    /// (`pkg/clustermesh/types/option.go`, `ValidateRemoteConfig`).
    ///
    /// Fails if the id is 0 or above the mesh's maximum, if a mesh of 511 meets a peer that is not, or if
    /// the export mode is unknown.
    pub fn decode(value: &[u8], max: MaxClusters) -> Result<(ClusterId, Self), Rejected> {
        let config: Self = from_json(value)?;
        let id = ClusterId::try_from(config.id).ok().filter(|id| u32::from(*id) <= max.get());
        let id = id.ok_or_else(|| {
            Rejected::malformed("id", config.id.to_string(), "1 to the mesh's maximum of connected clusters")
        })?;
        let peers_max = config.capabilities.max_connected_clusters;
        if max == MaxClusters::N511 && peers_max != max.get() {
            return Err(Rejected::Mismatch {
                member: "maxConnectedClusters",
                found: peers_max.to_string(),
                expected: max.get().to_string(),
            });
        }
        match config.capabilities.endpoint_slices_export_mode.as_str() {
            "" | "services-and-endpointslices" | "endpointslices-only" => Ok((id, config)),
            other => Err(Rejected::malformed(
                "endpointSlicesExportMode",
                other,
                "nothing, services-and-endpointslices or endpointslices-only",
            )),
        }
    }

    /// The value as a stock apiserver writes it.
    pub fn encode(&self) -> Vec<u8> {
        to_json(self)
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn is_false(flag: &bool) -> bool {
    !*flag
}
