//! On which terms a cluster is a peer: what the operator says about it beyond how it is reached. STABLE FORMAT.
//!
//! In a client configuration they are a member of their own, which stock clients pass over as they do with
//! `cilium-host-aliases`:
//! ```yaml
//! isthmus:
//!   cluster-id: 2
//!   import: {preset: Nothing, namespaces: {include: [shop]}}
//!   unattested-cidrs: [10.2.0.0/16]
//!   written-from: tokyo
//! ```

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use topology::{AddressSpace, Admission, ClusterId, ImportGrant};

/// What the operator says about a peer. The default says nothing: whatever id it proves, everything that its passport covers.
///
/// Members of newer versions are refused, since terms that are read in part bound too little.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Terms {
    /// The id that it must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<ClusterId>,
    /// What it may offer here.
    #[serde(skip_serializing_if = "is_everything")]
    pub import: ImportGrant,
    /// It has no passport, and these are the blocks of its nodes and pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unattested_cidrs: Option<Vec<IpNet>>,
    /// The `ClusterPeer` that a hub made the configuration from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written_from: Option<String>,
}

impl Terms {
    /// What is taken of the peer; `attested` are the addresses that its passport covers, if it has one.
    pub fn admission(&self, attested: Option<AddressSpace>) -> Admission {
        let said = self.unattested_cidrs.as_ref().map(|blocks| blocks.iter().copied().collect());
        Admission { space: said.or(attested), grant: self.import.clone() }
    }
}

fn is_everything(grant: &ImportGrant) -> bool {
    *grant == ImportGrant::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(yaml: &str) -> Result<Terms, serde_yaml_ng::Error> {
        serde_yaml_ng::from_str(yaml)
    }

    #[test]
    fn the_documented_form_is_read() {
        let text = "cluster-id: 2\nimport: {preset: Nothing, namespaces: {include: [shop]}}\n\
            unattested-cidrs: [10.2.0.0/16]\nwritten-from: tokyo\n";
        let read = terms(text).expect("terms");
        assert_eq!(read.cluster_id.map(ClusterId::get), Some(2));
        assert!(!read.import.admits_service(&"bank/cash".parse().expect("a service")));
        let space = read.admission(None).space.expect("blocks");
        assert!(space.contains("10.2.0.1".parse().expect("an address")));
        assert!(!space.contains("10.3.0.1".parse().expect("an address")));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for bad in
            ["cluster-id: 512", "imports: {}", "import: {namespace: {}}", "unattested-cidrs: [10.0.0.0/33]"]
        {
            assert!(terms(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn without_terms_the_passport_counts_alone() {
        let attested: AddressSpace = ["10.2.0.0/16".parse().expect("a block")].into_iter().collect();
        let admission = terms("{}").expect("terms").admission(Some(attested.clone()));
        assert_eq!(admission, Admission { space: Some(attested), ..Admission::default() });
        assert_eq!(serde_yaml_ng::to_string(&Terms::default()).expect("YAML"), "{}\n");
    }
}
