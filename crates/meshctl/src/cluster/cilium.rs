//! Whether a cluster runs Cilium, and what follows from it.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;

use super::Cluster;
use crate::install::values::{self, Profile};

/// The content of Cilium's ConfigMap.
pub(crate) type CiliumConfig = BTreeMap<String, String>;

impl Cluster {
    /// Cilium's configuration, if there is one in this namespace.
    pub(crate) async fn cilium(&self, namespace: &str) -> Result<Option<CiliumConfig>> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let found = api.get_opt(CONFIG_MAP).await;
        let found = found.with_context(|| format!("look for ConfigMap {namespace}/{CONFIG_MAP}"))?;
        Ok(found.map(|map| map.data.unwrap_or_default()))
    }
}

/// The profile that is right, if the one that is asked for (none: any) fits what was found. Fails with every reason why not.
pub(crate) fn choose(
    asked: Option<Profile>,
    cluster: &values::Cluster,
    found: Option<&CiliumConfig>,
) -> std::result::Result<Profile, Vec<String>> {
    let Some(found) = found else {
        return match asked {
            Some(Profile::Cilium) => Err(vec![format!(
                "the profile is cilium, but there is no ConfigMap {CONFIG_MAP}; --cilium-namespace says where it is"
            )]),
            asked => Ok(asked.unwrap_or_default()),
        };
    };
    let mut wrong = Vec::new();
    if let Some(profile @ (Profile::Agent | Profile::Agentless)) = asked {
        wrong.push(format!(
            "the profile is {profile:?}, but this cluster runs Cilium, whose agents balance already: use --profile cilium"
        ));
    }
    let say = |key: &str, default: &str| found.get(key).map_or(default, String::as_str).trim().to_owned();
    let (name, id) = (say("cluster-name", "default"), say("cluster-id", "0"));
    if id == "0" {
        wrong.push(format!(
            "Cilium has cluster.id 0 here, with which no other cluster can tell its identities: give it the id {} (Helm value cluster.id) and \
             restart all pods, as Cilium's documentation of ClusterMesh says, then install",
            cluster.id
        ));
    } else if id != cluster.id.to_string() {
        wrong.push(format!("Cilium calls this cluster id {id}, these values {}", cluster.id));
    }
    if name != cluster.name {
        wrong.push(format!("Cilium calls this cluster {name:?}, these values {:?}", cluster.name));
    }
    let max = say("max-connected-clusters", "255");
    if max != cluster.max_connected_clusters.to_string() {
        wrong.push(format!(
            "Cilium has max-connected-clusters {max}, these values {}",
            cluster.max_connected_clusters
        ));
    }
    if wrong.is_empty() { Ok(Profile::Cilium) } else { Err(wrong) }
}

const CONFIG_MAP: &str = "cilium-config";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cilium_has_the_last_word_on_what_a_cluster_is_called() {
        let ours = values::Cluster { name: "paris".to_owned(), id: 7, ..values::Cluster::default() };
        let config = |pairs: &[(&str, &str)]| -> CiliumConfig {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        assert_eq!(choose(None, &ours, None), Ok(Profile::Agent));
        assert_eq!(choose(Some(Profile::Agent), &ours, None), Ok(Profile::Agent));
        assert_eq!(choose(Some(Profile::Cilium), &ours, None).map_err(|wrong| wrong.len()), Err(1));
        let same = config(&[("cluster-name", "paris"), ("cluster-id", "7")]);
        assert_eq!(choose(None, &ours, Some(&same)), Ok(Profile::Cilium));
        assert_eq!(choose(Some(Profile::Agent), &ours, Some(&same)).map_err(|wrong| wrong.len()), Err(1));
        for (found, faults) in [
            (config(&[]), 2),
            (config(&[("cluster-name", "paris"), ("cluster-id", "0")]), 1),
            (config(&[("cluster-name", "tokyo"), ("cluster-id", "8"), ("max-connected-clusters", "511")]), 3),
        ] {
            assert_eq!(
                choose(None, &ours, Some(&found)).map_err(|wrong| wrong.len()),
                Err(faults),
                "{found:?}"
            );
        }
    }
}
