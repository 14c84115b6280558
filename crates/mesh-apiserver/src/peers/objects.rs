//! What `ClusterPeer` objects say, as the other inputs say it.

use std::path::Path;

use mesh_resources::cluster_peer::Peer;
use peering::config::{Endpoint, Held, HubConfig, Terms};

use super::{Input, Said};
use crate::resources::material::Material;

/// What the objects say, with a number by which an answer can say which saying it is about.
#[derive(Clone, Debug, PartialEq)]
pub struct FromObjects {
    /// Larger with each saying.
    pub number: u64,
    /// What they say.
    pub said: Said,
}

impl FromObjects {
    /// Nothing is said yet. `names_peers`: this hub follows the peers that objects name, rather than only writing them out
    /// for its agents.
    pub fn unread(names_peers: bool) -> Self {
        Self { number: 0, said: Said { names_peers, ..Said::unread(Input::Objects, "ClusterPeer objects") } }
    }
}

/// On which terms the cluster of an object is a peer.
pub fn terms(object: &str, peer: &Peer) -> Terms {
    Terms {
        cluster_id: peer.id,
        import: peer.import.clone().unwrap_or_default(),
        unattested_cidrs: peer.unattested.clone(),
        written_from: Some(object.to_owned()),
    }
}

/// How the cluster of an object is reached. `tls_dir` has the certificate with which this hub goes to peers, and the roots
/// that count where the object says nothing.
pub fn config(object: &str, peer: &Peer, material: &Material, tls_dir: &Path) -> HubConfig {
    let mut held = Held::default();
    let mut named = |what: &str, content: Option<&Vec<u8>>| match content {
        Some(content) => {
            let place = material.secret.as_deref().unwrap_or("spec.trust.bundle");
            held.hold(format!("ClusterPeer {object}, {place}, {what}"), content.clone())
        }
        None => tls_dir.join(what),
    };
    let client = material.client.as_ref();
    HubConfig {
        endpoints: peer.endpoints.iter().map(endpoint).collect(),
        trusted_ca_file: named("ca.crt", material.roots.as_ref()),
        cert_file: named("tls.crt", client.map(|(chain, _)| chain)),
        key_file: named("tls.key", client.map(|(_, key)| key)),
        aliases: peer.aliases.clone(),
        terms: terms(object, peer),
        held,
    }
}

fn endpoint(endpoint: &mesh_resources::cluster_peer::Endpoint) -> Endpoint {
    Endpoint { host: endpoint.host.clone(), port: endpoint.port }
}

#[cfg(test)]
mod tests {
    use mesh_resources::ClusterPeer;
    use serde_json::json;

    use super::*;

    #[test]
    fn certificates_are_those_of_the_object_or_the_hubs_own() {
        let spec = json!({"endpoints": ["https://tokyo.mesh.cilium.io"], "cluster": {"id": 2},
            "import": {"preset": "Nothing"}});
        let spec = serde_json::from_value(spec).expect("of the right shape");
        let peer = ClusterPeer::new("tokyo", spec).parse().expect("sound");
        let own = config("tokyo", &peer, &Material::default(), Path::new("/tls"));
        assert_eq!(own.key_file, Path::new("/tls/tls.key"));
        assert_eq!(own.held, Held::default());
        assert_eq!(own.terms.cluster_id.map(|id| id.get()), Some(2));
        assert!(!own.terms.import.admits_service(&"a/b".parse().expect("a service")));
        let roots = Some(b"roots".to_vec());
        let material = Material { roots, secret: Some("Secret mesh/roots".to_owned()), client: None };
        let given = config("tokyo", &peer, &material, Path::new("/tls"));
        assert_eq!(given.trusted_ca_file, Path::new("ClusterPeer tokyo, Secret mesh/roots, ca.crt"));
        assert_eq!(given.held.content(&given.trusted_ca_file).as_deref(), Some(&b"roots"[..]));
        assert_eq!(given.key_file, Path::new("/tls/tls.key"));
    }
}
