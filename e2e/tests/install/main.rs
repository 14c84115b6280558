//! `meshctl install` and `uninstall` against the small API server: what is made, that the hub can work with it, and that
//! nothing is left and nothing of others is touched. No container runs here: the small API server has no kubelet.

mod docs;
mod gitops;
mod ground;
mod hub;
mod replicas;

use anyhow::{Context, Result, ensure};
use kube::Api;
use serde_json::{Value, json};

use self::ground::Ground;

#[tokio::test(flavor = "multi_thread")]
async fn installing_twice_changes_nothing_and_uninstalling_leaves_nothing() -> Result<()> {
    let ground = Ground::new().await?;
    let _controllers = ground.controllers().await?;
    let printed = ground.install(&["-o", "json"]).await?.ended(0)?;
    let printed: Value = serde_json::from_str(&printed.out)?;
    let objects = printed["items"].as_array().context("items")?;
    let secrets = ["isthmus-hub-tls", "isthmus-agent-local-tls", "isthmus-agent-remote-tls"].map(
        |name| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "isthmus"}}),
    );
    let count = objects.len() + secrets.len();

    let dry = ground.install_with_secrets(&["--dry-run"]).await?.ended(0)?;
    ensure!(
        dry.out.starts_with(&format!("{count} objects: would be {count} created, 0 changed")),
        "{dry:#?}"
    );
    ensure!(ground.find(&objects[0]).await?.is_none(), "a dry run made the namespace");

    let first = ground.install_with_secrets(&[]).await?.ended(0)?;
    ensure!(
        first.out.starts_with(&format!("{count} objects: {count} created, 0 changed, 0 unchanged")),
        "{first:#?}"
    );
    ensure!(!first.err.contains("PRIVATE KEY") && !first.out.contains("PRIVATE KEY"), "a key was printed");
    for object in objects.iter().chain(&secrets) {
        let found = ground.find(object).await?.with_context(|| format!("no {object:#}"))?;
        contains(&found, object).with_context(|| format!("{found:#}"))?;
    }
    let second = ground.install_with_secrets(&[]).await?.ended(0)?;
    ensure!(
        second.out.starts_with(&format!("{count} objects: 0 created, 0 changed, {count} unchanged")),
        "{second:#?}"
    );

    let other = ["--service-type=NodePort"];
    let dry = ground.install_with_secrets(&[&other[..], &["--dry-run"]].concat()).await?.ended(0)?;
    ensure!(dry.out.contains("would be 0 created, 1 changed"), "{dry:#?}");
    let changed = ground.install_with_secrets(&other).await?.ended(0)?;
    ensure!(changed.out.contains("0 created, 1 changed"), "a dry run changed something: {changed:#?}");

    let dry = ground.meshctl(&["uninstall", "--dry-run"]).await?.ended(0)?;
    ensure!(dry.out.contains("would be deleted"), "{dry:#?}");
    ensure!(ground.find(&objects[0]).await?.is_some(), "a dry run deleted the namespace");
    let gone = ground.meshctl(&["uninstall"]).await?.ended(0)?;
    for object in objects.iter().chain(&secrets) {
        ensure!(ground.find(object).await?.is_none(), "left: {object:#}\n{}", gone.err);
    }
    let order = [
        "deleted DaemonSet isthmus/isthmus-agent",
        "deleted DaemonSet isthmus/isthmus-cleanup",
        "deleted StatefulSet isthmus/isthmus-hub",
        "deleted ServiceAccount",
        "deleted CustomResourceDefinition",
        "deleted Namespace isthmus",
    ];
    let lines = order.map(|line| gone.line(line)).into_iter().collect::<Result<Vec<_>>>()?;
    ensure!(lines.is_sorted(), "{}", gone.err);
    let again = ground.meshctl(&["uninstall"]).await?.ended(0)?;
    ensure!(again.out.starts_with("0 objects deleted"), "{again:#?}");
    ground.nothing_unsupported()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_made_is_neither_changed_nor_removed() -> Result<()> {
    let ground = Ground::new().await?;
    let _controllers = ground.controllers().await?;
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "rules": [],
        "metadata": {"name": "isthmus-hub", "labels": {"app.kubernetes.io/managed-by": "Helm"}}});
    ground.make(&role).await?;
    let refused = ground.install_with_secrets(&[]).await?.ended(3)?;
    refused.told("refused: ClusterRole isthmus-hub is there, and is managed by Helm")?;
    ensure!(ground.find(&namespace()).await?.is_none(), "something was changed");
    delete(&ground, &role).await?;

    // A namespace and Secrets that somebody else made.
    ground.make(&namespace()).await?;
    let missing = ground.install(&[]).await?.ended(1)?;
    missing.told("there is no Secret isthmus/isthmus-hub-tls with a leaf of the role hub")?;
    missing.told("isthmus-agent-local-tls")?;
    for name in ["isthmus-hub-tls", "isthmus-agent-local-tls"] {
        ground.make(&secret(name)).await?;
    }
    let installed = ground.install(&[]).await?.ended(0)?;
    installed.told("left as it is: Namespace isthmus")?;
    // Objects of our kinds are the operator's.
    let policy = json!({"apiVersion": "isthmus.dev/v1alpha1", "kind": "FailoverPolicy",
        "metadata": {"name": "cart", "namespace": "isthmus"},
        "spec": {"services": {"names": ["cart"]}, "tiers": [{"to": "Any"}]}});
    ground.make(&policy).await?;
    let gone = ground.meshctl(&["uninstall"]).await?.ended(0)?;
    for kept in [namespace(), secret("isthmus-hub-tls"), secret("isthmus-agent-local-tls")] {
        ensure!(ground.find(&kept).await?.is_some(), "removed: {kept}\n{}", gone.err);
    }
    gone.told("left: definition failoverpolicies.isthmus.dev, since there are objects of it")?;
    ensure!(ground.find(&policy).await?.is_some(), "an operator's object was removed");
    ground.meshctl(&["uninstall", "--delete-objects"]).await?.ended(0)?;
    ensure!(ground.find(&policy).await?.is_none(), "the object is still there");
    ground.nothing_unsupported()
}

#[tokio::test(flavor = "multi_thread")]
async fn where_cilium_is_only_a_hub_comes_and_both_call_the_cluster_the_same() -> Result<()> {
    let ground = Ground::new().await?;
    let _controllers = ground.controllers().await?;
    let config = |name: &str, id: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cilium-config", "namespace": "kube-system"},
            "data": {"cluster-name": name, "cluster-id": id}})
    };
    ground
        .make(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-system"}}))
        .await?;
    for (name, id, reason) in [
        ("paris", "0", "Cilium has cluster.id 0 here"),
        ("paris", "7", "Cilium calls this cluster id 7, these values 1"),
        ("tokyo", "1", "Cilium calls this cluster \"tokyo\", these values \"paris\""),
    ] {
        ground.make(&config(name, id)).await?;
        ground.install_with_secrets(&[]).await?.ended(3)?.told(reason)?;
        ensure!(ground.find(&namespace()).await?.is_none(), "something was changed");
    }
    ground.make(&config("paris", "1")).await?;
    let refused = ground.install_with_secrets(&["--profile=agent"]).await?.ended(3)?;
    refused.told("whose agents balance already: use --profile cilium")?;
    let installed = ground.install_with_secrets(&[]).await?.ended(0)?;
    installed.told("created StatefulSet isthmus/isthmus-hub")?;
    ensure!(
        !installed.err.contains("DaemonSet") && !installed.err.contains("isthmus-agent"),
        "{}",
        installed.err
    );
    let found = ground.find(&namespace()).await?.context("the namespace")?;
    ensure!(found["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted", "{found:#}");
    ground.meshctl(&["uninstall"]).await?.ended(0)?;
    ensure!(ground.find(&namespace()).await?.is_none(), "the namespace is left");
    ground.nothing_unsupported()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_does_not_come_up_is_told_with_the_reason() -> Result<()> {
    let ground = Ground::new().await?;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "isthmus-hub-0", "namespace": "isthmus",
            "labels": {"app.kubernetes.io/name": "isthmus", "app.kubernetes.io/component": "hub"}},
        "spec": {"containers": [{"name": "hub", "image": "i"}]},
        "status": {"phase": "Pending", "containerStatuses": [{"name": "hub", "image": "i", "imageID": "", "ready": false,
            "restartCount": 0, "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]}});
    ground.make(&namespace()).await?;
    ground.make(&pod).await?;
    let set = |status: Value| {
        json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "isthmus-hub", "namespace": "isthmus"}, "status": status})
    };
    let first = ground.install_with_secrets(&["--timeout=1s"]).await?.ended(1)?;
    first.told("nothing has looked at it yet")?;
    let observed = json!({"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1});
    let client = ground.client().await?;
    let api: Api<k8s_openapi::api::apps::v1::StatefulSet> = Api::namespaced(client, "isthmus");
    api.patch_status(
        "isthmus-hub",
        &kube::api::PatchParams::default(),
        &kube::api::Patch::Merge(set(observed)),
    )
    .await?;
    let second = ground.install_with_secrets(&["--timeout=1s"]).await?.ended(1)?;
    second.told("0 of 1 pods are ready; pod isthmus-hub-0: ImagePullBackOff no such image")?;
    ensure!(!second.err.contains("DaemonSet"), "agents come after their hub: {}", second.err);
    Ok(())
}

fn namespace() -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "isthmus"}})
}

fn secret(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "isthmus"},
        "stringData": {"tls.crt": "a", "tls.key": "b", "ca.crt": "c"}})
}

async fn delete(ground: &Ground, object: &Value) -> Result<()> {
    let name = object["metadata"]["name"].as_str().context("a name")?;
    let api: Api<k8s_openapi::api::rbac::v1::ClusterRole> = Api::all(ground.client().await?);
    api.delete(name, &kube::api::DeleteParams::default()).await?;
    Ok(())
}

/// Fails unless everything of `wanted` is in `found`.
fn contains(found: &Value, wanted: &Value) -> Result<()> {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => {
            for (name, wanted) in wanted {
                let found = found.get(name).with_context(|| format!("no {name}"))?;
                contains(found, wanted).with_context(|| name.clone())?;
            }
            Ok(())
        }
        (Value::Array(found), Value::Array(wanted)) => {
            ensure!(found.len() == wanted.len(), "{} items, expected {}", found.len(), wanted.len());
            found.iter().zip(wanted).try_for_each(|(found, wanted)| contains(found, wanted))
        }
        _ => {
            ensure!(found == wanted, "{found}, expected {wanted}");
            Ok(())
        }
    }
}
