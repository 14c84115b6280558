//! A peer with all that its object says understood.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use kube::ResourceExt;
use topology::cluster::{InvalidClusterId, InvalidClusterName};
use topology::{ClusterId, ClusterName, ExportFilter, ImportGrant};

use super::trust::{Problem, Trust};
use super::{ClusterPeer, HostAlias};

/// A remote cluster, as its object says.
#[derive(Clone, Debug, PartialEq)]
pub struct Peer {
    /// Its name.
    pub cluster: ClusterName,
    /// Its id, if the operator says which it must have.
    pub id: Option<ClusterId>,
    /// Where its hub listens; at least one.
    pub endpoints: Vec<Endpoint>,
    /// Addresses of host names that need no DNS.
    pub aliases: BTreeMap<String, Vec<IpAddr>>,
    /// Where its roots are, if not where those of this cluster are.
    pub trust: Option<Trust>,
    /// Its blocks, if it has no passport that says them.
    pub unattested: Option<Vec<IpNet>>,
    /// What it is shown, if it has a filter of its own.
    pub export: Option<ExportFilter>,
    /// What it may offer, if that is bounded.
    pub import: Option<ImportGrant>,
    /// Whether nothing passes.
    pub paused: bool,
}

/// One place where a hub listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// The host name or address; also the name that the hub's certificate must carry.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Why an object cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum InvalidPeer {
    /// No cluster has such a name.
    #[error(transparent)]
    Name(#[from] InvalidClusterName),
    /// No cluster has such an id.
    #[error(transparent)]
    Id(#[from] InvalidClusterId),
    /// A hub cannot be reached there.
    #[error("spec.endpoints: {found:?}, expected {expected}")]
    Endpoint {
        /// The text; empty, if there is none.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A host name without sound addresses, or twice.
    #[error("spec.hostAliases: {hostname}: {found}")]
    Alias {
        /// The host name.
        hostname: String,
        /// What is wrong.
        found: String,
    },
    /// Nobody to believe.
    #[error("spec.trust: {0}")]
    Trust(Problem),
    /// A filter without a meaning.
    #[error("spec.export: {0}")]
    Export(serde_json::Error),
    /// A grant without a meaning.
    #[error("spec.import: {0}")]
    Import(serde_json::Error),
}

impl ClusterPeer {
    /// Which cluster it is: the name that it says, or else its own.
    pub fn cluster(&self) -> Result<ClusterName, InvalidClusterName> {
        let said = self.spec.cluster.as_ref().and_then(|cluster| cluster.name.clone());
        said.unwrap_or_else(|| self.name_any()).parse()
    }

    /// What it is shown, if the object says so and it has a meaning. `paused` is not looked at.
    pub fn export_filter(&self) -> Result<Option<ExportFilter>, InvalidPeer> {
        self.spec.export.as_ref().map(|export| export.filter().map_err(InvalidPeer::Export)).transpose()
    }

    /// Which id it must have, if the operator says so.
    pub fn id(&self) -> Result<Option<ClusterId>, InvalidClusterId> {
        let id = self.spec.cluster.as_ref().and_then(|cluster| cluster.id);
        id.map(|id| id.to_string().parse()).transpose()
    }

    /// All that it says. Fails with the first thing that has no meaning; the API server refuses most of it before.
    pub fn parse(&self) -> Result<Peer, InvalidPeer> {
        let spec = &self.spec;
        let (cluster, id, export) = (self.cluster()?, self.id()?, self.export_filter()?);
        let endpoints = spec.endpoints.iter().map(|text| text.parse()).collect::<Result<Vec<_>, _>>()?;
        if endpoints.is_empty() {
            return Err(InvalidPeer::Endpoint { found: String::new(), expected: "at least one" });
        }
        let aliases = aliases(&spec.host_aliases)?;
        let unattested =
            spec.trust.as_ref().map(Trust::check).transpose().map_err(InvalidPeer::Trust)?.flatten();
        let import = spec.import.as_ref().map(super::Import::grant).transpose();
        let import = import.map_err(InvalidPeer::Import)?;
        let (trust, paused) = (spec.trust.clone(), spec.paused);
        Ok(Peer { cluster, id, endpoints, aliases, trust, unattested, export, import, paused })
    }
}

impl InvalidPeer {
    /// The reason for a condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Name(_) => "BadName",
            Self::Id(_) => "BadId",
            Self::Endpoint { .. } => "BadEndpoint",
            Self::Alias { .. } => "BadHostAlias",
            Self::Trust(_) => "BadTrust",
            Self::Export(_) => "BadExport",
            Self::Import(_) => "BadImport",
        }
    }
}

impl FromStr for Endpoint {
    type Err = InvalidPeer;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = |expected| InvalidPeer::Endpoint { found: text.chars().take(300).collect(), expected };
        let form = || bad("https://HOST[:PORT]");
        let authority = text.strip_prefix("https://").ok_or_else(form)?;
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(form)?;
                host.parse::<Ipv6Addr>().map_err(|_not_one| bad("an IPv6 address in the brackets"))?;
                match port {
                    "" => (host, None),
                    port => (host, Some(port.strip_prefix(':').ok_or_else(form)?)),
                }
            }
            None => match authority.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let port = port.map_or(Ok(DEFAULT_PORT), str::parse).ok().filter(|port| *port > 0);
        let port = port.ok_or_else(|| bad("a port from 1 to 65535"))?;
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
        if host.is_empty() || host.len() > 253 || !host.bytes().all(known) {
            return Err(form());
        }
        let numeric =
            host.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
        match host.parse::<IpAddr>() {
            Ok(ip) if ip.is_unspecified() || ip.is_multicast() => Err(bad("an address of one machine")),
            Err(_) if numeric => Err(bad("an address of four numbers up to 255, or a host name")),
            _ if host.contains(':') && !authority.starts_with('[') => Err(bad("an IPv6 address in brackets")),
            _ => Ok(Self { host: host.to_owned(), port }),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "https://[{}]:{}", self.host, self.port),
            false => write!(f, "https://{}:{}", self.host, self.port),
        }
    }
}

fn aliases(list: &[HostAlias]) -> Result<BTreeMap<String, Vec<IpAddr>>, InvalidPeer> {
    let mut aliases = BTreeMap::new();
    for alias in list {
        let bad = |found: String| InvalidPeer::Alias { hostname: alias.hostname.clone(), found };
        let addresses = alias.addresses().map_err(|text| bad(format!("{text:?} is no address")))?;
        if addresses.is_empty() {
            return Err(bad("no address, expected at least one".to_owned()));
        }
        if aliases.insert(alias.hostname.clone(), addresses).is_some() {
            return Err(bad("named twice".to_owned()));
        }
    }
    Ok(aliases)
}

const DEFAULT_PORT: u16 = 2379;

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(spec: serde_json::Value) -> ClusterPeer {
        ClusterPeer::new("tokyo", serde_json::from_value(spec).expect("of the right shape"))
    }

    #[test]
    fn the_object_names_the_cluster_unless_it_says_another() {
        let plain =
            peer(serde_json::json!({"endpoints": ["https://tokyo.mesh.cilium.io"]})).parse().expect("sound");
        assert_eq!(plain.cluster.as_str(), "tokyo");
        assert_eq!(plain.endpoints, [Endpoint { host: "tokyo.mesh.cilium.io".to_owned(), port: 2379 }]);
        let named =
            peer(serde_json::json!({"endpoints": ["https://a:1"], "cluster": {"name": "lima", "id": 7}}));
        let named = named.parse().expect("sound");
        assert_eq!((named.cluster.as_str(), named.id.map(ClusterId::get)), ("lima", Some(7)));
    }

    #[test]
    fn what_has_no_meaning_has_a_reason() {
        let end = "https://a:1";
        for (spec, reason) in [
            (serde_json::json!({"endpoints": []}), "BadEndpoint"),
            (serde_json::json!({"endpoints": ["https://0.0.0.0:2379"]}), "BadEndpoint"),
            (serde_json::json!({"endpoints": ["https://300.1.1.1"]}), "BadEndpoint"),
            (serde_json::json!({"endpoints": ["https://a:0"]}), "BadEndpoint"),
            (serde_json::json!({"endpoints": ["https://a:65536"]}), "BadEndpoint"),
            (serde_json::json!({"endpoints": ["https://fd00::1:2379"]}), "BadEndpoint"),
            (serde_json::json!({"endpoints": ["https://[fd00::1]2379"]}), "BadEndpoint"),
            (serde_json::json!({"endpoints": ["http://a:1"]}), "BadEndpoint"),
            (serde_json::json!({"endpoints": [end], "cluster": {"name": "default"}}), "BadName"),
            (serde_json::json!({"endpoints": [end], "cluster": {"id": 512}}), "BadId"),
            (
                serde_json::json!({"endpoints": [end], "hostAliases": [{"hostname": "a", "ips": ["1.2.3"]}]}),
                "BadHostAlias",
            ),
            (serde_json::json!({"endpoints": [end], "trust": {"bundle": "x"}}), "BadTrust"),
            (
                serde_json::json!({"endpoints": [end], "trust": {"unattested": {"cidrs": ["10.0.0.0/33"]}}}),
                "BadTrust",
            ),
            (
                serde_json::json!({"endpoints": [end], "export": {"services": {"include": ["shop"]}}}),
                "BadExport",
            ),
            (
                serde_json::json!({"endpoints": [end], "import": {"namespaces": {"include": ["a/b"]}}}),
                "BadImport",
            ),
        ] {
            let error = peer(spec.clone()).parse().expect_err(&spec.to_string());
            assert_eq!(error.reason(), reason, "{spec}: {error}");
        }
    }

    #[test]
    fn endpoints_are_printed_as_they_are_read() {
        for text in ["https://a:1", "https://[fd00::1]:2379", "https://10.0.0.1:2379"] {
            assert_eq!(text.parse::<Endpoint>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn a_filter_is_that_of_the_file() {
        let spec = serde_json::json!({"endpoints": ["https://a:1"], "export": {
            "namespaces": {"include": ["shop", "pay-*"], "exclude": ["pay-test"]},
            "labels": {"matchLabels": {"mesh": "yes"},
                "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["internal"]}]}}});
        let text = serde_json::json!({"namespaces": {"include": ["pay-*", "shop"], "exclude": ["pay-test"]},
            "labels": {"matchLabels": {"mesh": "yes"},
                "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["internal"]}]}});
        let expected: ExportFilter = serde_json::from_value(text).expect("the language of the file");
        assert_eq!(peer(spec).parse().expect("sound").export, Some(expected));
    }
}
