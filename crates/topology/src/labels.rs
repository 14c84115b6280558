//! The labels that an identity stands for.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::cluster::ClusterName;

/// The label that tells which cluster an identity lives in.
pub const CLUSTER_LABEL: &str = "io.cilium.k8s.policy.cluster";
/// The label that tells the namespace of a pod.
pub const NAMESPACE_LABEL: &str = "io.kubernetes.pod.namespace";
/// The label that tells the service account of a pod.
pub const SERVICE_ACCOUNT_LABEL: &str = "io.cilium.k8s.policy.serviceaccount";

/// A set of security labels, by key; each has a source, such as `k8s` or `reserved`.
///
/// Its text form is Cilium's `SortedList`: `<source>:<key>=<value>;` for each label, sorted by key, with a
/// `;` after the last one too. STABLE FORMAT: it is the value of an identity record.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Labels(BTreeMap<String, Label>);

/// One label's source and value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    /// Who says so: `k8s` for labels of Kubernetes objects.
    pub source: String,
    /// The value; may be empty.
    pub value: String,
}

/// Why a text is not a set of labels.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLabels {
    /// There is nothing in it.
    #[error("labels are empty, expected at least one <source>:<key>=<value>;")]
    Empty,
    /// One label does not have the form.
    #[error("label {found:?}: expected <source>:<key>=<value>")]
    Form {
        /// The text between two semicolons.
        found: String,
    },
    /// The text does not end in a semicolon, so it may have been cut.
    #[error("labels end in {found:?}, expected a final ';'")]
    Cut {
        /// The last few characters.
        found: String,
    },
}

impl Labels {
    /// The security labels of a pod in Kubernetes: its own labels and those that say where it runs.
    pub fn of_pod<'a>(
        cluster: &ClusterName,
        namespace: &str,
        service_account: Option<&str>,
        pod_labels: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let mut labels = Self::default();
        for (key, value) in pod_labels {
            labels.insert_k8s(key, value);
        }
        if let Some(account) = service_account {
            labels.insert_k8s(SERVICE_ACCOUNT_LABEL, account);
        }
        labels.insert_k8s(NAMESPACE_LABEL, namespace);
        labels.insert_k8s(CLUSTER_LABEL, cluster.as_str());
        labels
    }

    /// Sets a label with source `k8s`.
    pub fn insert_k8s(&mut self, key: &str, value: &str) {
        self.0.insert(key.to_owned(), Label { source: "k8s".to_owned(), value: value.to_owned() });
    }

    /// The label of this key.
    pub fn get(&self, key: &str) -> Option<&Label> {
        self.0.get(key)
    }

    /// All labels, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Label)> {
        self.0.iter().map(|(key, label)| (key.as_str(), label))
    }

    /// True if these labels say, from source `k8s`, that they live in `cluster`.
    pub fn say_cluster(&self, cluster: &ClusterName) -> bool {
        self.get(CLUSTER_LABEL).is_some_and(|l| l.source == "k8s" && l.value == cluster.as_str())
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, label) in &self.0 {
            write!(f, "{}:{key}={};", label.source, label.value)?;
        }
        Ok(())
    }
}

impl FromStr for Labels {
    type Err = InvalidLabels;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(InvalidLabels::Empty);
        }
        let Some(body) = text.strip_suffix(';') else {
            let tail: String = text.chars().rev().take(16).collect::<Vec<_>>().into_iter().rev().collect();
            return Err(InvalidLabels::Cut { found: tail });
        };
        let mut labels = BTreeMap::new();
        for part in body.split(';') {
            let form = || InvalidLabels::Form { found: part.chars().take(64).collect() };
            let (source, rest) = part.split_once(':').ok_or_else(form)?;
            let (key, value) = rest.split_once('=').ok_or_else(form)?;
            if key.is_empty() {
                return Err(form());
            }
            labels.insert(key.to_owned(), Label { source: source.to_owned(), value: value.to_owned() });
        }
        Ok(Self(labels))
    }
}

impl TryFrom<String> for Labels {
    type Error = InvalidLabels;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Labels> for String {
    fn from(labels: Labels) -> Self {
        labels.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDED: &str =
        "k8s:app=cart;k8s:io.cilium.k8s.policy.cluster=north;k8s:io.kubernetes.pod.namespace=shop;";

    #[test]
    fn a_recorded_value_reads_and_writes_unchanged() {
        let labels: Labels = RECORDED.parse().expect("recorded from a stock apiserver");
        assert_eq!(labels.to_string(), RECORDED);
        assert!(labels.say_cluster(&"north".parse().expect("a name")));
        assert!(!labels.say_cluster(&"south".parse().expect("a name")));
    }

    #[test]
    fn a_pod_gets_its_place_as_labels() {
        let labels = Labels::of_pod(&"north".parse().expect("a name"), "shop", None, [("app", "cart")]);
        assert_eq!(labels.to_string(), RECORDED);
    }

    #[test]
    fn a_pod_cannot_claim_another_place() {
        let forged = [(CLUSTER_LABEL, "paris"), (NAMESPACE_LABEL, "kube-system")];
        let labels = Labels::of_pod(&"north".parse().expect("a name"), "shop", None, forged);
        assert_eq!(labels.get(CLUSTER_LABEL).map(|l| l.value.as_str()), Some("north"));
        assert_eq!(labels.get(NAMESPACE_LABEL).map(|l| l.value.as_str()), Some("shop"));
    }

    #[test]
    fn cut_and_malformed_texts_are_refused() {
        assert_eq!("".parse::<Labels>(), Err(InvalidLabels::Empty));
        assert!(matches!("k8s:app=cart".parse::<Labels>(), Err(InvalidLabels::Cut { .. })));
        assert!(matches!("app=cart;".parse::<Labels>(), Err(InvalidLabels::Form { .. })));
        assert!(matches!("k8s:=x;".parse::<Labels>(), Err(InvalidLabels::Form { .. })));
    }
}
