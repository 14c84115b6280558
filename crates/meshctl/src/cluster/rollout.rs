//! Whether programs run as they were applied, and what keeps them from it.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use kube::core::ApiResource;
use serde_json::Value;
use tokio::time::Instant;

use super::{Cluster, until};

impl Cluster {
    /// Waits until a StatefulSet, Deployment or DaemonSet runs as it was applied. Fails at the deadline with what its pods
    /// say.
    pub(crate) async fn rolled_out(
        &self,
        kind: &ApiResource,
        namespace: &str,
        name: &str,
        deadline: Instant,
    ) -> Result<()> {
        let api = self.api(kind, Some(namespace));
        let what = format!("{} {namespace}/{name}", kind.kind);
        until(deadline, &what, async || {
            let found = api.get_opt(name).await.with_context(|| format!("read {what}"))?;
            let Some(found) = found else { return Ok(Some("it is gone".to_owned())) };
            let found = serde_json::to_value(found)?;
            let Some(waits) = missing(&kind.kind, &found) else { return Ok(None) };
            let troubles = self.troubles(namespace, &found["spec"]["selector"]["matchLabels"]).await?;
            Ok(Some(if troubles.is_empty() { waits } else { format!("{waits}; {}", troubles.join("; ")) }))
        })
        .await
    }

    async fn troubles(&self, namespace: &str, labels: &Value) -> Result<Vec<String>> {
        let labels = labels.as_object().into_iter().flatten();
        let labels: Vec<_> =
            labels.map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default())).collect();
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let pods = pods.list(&ListParams::default().labels(&labels.join(","))).await.context("list pods")?;
        let mut said: Vec<String> = pods.items.iter().flat_map(troubles).collect();
        said.sort();
        // A cluster of a thousand nodes has one trouble a thousand times.
        said.truncate(3);
        Ok(said)
    }
}

/// What a program lacks; none if it runs as it was applied.
fn missing(kind: &str, object: &Value) -> Option<String> {
    let number = |value: &Value| value.as_i64().unwrap_or_default();
    let status = &object["status"];
    if number(&status["observedGeneration"]) < number(&object["metadata"]["generation"]).max(1) {
        return Some("nothing has looked at it yet".to_owned());
    }
    let (wanted, updated, ready) = match kind {
        "DaemonSet" => (
            number(&status["desiredNumberScheduled"]),
            number(&status["updatedNumberScheduled"]),
            number(&status["numberReady"]),
        ),
        _ => (
            number(&object["spec"]["replicas"]),
            number(&status["updatedReplicas"]),
            number(&status["readyReplicas"]),
        ),
    };
    if updated < wanted {
        return Some(format!("{updated} of {wanted} pods are of the new version"));
    }
    (ready < wanted).then(|| format!("{ready} of {wanted} pods are ready"))
}

/// What keeps a pod from running, as Kubernetes says it.
fn troubles(pod: &Pod) -> Vec<String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let Some(status) = &pod.status else { return Vec::new() };
    let mut said = Vec::new();
    for condition in status.conditions.iter().flatten() {
        if condition.type_ == "PodScheduled" && condition.status == "False" {
            said.push(format!("pod {name}: {}", condition.message.as_deref().unwrap_or("not scheduled")));
        }
    }
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    for container in containers {
        let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
        let Some(reason) = waiting.and_then(|waiting| waiting.reason.as_deref()) else { continue };
        if ["ContainerCreating", "PodInitializing"].contains(&reason) {
            continue;
        }
        let message = waiting.and_then(|waiting| waiting.message.as_deref()).unwrap_or_default();
        said.push(format!("pod {name}: {reason} {message}").trim_end().to_owned());
    }
    said
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_program_runs_when_all_of_it_is_new_and_ready() {
        let set =
            |status: Value| json!({"metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": status});
        let old = set(json!({"observedGeneration": 1, "updatedReplicas": 2, "readyReplicas": 2}));
        assert!(missing("Deployment", &old).is_some_and(|waits| waits.contains("looked")));
        let part = set(json!({"observedGeneration": 2, "updatedReplicas": 1, "readyReplicas": 2}));
        assert_eq!(missing("Deployment", &part).as_deref(), Some("1 of 2 pods are of the new version"));
        let slow = set(json!({"observedGeneration": 2, "updatedReplicas": 2}));
        assert_eq!(missing("StatefulSet", &slow).as_deref(), Some("0 of 2 pods are ready"));
        let runs = set(json!({"observedGeneration": 2, "updatedReplicas": 2, "readyReplicas": 2}));
        assert_eq!(missing("Deployment", &runs), None);
        let agents = set(
            json!({"observedGeneration": 2, "desiredNumberScheduled": 3, "updatedNumberScheduled": 3, "numberReady": 2}),
        );
        assert_eq!(missing("DaemonSet", &agents).as_deref(), Some("2 of 3 pods are ready"));
        assert!(missing("DaemonSet", &json!({"metadata": {}})).is_some(), "nothing has made a status");
    }

    #[test]
    fn pods_say_what_keeps_them() {
        let pod = json!({"metadata": {"name": "isthmus-hub-0"}, "status": {
            "conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}],
            "containerStatuses": [
                {"name": "hub", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                 "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}},
                {"name": "b", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                 "state": {"waiting": {"reason": "ContainerCreating"}}}]}});
        let said = troubles(&serde_json::from_value(pod).expect("a pod"));
        let expected = [
            "pod isthmus-hub-0: 0/3 nodes are available",
            "pod isthmus-hub-0: ImagePullBackOff no such image",
        ];
        assert_eq!(said, expected);
    }
}
