//! `cilium/state/ip/v1/default/<address>`: which identity an address has.
//! Cilium `pkg/identity/identity.go` (`IPIdentityPair`), `pkg/ipcache/kvstore.go`.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Origin, Rejected, address, expect_equal, from_json, to_json};
use crate::identity::Identity;

/// An address and its identity in the wire form. STABLE FORMAT; `Mask` is written as `null` when unset, as
/// stock 1.20 does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[expect(missing_docs, reason = "members are named and meant as in Cilium's IPIdentityPair")]
pub struct IpValue {
    #[serde(rename = "IP")]
    pub ip: String,
    pub mask: Option<String>,
    #[serde(rename = "HostIP")]
    pub host_ip: String,
    #[serde(rename = "ID")]
    pub id: u32,
    pub key: u8,
    pub metadata: String,
    #[serde(rename = "K8sNamespace", skip_serializing_if = "String::is_empty")]
    pub k8s_namespace: String,
    #[serde(rename = "K8sPodName", skip_serializing_if = "String::is_empty")]
    pub k8s_pod_name: String,
    #[serde(rename = "K8sServiceAccount", skip_serializing_if = "String::is_empty")]
    pub k8s_service_account: String,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub named_ports: Vec<NamedPort>,
}

/// A port of a pod that has a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NamedPort {
    /// The name.
    pub name: String,
    /// The number.
    pub port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
}

/// An address, or block of addresses, and what is known about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpEntry {
    /// The block: of full length for a pod.
    pub block: IpNet,
    /// The identity of whoever sends from there.
    pub identity: Identity,
    /// The address of the node behind which it is.
    pub host: Option<IpAddr>,
    /// Namespace and name of the pod, for display.
    pub pod: Option<(String, String)>,
}

impl IpValue {
    /// The value as a stock apiserver writes it.
    pub fn encode(&self) -> Vec<u8> {
        to_json(self)
    }

    /// The last part of the key, which readers recompute from the value: the address, and `/<length>` where
    /// there is a mask. `None` if address or mask cannot be read.
    pub fn key_suffix(&self) -> Option<String> {
        let block = self.block()?;
        Some(match &self.mask {
            None => block.addr().to_string(),
            Some(_) => format!("{}/{}", block.addr(), block.prefix_len()),
        })
    }

    fn block(&self) -> Option<IpNet> {
        let address = crate::block::parse_address(&self.ip)?;
        match &self.mask {
            None => Some(IpNet::from(address)),
            Some(mask) => {
                let mask = STANDARD.decode(mask).ok()?;
                super::node::block_of(address, &mask)
            }
        }
    }
}

impl IpEntry {
    /// Reads the record with key suffix `suffix` of the cluster `origin`.
    ///
    /// Fails if the value is not JSON, if the key is not the one that the value stands for, or if the
    /// identity is neither reserved nor in the cluster's range. `host` from another cluster means one of
    /// *its* nodes and becomes `remote-node`.
    pub fn decode(origin: &Origin, suffix: &str, value: &[u8]) -> Result<Self, Rejected> {
        let value: IpValue = from_json(value)?;
        let key = value.key_suffix().ok_or_else(|| Rejected::malformed("IP", &value.ip, "an address"))?;
        expect_equal("IP", &key, suffix)?;
        let block = value.block().ok_or_else(|| Rejected::malformed("IP", &value.ip, "an address"))?;
        let identity = match Identity(value.id) {
            Identity::HOST => Identity::REMOTE_NODE,
            other => other,
        };
        if !identity.is_reserved() && !identity.belongs_to(origin.id, origin.max) {
            return Err(Rejected::malformed(
                "ID",
                value.id.to_string(),
                "a number in the range of the cluster's id",
            ));
        }
        let host = match value.host_ip.as_str() {
            "" => None,
            text => Some(address("HostIP", text)?),
        };
        let pod = (!value.k8s_pod_name.is_empty()).then_some((value.k8s_namespace, value.k8s_pod_name));
        Ok(Self { block, identity, host, pod })
    }
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<NamedPort>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
