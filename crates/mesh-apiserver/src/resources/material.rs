//! Certificates that `ClusterPeer` objects give, or point to.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use mesh_resources::cluster_peer::Peer;
use mesh_runtime::Chain;
use topology::ClusterName;

use super::decide::{Decision, Followed};

/// What is known of a peer's certificates, as PEM. Not to be printed: a key may be among them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Material {
    /// The Secret that they are from, in words; `None` if the object itself has them, or if there are none.
    pub secret: Option<String>,
    /// The roots of the peer.
    pub roots: Option<Vec<u8>>,
    /// The client certificate for the peer, and its key.
    pub client: Option<(Vec<u8>, Vec<u8>)>,
}

/// The material of each peer whose object has a meaning, or why it cannot be used.
pub type Materials = BTreeMap<ClusterName, Result<Material, String>>;

/// Reads the Secrets that objects refer to.
pub struct Secrets {
    api: Api<Secret>,
    namespace: String,
}

impl Secrets {
    /// Those of a namespace. Nothing is asked yet.
    pub fn new(client: Client, namespace: String) -> Self {
        Self { api: Api::namespaced(client, &namespace), namespace }
    }

    /// The material of all peers that are to be followed. One request for each that refers to a Secret.
    pub async fn materials(&self, decision: &Decision) -> Materials {
        let mut materials = Materials::new();
        for (cluster, (_, followed)) in &decision.followed {
            if let Followed::Anew(peer) = followed {
                materials.insert(cluster.clone(), self.material(peer).await);
            }
        }
        materials
    }

    /// Fails if the Secret that the object refers to cannot be used.
    async fn material(&self, peer: &Peer) -> Result<Material, String> {
        let trust = peer.trust.clone().unwrap_or_default();
        let Some(reference) = trust.secret_ref else {
            return Ok(Material { roots: trust.bundle.map(String::into_bytes), ..Material::default() });
        };
        let name = format!("Secret {}/{}", self.namespace, reference.name);
        let named = |what: &str| format!("{name}: {what}");
        let secret = self.api.get_opt(&reference.name).await;
        let secret = secret.map_err(|error| named(&Chain(&error).to_string()))?;
        let mut data = secret.ok_or_else(|| named("it is not there"))?.data.unwrap_or_default();
        let mut take = |key: &str| data.remove(key).map(|bytes| bytes.0);
        let (roots, client) = (take("ca.crt"), take("tls.crt").zip(take("tls.key")));
        let is_pem = |roots: &Vec<u8>| String::from_utf8_lossy(roots).contains("-----BEGIN CERTIFICATE-----");
        if !roots.as_ref().is_some_and(is_pem) {
            return Err(named("ca.crt holds no PEM certificate"));
        }
        Ok(Material { secret: Some(name), roots, client })
    }
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material").field("secret", &self.secret).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}
