//! Client configuration files in ClusterMesh's format (Cilium `pkg/clustermesh/common/config.go`): how an agent reaches
//! a hub.

use std::path::Path;

use crate::addressing::AddressPair;

/// The host name of a cluster's hub, as ClusterMesh forms it.
pub fn hub_name(cluster: &str) -> String {
    format!("{cluster}.mesh.cilium.io")
}

/// The text of the file: one endpoint by name, its addresses as a host alias, certificates from `tls_dir` (Kubernetes
/// Secret layout).
pub fn client_config(cluster: &str, hub: AddressPair, tls_dir: &Path) -> String {
    let (name, tls) = (hub_name(cluster), tls_dir.display());
    format!(
        "endpoints:\n\
         - https://{name}:2379\n\
         trusted-ca-file: {tls}/ca.crt\n\
         cert-file: {tls}/tls.crt\n\
         key-file: {tls}/tls.key\n\
         cilium-host-aliases:\n\
         - hostname: {name}\n\
         \x20 ips: [\"{}\", \"{}\"]\n",
        hub.v4, hub.v6
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addressing::NodeNumber;

    #[test]
    fn reads_back_as_yaml() {
        let hub = NodeNumber::new(2, 1).expect("in range").addresses();
        let text = client_config("tokyo", hub, Path::new("/tls"));
        let value: serde_json::Value = serde_yaml_ng::from_str(&text).expect("yaml");
        assert_eq!(value["endpoints"][0], "https://tokyo.mesh.cilium.io:2379");
        assert_eq!(value["cilium-host-aliases"][0]["ips"][1], "fd00:20:2::11");
        assert_eq!(value["key-file"], "/tls/tls.key");
    }
}
