//! Which labels of a pod make its identity.
//!
//! The rules are the defaults of Cilium's `pkg/labelsfilter/filter.go` (`defaultLabelPrefixCfg`): labels that
//! differ from pod to pod, or that only Kubernetes itself reads, would give each pod an identity of its own.
//! Two groups go beyond stock, since each run of a job would otherwise take a number: `batch.kubernetes.io/*`
//! (stock drops only the completion index) and the older `controller-uid` and `job-name`.

use std::collections::BTreeMap;

use topology::{ClusterName, Labels};

/// The prefix of labels that Cilium sets itself; a pod cannot set them.
const RESERVED: &str = "io.cilium.k8s.";
/// The prefix under which the labels of a pod's namespace become its own
/// (Cilium `pkg/k8s/apis/cilium.io/const.go`, `PodNamespaceMetaLabels`).
const NAMESPACE_LABELS: &str = "io.cilium.k8s.namespace.labels";

/// Keys that start so do not count. Cilium's expressions are anchored at the start of the key.
const IGNORED: [&str; 12] = [
    "io.kubernetes",
    "kubernetes.io",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/",
    "k8s.io",
    "pod-template-generation",
    "pod-template-hash",
    "controller-revision-hash",
    "annotation",
    "etcd_node",
    RESERVED,
];

/// Keys that do not count, whole.
const IGNORED_WHOLE: [&str; 2] = ["controller-uid", "job-name"];

/// The labels that make a pod's identity: its own that count, its service account if the pod names one (as in
/// stock; the admission of a real cluster always sets it), the labels of its namespace, and where it runs. What
/// is not a label in Kubernetes' sense is left out.
pub fn security_labels(
    cluster: &ClusterName,
    namespace: &str,
    namespace_labels: Option<&BTreeMap<String, String>>,
    service_account: Option<&str>,
    pod_labels: Option<&BTreeMap<String, String>>,
) -> Labels {
    let own = pod_labels.into_iter().flatten().filter(is_label).filter(|(key, _)| counts(key));
    let own = own.map(|(key, value)| (key.as_str(), value.as_str()));
    let mut labels = Labels::of_pod(
        cluster,
        namespace,
        service_account.filter(|name| topology::name::is_key_element(name)),
        own,
    );
    for (key, value) in namespace_labels.into_iter().flatten().filter(is_label) {
        labels.insert_k8s(&format!("{NAMESPACE_LABELS}.{key}"), value);
    }
    labels
}

/// True if `text` can be part of a label in Kubernetes. A manifest may hold anything, and a `;` in a value would
/// otherwise let one label pass for several.
pub fn is_label_text(text: &str) -> bool {
    text.len() <= 317
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/'))
}

fn is_label((key, value): &(&String, &String)) -> bool {
    !key.is_empty() && is_label_text(key) && is_label_text(value)
}

fn counts(key: &str) -> bool {
    // `.*beta\.kubernetes\.io`: anywhere in the key.
    !IGNORED.iter().any(|prefix| key.starts_with(prefix))
        && !IGNORED_WHOLE.contains(&key)
        && !key.contains("beta.kubernetes.io")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn labels_that_differ_from_pod_to_pod_do_not_count() {
        let cluster = "north".parse().expect("a name");
        let pod = labels(&[
            ("app", "cart"),
            ("app.kubernetes.io/name", "cart"),
            ("pod-template-hash", "5d4f"),
            ("statefulset.kubernetes.io/pod-name", "cart-0"),
            ("apps.kubernetes.io/pod-index", "0"),
            ("batch.kubernetes.io/job-name", "j"),
            ("controller-uid", "u"),
            ("failure-domain.beta.kubernetes.io/zone", "z"),
            ("io.cilium.k8s.policy.cluster", "paris"),
            ("io.cilium.k8s.namespace.labels.team", "forged"),
            ("topology.kubernetes.io/zone", "z1"),
            ("forged", "x;k8s:io.cilium.k8s.policy.cluster=paris"),
        ]);
        let space = labels(&[("kubernetes.io/metadata.name", "shop"), ("team", "a")]);
        let labels = security_labels(&cluster, "shop", Some(&space), Some("cart"), Some(&pod));
        let expected = "k8s:app=cart;k8s:app.kubernetes.io/name=cart;\
            k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=shop;\
            k8s:io.cilium.k8s.namespace.labels.team=a;\
            k8s:io.cilium.k8s.policy.cluster=north;k8s:io.cilium.k8s.policy.serviceaccount=cart;\
            k8s:io.kubernetes.pod.namespace=shop;k8s:topology.kubernetes.io/zone=z1;";
        assert_eq!(labels.to_string(), expected);
    }
}
