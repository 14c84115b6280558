//! The agents' peer configuration, as a Secret in ClusterMesh's layout: what an agent mounts as its folder of peers, and
//! what stock Cilium agents mount as `clustermesh`.
//!
//! | key | what |
//! |---|---|
//! | `<cluster>` | endpoints, host aliases, where the certificates below are once they are mounted, and on which terms it is a peer |
//! | `<cluster>.etcd-client-ca.crt` | the roots of the peer, if the object gives them |
//! | `<cluster>.etcd-client.crt`, `.key` | the client certificate for the peer, if the object's Secret has one |
//!
//! It is written by server-side apply, so keys of others in the same Secret stay, and one that both claim is refused.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use mesh_resources::cluster_peer::Peer;
use mesh_resources::condition::{PUBLISHED, Statement};
use mesh_runtime::Chain;
use serde_json::json;
use topology::ClusterName;
use tracing::info;

use super::answer::MANAGER;
use super::decide::{Decision, Followed};
use super::material::{Material, Materials};
use crate::finding::{Finding, Reason};
use crate::peers::objects::terms;

/// Where the agents' peer configuration is written, and what it says about files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentPeers {
    /// The Secret. Secrets that objects refer to are in the same namespace.
    pub secret: SecretName,
    /// Where agents mount it.
    pub peers_dir: PathBuf,
    /// Where agents have their own certificate (tls.crt, tls.key) and the roots of this cluster (ca.crt).
    pub tls_dir: PathBuf,
}

/// Namespace and name of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretName {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// Why a text does not name a Secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Secret {found:?}: expected <namespace>/<name>")]
pub struct InvalidSecretName {
    found: String,
}

/// Keeps the Secret as decided.
pub struct Publication {
    api: Api<Secret>,
    agents: AgentPeers,
    /// What was written last.
    written: Option<BTreeMap<String, ByteString>>,
}

type Data = BTreeMap<String, ByteString>;

impl Publication {
    /// Prepares to write. Nothing is asked or written yet.
    pub fn new(client: Client, agents: AgentPeers) -> Self {
        Self { api: Api::namespaced(client, &agents.secret.namespace), agents, written: None }
    }

    /// Brings the Secret to what is decided, and adds to the decision what became of each peer.
    ///
    /// Fails if the Secret cannot be read or written: then it is as it was.
    pub async fn publish(&mut self, decision: &mut Decision, materials: &Materials) -> Result<(), Finding> {
        let outcome = self.bring(decision, materials).await;
        let secret = self.agents.secret.to_string();
        let mut say = |object: &str, statement: Statement| {
            if let Some(judged) = decision.peers.get_mut(object) {
                judged.statements.push(statement);
            }
        };
        match &outcome {
            Ok(said) => {
                for (object, problem) in said {
                    say(
                        object,
                        match problem {
                            None => {
                                Statement::new(PUBLISHED, true, "Published", format!("in Secret {secret}"))
                            }
                            Some(problem) => Statement::new(PUBLISHED, false, "AsBefore", problem.clone()),
                        },
                    );
                }
            }
            Err(problem) => {
                let objects: Vec<String> =
                    decision.followed.values().map(|(object, _)| object.clone()).collect();
                for object in objects {
                    let message = format!("Secret {secret} could not be written: {problem}");
                    say(&object, Statement::new(PUBLISHED, false, "NotWritten", message));
                }
            }
        }
        outcome.map(drop).map_err(|problem| {
            Finding::error(Reason::SourceDenied, format_args!("Secret {secret}"))
                .found(problem)
                .expected(
                    "to be allowed to get, create and patch it, and that nobody else writes the same keys",
                )
                .so("agents follow the peers that it names now")
        })
    }

    async fn bring(
        &mut self,
        decision: &Decision,
        materials: &Materials,
    ) -> Result<BTreeMap<String, Option<String>>, String> {
        let text = |error: kube::Error| Chain(&error).to_string();
        let name = self.agents.secret.name.clone();
        let stored = self.api.get_opt(&name).await.map_err(text)?;
        let stored = stored.and_then(|secret| secret.data).unwrap_or_default();
        let (mut data, mut said) = (Data::new(), BTreeMap::new());
        for (cluster, (object, followed)) in &decision.followed {
            let rendered = match (followed, materials.get(cluster)) {
                (Followed::Anew(peer), Some(Ok(material))) => {
                    Ok(render(object, peer, material.clone(), &self.agents))
                }
                (Followed::Anew(_), Some(Err(problem))) => Err(problem.clone()),
                _ => Err("the object has no meaning at present".to_owned()),
            };
            let problem = match rendered {
                Ok(entries) => {
                    data.extend(entries);
                    None
                }
                Err(problem) => {
                    let before = keys(cluster).into_iter().filter_map(|key| stored.get_key_value(&key));
                    data.extend(before.map(|(key, value)| (key.clone(), value.clone())));
                    Some(format!("{problem}; agents follow the peer as before"))
                }
            };
            said.insert(object.clone(), problem);
        }
        let is_there = data.iter().all(|(key, value)| stored.get(key) == Some(value));
        // What an earlier run wrote and is no longer wanted is gone only after one apply.
        if self.written.as_ref() != Some(&data) || !is_there {
            // Neither type nor labels: whoever made it may say them in another way.
            let body =
                json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data});
            let applied = self.api.patch(&name, &PatchParams::apply(MANAGER), &Patch::Apply(&body)).await;
            applied.map_err(text)?;
            info!(secret = %name, peers = decision.followed.len(), "peer configuration of the agents written");
            self.written = Some(data);
        }
        Ok(said)
    }
}

/// The keys that a peer can have.
fn keys(cluster: &ClusterName) -> [String; 4] {
    let of = |end: &str| format!("{cluster}.{end}");
    [cluster.to_string(), of(ROOTS), of(CERTIFICATE), of(KEY)]
}

fn render(object: &str, peer: &Peer, material: Material, agents: &AgentPeers) -> Data {
    let [config, roots, certificate, key] = keys(&peer.cluster);
    let mounted = |name: &str| agents.peers_dir.join(name).display().to_string();
    let own = |name: &str| agents.tls_dir.join(name).display().to_string();
    let mut data = Data::new();
    let roots_file = match material.roots {
        Some(bytes) => {
            let file = mounted(&roots);
            data.insert(roots, ByteString(bytes));
            file
        }
        None => own("ca.crt"),
    };
    let (certificate_file, key_file) = match material.client {
        Some((chain, secret)) => {
            let files = (mounted(&certificate), mounted(&key));
            data.insert(certificate, ByteString(chain));
            data.insert(key, ByteString(secret));
            files
        }
        None => (own("tls.crt"), own("tls.key")),
    };
    // JSON strings are YAML strings, whatever is in them.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut text = "endpoints:\n".to_owned();
    for endpoint in &peer.endpoints {
        text.push_str(&format!("- {}\n", quoted(&endpoint.to_string())));
    }
    for (member, file) in
        [("trusted-ca-file", roots_file), ("cert-file", certificate_file), ("key-file", key_file)]
    {
        text.push_str(&format!("{member}: {}\n", quoted(&file)));
    }
    if !peer.aliases.is_empty() {
        text.push_str("cilium-host-aliases:\n");
    }
    for (hostname, addresses) in &peer.aliases {
        let addresses: Vec<String> = addresses.iter().map(|address| quoted(&address.to_string())).collect();
        text.push_str(&format!("- hostname: {}\n  ips: [{}]\n", quoted(hostname), addresses.join(", ")));
    }
    // JSON is YAML. Stock clients pass it over, ours hold records against it.
    let terms = serde_json::to_string(&terms(object, peer)).expect("text keys and no failing members");
    text.push_str(&format!("isthmus: {terms}\n"));
    data.insert(config, ByteString(text.into_bytes()));
    data
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for SecretName {
    type Err = InvalidSecretName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidSecretName { found: text.to_owned() };
        let (namespace, name) = text.split_once('/').ok_or_else(invalid)?;
        let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
        let is_name = |part: &str| (1..=253).contains(&part.len()) && part.bytes().all(known);
        if !is_name(namespace) || !is_name(name) {
            return Err(invalid());
        }
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

impl fmt::Debug for Publication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publication").field("agents", &self.agents).finish_non_exhaustive()
    }
}

const ROOTS: &str = "etcd-client-ca.crt";
const CERTIFICATE: &str = "etcd-client.crt";
const KEY: &str = "etcd-client.key";

#[cfg(test)]
mod tests {
    use mesh_resources::ClusterPeer;

    use super::*;

    fn agents() -> AgentPeers {
        AgentPeers {
            secret: "isthmus/peers".parse().expect("a name"),
            peers_dir: "/etc/isthmus/peers".into(),
            tls_dir: "/etc/isthmus/tls".into(),
        }
    }

    fn peer(spec: serde_json::Value) -> Peer {
        let spec = serde_json::from_value(spec).expect("of the right shape");
        ClusterPeer::new("tokyo", spec).parse().expect("sound")
    }

    fn text(data: &Data, key: &str) -> String {
        String::from_utf8(data[key].0.clone()).expect("text")
    }

    #[test]
    fn a_peer_of_the_same_mesh_is_reached_with_the_agents_own_certificates() {
        let spec = json!({"endpoints": ["https://tokyo.mesh.cilium.io"],
            "hostAliases": [{"hostname": "tokyo.mesh.cilium.io", "ips": ["172.18.0.10", "fd00::1"]}]});
        let data = render("a", &peer(spec), Material::default(), &agents());
        assert_eq!(data.keys().collect::<Vec<_>>(), ["tokyo"]);
        let expected = "endpoints:\n- \"https://tokyo.mesh.cilium.io:2379\"\ntrusted-ca-file: \"/etc/isthmus/tls/ca.crt\"\n\
            cert-file: \"/etc/isthmus/tls/tls.crt\"\nkey-file: \"/etc/isthmus/tls/tls.key\"\n\
            cilium-host-aliases:\n- hostname: \"tokyo.mesh.cilium.io\"\n  ips: [\"172.18.0.10\", \"fd00::1\"]\n\
            isthmus: {\"written-from\":\"a\"}\n";
        assert_eq!(text(&data, "tokyo"), expected);
    }

    #[test]
    fn roots_and_a_client_certificate_lie_beside_it() {
        let client = Some((b"chain".to_vec(), b"key".to_vec()));
        let material = Material { roots: Some(b"roots".to_vec()), client, ..Material::default() };
        let spec = json!({"endpoints": ["https://[fd00::1]:1"], "cluster": {"id": 2},
            "import": {"preset": "Nothing", "services": {"include": ["shop/*"]}}});
        let data = render("tokyo", &peer(spec), material, &agents());
        let expected =
            ["tokyo", "tokyo.etcd-client-ca.crt", "tokyo.etcd-client.crt", "tokyo.etcd-client.key"];
        assert_eq!(data.keys().collect::<Vec<_>>(), expected);
        assert_eq!(text(&data, "tokyo.etcd-client-ca.crt"), "roots");
        assert!(text(&data, "tokyo").contains("key-file: \"/etc/isthmus/peers/tokyo.etcd-client.key\"\n"));
        // What is written is what agents read.
        let path = std::path::Path::new("tokyo");
        let read = peering::config::HubConfig::read(path, &text(&data, "tokyo"));
        let terms = read.expect("sound").expect("a configuration").terms;
        assert_eq!(terms.cluster_id.map(|id| id.get()), Some(2));
        assert_eq!(terms.written_from.as_deref(), Some("tokyo"));
        let admits = |name: &str| terms.import.admits_service(&name.parse().expect("a service"));
        assert_eq!([admits("shop/cart"), admits("bank/cash")], [true, false]);
    }

    #[test]
    fn a_secret_has_two_names() {
        for bad in ["", "a", "/a", "a/", "a/b/c", "A/b"] {
            assert!(bad.parse::<SecretName>().is_err(), "{bad:?}");
        }
    }
}
