//! A client configuration file in ClusterMesh's format: how to reach one cluster's hub, and with which
//! certificates. Cilium `pkg/clustermesh/common/config.go`; etcd `clientv3/yaml`.
//!
//! ```yaml
//! endpoints:
//! - https://tokyo.mesh.cilium.io:2379
//! trusted-ca-file: /var/lib/cilium/clustermesh/common-etcd-client-ca.crt
//! cert-file: /var/lib/cilium/clustermesh/common-etcd-client.crt
//! key-file: /var/lib/cilium/clustermesh/common-etcd-client.key
//! cilium-host-aliases:
//! - hostname: tokyo.mesh.cilium.io
//!   ips: ["172.18.0.10"]
//! ```
//! Our own member `isthmus` holds the [`Terms`].

mod held;
mod terms;

use std::collections::BTreeMap;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use self::held::Held;
pub use self::terms::Terms;

/// How to reach one cluster's hub, and on which terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubConfig {
    /// Where the hub listens; at least one. All are tried, in random order.
    pub endpoints: Vec<Endpoint>,
    /// The roots that the hub's certificate must end in.
    pub trusted_ca_file: PathBuf,
    /// The own certificate chain.
    pub cert_file: PathBuf,
    /// The key of the own certificate.
    pub key_file: PathBuf,
    /// Addresses of host names that need no DNS.
    pub aliases: BTreeMap<String, Vec<IpAddr>>,
    /// On which terms the cluster is a peer.
    pub terms: Terms,
    /// Those of the three that are no files.
    pub held: Held,
}

/// One place where a hub listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The host name or address; also the name that the hub's certificate must carry.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Why a file is not a usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("read peer configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is larger than any sensible configuration.
    #[error("peer configuration {path}: larger than {MAX_FILE} bytes, expected a short YAML file")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is not YAML of the expected shape.
    #[error("peer configuration {path}: not the expected YAML")]
    Yaml {
        /// The file.
        path: PathBuf,
        /// Why, with the line.
        #[source]
        source: serde_yaml_ng::Error,
    },
    /// A member is missing or wrong.
    #[error("peer configuration {path}: {member} is {found}, expected {expected}")]
    Member {
        /// The file.
        path: PathBuf,
        /// The member, by its name in the file.
        member: &'static str,
        /// What is there.
        found: String,
        /// What should be.
        expected: &'static str,
    },
}

/// The largest file that is read, in bytes: as much as a Secret can hold.
pub const MAX_FILE: u64 = 1024 * 1024;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    endpoints: Vec<String>,
    #[serde(alias = "ca-file")]
    trusted_ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    #[serde(default)]
    insecure_transport: bool,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
    #[serde(default)]
    cilium_host_aliases: Vec<Alias>,
    #[serde(default)]
    isthmus: Option<Terms>,
}

#[derive(Deserialize)]
struct Alias {
    #[serde(default)]
    hostname: String,
    #[serde(default)]
    ips: Vec<String>,
}

impl HubConfig {
    /// Reads the file at `path`; `None` if it is no cluster's configuration, which is any file without the text
    /// `endpoints:`. Certificate files are named here, but not read.
    pub fn load(path: &Path) -> Result<Option<Self>, ConfigError> {
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(read)?;
        file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(read)?;
        Self::read(path, &text)
    }

    /// As [`Self::load`], of a text that `path` names.
    pub fn read(path: &Path, text: &str) -> Result<Option<Self>, ConfigError> {
        if text.len() as u64 > MAX_FILE {
            return Err(ConfigError::TooLarge { path: path.to_owned() });
        }
        text.contains("endpoints:").then(|| Self::parse(path, text)).transpose()
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let file: File = serde_yaml_ng::from_str(text)
            .map_err(|source| ConfigError::Yaml { path: path.to_owned(), source })?;
        let member = |member, found: &str, expected| ConfigError::Member {
            path: path.to_owned(),
            member,
            found: found.to_owned(),
            expected,
        };
        let named = |name, file: Option<PathBuf>| {
            file.filter(|f| !f.as_os_str().is_empty())
                .ok_or_else(|| member(name, "missing", "the path of a PEM file"))
        };
        for (name, insecure) in [
            ("insecure-transport", file.insecure_transport),
            ("insecure-skip-tls-verify", file.insecure_skip_tls_verify),
        ] {
            if insecure {
                return Err(member(name, "true", "false: hubs are reached by mutual TLS only"));
            }
        }
        let endpoints: Vec<Endpoint> = file
            .endpoints
            .iter()
            .map(|text| {
                Endpoint::parse(text).ok_or_else(|| {
                    member("endpoints", text, "https://<host>:<port>, the port 2379 if none is given")
                })
            })
            .collect::<Result<_, _>>()?;
        if endpoints.is_empty() {
            return Err(member("endpoints", "empty", "at least one https://<host>:<port>"));
        }
        let mut aliases = BTreeMap::new();
        for alias in file.cilium_host_aliases {
            let invalid = |found: &str, expected| member("cilium-host-aliases", found, expected);
            if alias.hostname.is_empty() {
                return Err(invalid("an entry without hostname", "hostname and ips in each entry"));
            }
            let parse = |ip: &String| {
                ip.parse().map_err(|_not_one: std::net::AddrParseError| invalid(ip, "addresses in ips"))
            };
            let ips: Vec<IpAddr> = alias.ips.iter().map(parse).collect::<Result<_, _>>()?;
            if ips.is_empty() {
                return Err(invalid(&alias.hostname, "at least one address in ips"));
            }
            if aliases.insert(alias.hostname.clone(), ips).is_some() {
                return Err(invalid(&alias.hostname, "each hostname once"));
            }
        }
        Ok(Self {
            endpoints,
            trusted_ca_file: named("trusted-ca-file", file.trusted_ca_file)?,
            cert_file: named("cert-file", file.cert_file)?,
            key_file: named("key-file", file.key_file)?,
            aliases,
            terms: file.isthmus.unwrap_or_default(),
            held: Held::default(),
        })
    }
}

impl Endpoint {
    fn parse(text: &str) -> Option<Self> {
        let authority = text.strip_prefix("https://")?;
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                (host, port.strip_prefix(':'))
            }
            None => match authority.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let port = port.map_or(Some(2379), |text| text.parse().ok())?;
        let sound =
            !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b));
        sound.then(|| Self { host: host.to_owned(), port })
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "https://[{}]:{}", self.host, self.port),
            false => write!(f, "https://{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<HubConfig, String> {
        HubConfig::parse(Path::new("/peers/tokyo"), text).map_err(|e| e.to_string())
    }

    const FILES: &str = "trusted-ca-file: /c/ca\ncert-file: /c/crt\nkey-file: /c/key\n";

    #[test]
    fn a_rendered_file_is_read() {
        let config = parse(&format!(
            "endpoints:\n- https://tokyo.mesh.cilium.io:2379\n{FILES}cilium-host-aliases:\n- hostname: tokyo.mesh.cilium.io\n  ips: [\"172.18.0.10\", \"fd00::1\"]\n"
        ))
        .expect("the chart renders this");
        assert_eq!(config.endpoints, [Endpoint { host: "tokyo.mesh.cilium.io".to_owned(), port: 2379 }]);
        assert_eq!(config.aliases["tokyo.mesh.cilium.io"].len(), 2);
    }

    #[test]
    fn endpoints_have_three_forms() {
        let forms =
            [("https://a:1", "a", 1), ("https://a/", "a", 2379), ("https://[fd00::1]:2", "fd00::1", 2)];
        for (text, host, port) in forms {
            assert_eq!(Endpoint::parse(text), Some(Endpoint { host: host.to_owned(), port }), "{text}");
        }
        for bad in ["http://a:1", "a:1", "https://", "https://a:99999", "https://a b", "https://[::1"] {
            assert_eq!(Endpoint::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn errors_name_file_member_found_and_expected() {
        let missing = "endpoints: [https://a]\ncert-file: /c/crt\nkey-file: /c/key\n";
        assert_eq!(
            parse(missing).unwrap_err(),
            "peer configuration /peers/tokyo: trusted-ca-file is missing, expected the path of a PEM file"
        );
        let insecure = format!("endpoints: [https://a]\ninsecure-skip-tls-verify: true\n{FILES}");
        assert!(parse(&insecure).unwrap_err().contains("mutual TLS only"));
        let twice = format!(
            "endpoints: [https://a]\n{FILES}cilium-host-aliases: [{{hostname: a, ips: [10.0.0.1]}}, {{hostname: a, ips: [10.0.0.2]}}]\n"
        );
        assert!(parse(&twice).unwrap_err().contains("each hostname once"));
        assert!(parse("endpoints: {").is_err());
        let terms = |terms: &str| parse(&format!("endpoints: [https://a]\n{FILES}isthmus: {terms}\n"));
        assert_eq!(terms("{cluster-id: 2}").expect("terms").terms.cluster_id.map(|id| id.get()), Some(2));
        assert!(terms("{cluster-ids: 2}").is_err(), "terms that are not known are not passed over");
    }
}
