//! The objects of a cluster that runs Cilium, as far as they are published. Cilium `pkg/k8s/apis/cilium.io/v2/types.go`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Deserializer};
use topology::Labels;
use topology::block::parse_address;
use topology::labels::NAMESPACE_LABEL;
use topology::record::Protocol;
use topology::record::ip::NamedPort;

use super::identity::from_map;

/// A `CiliumIdentity` as the hub keeps it: its name is the number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CiliumIdentity {
    /// The number, as text.
    pub name: Box<str>,
    /// Its labels; none if it has none that can be read, and then it is not published, as in stock.
    pub labels: Arc<Labels>,
}

/// A `CiliumEndpoint` as the hub keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CiliumEndpoint {
    /// `metadata.namespace`.
    pub namespace: Box<str>,
    /// `metadata.name`: that of the pod.
    pub name: Box<str>,
    /// `metadata.creationTimestamp`.
    pub created: Option<Timestamp>,
    /// `status.identity.id`.
    pub identity: Option<u32>,
    /// `status.networking.addressing`, those that are addresses, in their order.
    pub addresses: Box<[IpAddr]>,
    /// `status.networking.node`, if it is an address.
    pub host: Option<IpAddr>,
    /// `status.encryption.key`.
    pub key: u8,
    /// `status.service-account`.
    pub service_account: Option<Box<str>>,
    /// `status.named-ports`, those that are ports, in their order.
    pub named_ports: Box<[NamedPort]>,
}

/// A `CiliumNode`: metadata and `spec`, as far as it is read.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "members are named and meant as in Cilium's CiliumNode")]
pub struct CiliumNode {
    pub metadata: ObjectMeta,
    #[serde(deserialize_with = "nullable")]
    pub spec: NodeSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "members are named and meant as in Cilium's CiliumNode")]
pub struct NodeSpec {
    #[serde(deserialize_with = "nullable")]
    pub addresses: Vec<NodeAddress>,
    #[serde(deserialize_with = "nullable")]
    pub health: Pair,
    #[serde(deserialize_with = "nullable")]
    pub ingress: Pair,
    #[serde(deserialize_with = "nullable")]
    pub encryption: Encryption,
    #[serde(deserialize_with = "nullable")]
    pub ipam: Ipam,
    #[serde(rename = "bootid")]
    pub boot_id: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "members are named and meant as in Cilium's CiliumNode")]
pub struct NodeAddress {
    #[serde(rename = "type")]
    pub kind: String,
    pub ip: String,
}

/// An address of each family; empty where there is none.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the families")]
pub struct Pair {
    pub ipv4: String,
    pub ipv6: String,
}

/// Which of its IPsec keys a node or endpoint uses; 0 is none.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the index of a key")]
pub struct Encryption {
    pub key: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "members are named and meant as in Cilium's CiliumNode")]
pub struct Ipam {
    #[serde(rename = "podCIDRs", deserialize_with = "nullable")]
    pub pod_cidrs: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub pools: Pools,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "members are named and meant as in Cilium's CiliumNode")]
pub struct Pools {
    #[serde(deserialize_with = "nullable")]
    pub allocated: Vec<Pool>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "members are named and meant as in Cilium's CiliumNode")]
pub struct Pool {
    #[serde(deserialize_with = "nullable")]
    pub cidrs: Vec<String>,
}

/// A `CiliumIdentity` as the API server has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RawIdentity {
    /// Its name.
    pub metadata: ObjectMeta,
    /// Labels by `<source>:<key>`.
    #[serde(rename = "security-labels", deserialize_with = "nullable")]
    pub security_labels: BTreeMap<String, String>,
}

/// A `CiliumEndpoint` as the API server has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RawEndpoint {
    /// Namespace and name.
    pub metadata: ObjectMeta,
    #[serde(deserialize_with = "nullable")]
    status: RawStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct RawStatus {
    pub(super) identity: Option<RawEndpointIdentity>,
    pub(super) networking: Option<RawNetworking>,
    #[serde(deserialize_with = "nullable")]
    pub(super) encryption: Encryption,
    #[serde(deserialize_with = "nullable")]
    pub(super) named_ports: Vec<RawPort>,
    pub(super) service_account: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawEndpointIdentity {
    pub(super) id: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawNetworking {
    #[serde(deserialize_with = "nullable")]
    addressing: Vec<Pair>,
    node: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawPort {
    name: String,
    port: i64,
    protocol: String,
}

impl CiliumIdentity {
    /// The namespace that its labels name.
    pub fn namespace(&self) -> Option<&str> {
        self.labels
            .get(NAMESPACE_LABEL)
            .filter(|label| label.source == "k8s")
            .map(|label| label.value.as_str())
    }
}

impl From<RawIdentity> for CiliumIdentity {
    fn from(raw: RawIdentity) -> Self {
        let name = raw.metadata.name.unwrap_or_default().into_boxed_str();
        Self { name, labels: Arc::new(from_map(&raw.security_labels).unwrap_or_default()) }
    }
}

impl From<RawEndpoint> for CiliumEndpoint {
    fn from(raw: RawEndpoint) -> Self {
        let RawEndpoint { metadata, status } = raw;
        let boxed = |text: Option<String>| text.unwrap_or_default().into_boxed_str();
        let created = metadata.creation_timestamp.map(|time| time.0);
        Self { created, ..status.endpoint(boxed(metadata.namespace), boxed(metadata.name)) }
    }
}

impl RawStatus {
    /// The endpoint of which this is said; without the time when it was created.
    pub(super) fn endpoint(self, namespace: Box<str>, name: Box<str>) -> CiliumEndpoint {
        let networking = self.networking.unwrap_or_default();
        let service_account = Some(self.service_account).filter(|name| !name.is_empty());
        CiliumEndpoint {
            namespace,
            name,
            created: None,
            identity: self.identity.and_then(|identity| u32::try_from(identity.id).ok()),
            addresses: networking.addresses(),
            host: parse_address(&networking.node),
            key: key(&self.encryption),
            service_account: service_account.map(String::into_boxed_str),
            named_ports: self.named_ports.into_iter().filter_map(named_port).collect(),
        }
    }
}

impl RawNetworking {
    /// Those that are addresses, each once, in their order.
    fn addresses(&self) -> Box<[IpAddr]> {
        let pairs = self.addressing.iter().flat_map(|pair| [&pair.ipv4, &pair.ipv6]);
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in pairs.filter_map(|text| parse_address(text)) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses.into_boxed_slice()
    }
}

/// The index of a key as it is published, cut to eight bits as in stock.
pub fn key(encryption: &Encryption) -> u8 {
    encryption.key.to_le_bytes()[0]
}

fn named_port(port: RawPort) -> Option<NamedPort> {
    let number = u16::try_from(port.port).ok().filter(|number| *number > 0)?;
    let protocol = Protocol::from_kubernetes(&port.protocol)?;
    Some(NamedPort { name: port.name, port: number, protocol: protocol.as_str().to_owned() })
}

/// A member that may be `null`, which then is as if it were absent.
pub(super) fn nullable<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_read_as_cilium_writes_it() {
        let raw = serde_json::json!({
            "metadata": {"name": "a", "namespace": "shop"},
            "status": {"id": 7, "identity": {"id": 199_475, "labels": ["k8s:app=a"]}, "encryption": {"key": 5},
                "named-ports": [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "no", "port": 0, "protocol": "TCP"}],
                "networking": {"addressing": [{"ipv4": "10.1.0.7", "ipv6": "fd00::7"}, {"ipv4": "no"}], "node": "172.18.0.2"},
                "service-account": "default", "state": "ready"}});
        let endpoint = CiliumEndpoint::from(serde_json::from_value::<RawEndpoint>(raw).expect("an object"));
        let expected: [IpAddr; 2] = ["10.1.0.7", "fd00::7"].map(|text| text.parse().expect("an address"));
        assert_eq!(*endpoint.addresses, expected);
        assert_eq!((endpoint.identity, endpoint.key, endpoint.named_ports.len()), (Some(199_475), 5, 1));
        assert_eq!(endpoint.service_account.as_deref(), Some("default"));
        let bare = serde_json::json!({"metadata": {"name": "a"}, "status": null});
        let bare = CiliumEndpoint::from(serde_json::from_value::<RawEndpoint>(bare).expect("an object"));
        assert_eq!((bare.identity, bare.addresses.len()), (None, 0));
        let null = serde_json::json!({"metadata": {"name": "a"}, "status": {"networking": {"addressing": null}, "named-ports": null}});
        assert!(serde_json::from_value::<RawEndpoint>(null).is_ok());
    }
}
