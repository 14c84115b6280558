//! Which labels of a pod make its identity.
//!
//! The rules are the defaults of Cilium's `pkg/labelsfilter/filter.go` (`defaultLabelPrefixCfg`): labels that
//! differ from pod to pod, or that only Kubernetes itself reads, would give each pod an identity of its own.
//! Two groups go beyond stock, since each run of a job would otherwise take a number: `batch.kubernetes.io/*`
//! (stock drops only the completion index) and the older `controller-uid` and `job-name`.

use std::collections::BTreeMap;
use std::str::FromStr;

use topology::labels::SERVICE_ACCOUNT_LABEL;
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

/// Keys that contain it do not count.
const BETA: &str = "beta.kubernetes.io";

/// Keys that do not count, whole.
const IGNORED_WHOLE: [&str; 2] = ["controller-uid", "job-name"];

/// Keys of which a list of labels that count does not exclude those that start so: stock's defaults.
const COUNTED_ANYWAY: [&str; 1] = ["app.kubernetes.io"];

/// Which labels of a pod count, beside the defaults; as Cilium's option `labels` says it.
///
/// A list of prefixes of keys. `!prefix` leaves labels out. As soon as one entry has no `!`, only labels count that an
/// entry without `!` matches. A label that entries of both kinds match counts if the longest that lets it in is longer than
/// the shortest that leaves it out (the defaults among them). Namespace and cluster always count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelFilter {
    included: Vec<String>,
    excluded: Vec<String>,
}

/// A text is not a list of labels that count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "entry {found:?}: expected the beginning of a label's key, such as app or !example.com/build; no patterns but a final .*"
)]
pub struct InvalidLabelFilter {
    found: String,
}

impl FromStr for LabelFilter {
    type Err = InvalidLabelFilter;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut filter = Self::default();
        let entries = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|entry| !entry.is_empty());
        for entry in entries {
            let (excludes, key) = match entry.strip_prefix('!') {
                Some(key) => (true, key),
                None => (false, entry),
            };
            // Other sources have no labels here.
            let key = key.strip_prefix("k8s:").unwrap_or(key);
            // In Cilium an entry is an expression that is matched at the start of a key.
            let key = key.strip_suffix(".*").unwrap_or(key).replace("\\.", ".");
            if key.is_empty() || !is_label_text(&key) {
                return Err(InvalidLabelFilter { found: entry.chars().take(80).collect() });
            }
            match excludes {
                true => filter.excluded.push(key),
                false => filter.included.push(key),
            }
        }
        Ok(filter)
    }
}

impl LabelFilter {
    /// Whether a pod's own label counts.
    fn counts(&self, key: &str) -> bool {
        // A pod cannot say what only Cilium says, whatever the list.
        !key.starts_with(RESERVED) && self.lets_in(key, is_ignored(key))
    }

    /// Whether a label counts that the defaults match with so many characters, if they leave it out.
    fn lets_in(&self, key: &str, ignored: Option<usize>) -> bool {
        let matching = |list: &[String]| -> Vec<usize> {
            list.iter().filter(|prefix| key.starts_with(prefix.as_str())).map(String::len).collect()
        };
        let excluded = matching(&self.excluded).into_iter().chain(ignored).min();
        let anyway =
            COUNTED_ANYWAY.iter().filter(|prefix| key.starts_with(**prefix)).map(|prefix| prefix.len());
        let included = matching(&self.included).into_iter().chain(anyway).max();
        match (self.included.is_empty(), excluded) {
            (true, None) => true,
            _ => included.unwrap_or(0) > excluded.unwrap_or(0),
        }
    }
}

/// The labels that make a pod's identity: its own that count, its service account if the pod names one (as in
/// stock; the admission of a real cluster always sets it), the labels of its namespace, and where it runs. What
/// is not a label in Kubernetes' sense is left out.
pub fn security_labels(
    filter: &LabelFilter,
    cluster: &ClusterName,
    namespace: &str,
    namespace_labels: Option<&BTreeMap<String, String>>,
    service_account: Option<&str>,
    pod_labels: Option<&BTreeMap<String, String>>,
) -> Labels {
    let own = pod_labels.into_iter().flatten().filter(is_label).filter(|(key, _)| filter.counts(key));
    let own = own.map(|(key, value)| (key.as_str(), value.as_str()));
    let account = service_account.filter(|_| filter.lets_in(SERVICE_ACCOUNT_LABEL, None));
    let account = account.filter(|name| topology::name::is_key_element(name));
    let mut labels = Labels::of_pod(cluster, namespace, account, own);
    for (key, value) in namespace_labels.into_iter().flatten().filter(is_label) {
        let key = format!("{NAMESPACE_LABELS}.{key}");
        // Stock's defaults let them in, by their whole common beginning.
        let excluded = filter.excluded.iter().filter(|prefix| key.starts_with(prefix.as_str()));
        if excluded.map(String::len).min().is_none_or(|length| length < NAMESPACE_LABELS.len()) {
            labels.insert_k8s(&key, value);
        }
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

/// With how many characters the defaults leave a label out; `None` if they do not.
fn is_ignored(key: &str) -> Option<usize> {
    let prefixes = IGNORED.iter().filter(|prefix| key.starts_with(**prefix)).map(|prefix| prefix.len());
    let whole = IGNORED_WHOLE.iter().filter(|whole| key == **whole).map(|whole| whole.len());
    // `.*beta\.kubernetes\.io`: anywhere in the key.
    let beta = key.find(BETA).map(|at| at + BETA.len());
    prefixes.chain(whole).chain(beta).min()
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
        let filter = LabelFilter::default();
        let labels = security_labels(&filter, &cluster, "shop", Some(&space), Some("cart"), Some(&pod));
        let expected = "k8s:app=cart;k8s:app.kubernetes.io/name=cart;\
            k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=shop;\
            k8s:io.cilium.k8s.namespace.labels.team=a;\
            k8s:io.cilium.k8s.policy.cluster=north;k8s:io.cilium.k8s.policy.serviceaccount=cart;\
            k8s:io.kubernetes.pod.namespace=shop;k8s:topology.kubernetes.io/zone=z1;";
        assert_eq!(labels.to_string(), expected);
    }

    fn with(filter: &str, pod: &[(&str, &str)]) -> String {
        let cluster = "north".parse().expect("a name");
        let filter: LabelFilter = filter.parse().expect("a filter");
        let space = labels(&[("team", "a")]);
        let labels =
            security_labels(&filter, &cluster, "shop", Some(&space), Some("cart"), Some(&labels(pod)));
        labels.iter().map(|(key, _)| key).filter(|key| !key.starts_with("io.")).collect::<Vec<_>>().join(" ")
    }

    /// The examples of Cilium's documentation ("Limiting Identity-Relevant Labels"), and its rule for entries of both kinds.
    #[test]
    fn lists_of_labels_that_count() {
        let pod = [
            ("app", "cart"),
            ("app-extra", "x"),
            ("build", "77"),
            ("example.com/a", "1"),
            ("example.com/a-b", "1"),
            ("pod-template-hash", "x"),
            ("app.kubernetes.io/name", "cart"),
        ];
        let all = "app app-extra app.kubernetes.io/name build example.com/a example.com/a-b";
        assert_eq!(with("", &pod), all);
        assert_eq!(with("!k8s:build", &pod), all.replace("build ", ""));
        assert_eq!(with("!build !example.com/.*", &pod), "app app-extra app.kubernetes.io/name");
        assert_eq!(with("k8s:app", &pod), "app app-extra app.kubernetes.io/name");
        assert_eq!(with(r"example\.com/a,!example.com/a-b", &pod), "app.kubernetes.io/name example.com/a");
        assert_eq!(with("example.com/a-b,!example.com/", &pod), "app.kubernetes.io/name example.com/a-b");
        assert_eq!(
            with("pod-template-hash", &pod),
            "app.kubernetes.io/name",
            "not longer than what leaves it out"
        );
        for bad in ["!", "app[0-9]", "a;b", "!k8s:"] {
            assert!(bad.parse::<LabelFilter>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_list_reaches_service_account_and_namespace_but_not_where_a_pod_runs() {
        let cluster = "north".parse().expect("a name");
        let space = labels(&[("team", "a")]);
        let text = |filter: &str| {
            let filter: LabelFilter = filter.parse().expect("a filter");
            let pod = labels(&[("app", "cart")]);
            security_labels(&filter, &cluster, "shop", Some(&space), Some("cart"), Some(&pod)).to_string()
        };
        let place = "k8s:io.cilium.k8s.policy.cluster=north;k8s:io.kubernetes.pod.namespace=shop;";
        assert_eq!(
            text("app"),
            format!("k8s:app=cart;k8s:io.cilium.k8s.namespace.labels.team=a;{place}"),
            "the service account is not in the list"
        );
        assert_eq!(text("nothing,!io.cilium.k8s.namespace.labels.team"), place);
        let kept = format!("k8s:io.cilium.k8s.namespace.labels.team=a;{place}");
        assert_eq!(text("nothing,!io"), kept, "shorter than what lets it in");
    }
}
