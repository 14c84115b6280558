//! The API server for tests, asked by the real client: the small one, and, where the environment names it, a real one.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use e2e::eventually;
use e2e::kube_api::KubeApi;
use futures_util::StreamExt;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Service, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent,
    WatchParams,
};
use kube::core::GroupVersionKind;
use kube::runtime::watcher;
use kube::{Api, Client, CustomResource, CustomResourceExt, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::support::{Mirror, SOON, client, client_with_token, config_map, nothing_unsupported, refused};

/// A namespace for one test, and nothing unsupported at the end of it.
async fn setup(namespace: &str) -> Result<(KubeApi, Client)> {
    let api = KubeApi::start().await?;
    let client = client(&api).await?;
    let object = serde_json::from_value(json!({"metadata": {"name": namespace}}))?;
    Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &object).await?;
    Ok((api, client))
}

async fn watcher_follows(config: watcher::Config, namespace: &str) -> Result<()> {
    let (api, client) = setup(namespace).await?;
    let maps: Api<ConfigMap> = Api::namespaced(client, namespace);
    for name in ["a", "b", "c"] {
        maps.create(&PostParams::default(), &config_map(name, &json!({"app": "x"}), "1")).await?;
    }
    maps.create(&PostParams::default(), &config_map("other", &json!({}), "1")).await?;
    let mirror = Mirror::follow(maps.clone(), config.labels("app=x").page_size(2));
    mirror.shows(&[("a", "1"), ("b", "1"), ("c", "1")]).await?;
    maps.create(&PostParams::default(), &config_map("d", &json!({"app": "x"}), "1")).await?;
    maps.patch("a", &PatchParams::default(), &Patch::Merge(json!({"data": {"value": "2"}}))).await?;
    maps.delete("b", &DeleteParams::default()).await?;
    // One leaves the selector, one enters it.
    maps.patch("c", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"labels": null}}))).await?;
    let enters = Patch::Strategic(json!({"metadata": {"labels": {"app": "x"}}}));
    maps.patch("other", &PatchParams::default(), &enters).await?;
    mirror.shows(&[("a", "2"), ("d", "1"), ("other", "1")]).await?;
    nothing_unsupported(&api)
}

#[tokio::test]
async fn a_watcher_that_lists_and_watches() -> Result<()> {
    watcher_follows(watcher::Config::default(), "list-watch").await
}

#[tokio::test]
async fn a_watcher_with_streaming_lists() -> Result<()> {
    watcher_follows(watcher::Config::default().streaming_lists(), "streaming").await
}

#[tokio::test]
async fn pages_are_of_one_moment() -> Result<()> {
    let (api, client) = setup("pages").await?;
    let maps: Api<ConfigMap> = Api::namespaced(client, "pages");
    // A real API server makes one of its own in every namespace: not part of this.
    let params = ListParams::default().labels("test=pages").limit(2);
    for i in 0..5 {
        maps.create(&PostParams::default(), &config_map(&format!("m{i}"), &json!({"test": "pages"}), "1"))
            .await?;
    }
    let mut page = maps.list(&params).await?;
    let revision = page.metadata.resource_version.clone();
    let mut names: Vec<String> = page.items.iter().map(ResourceExt::name_any).collect();
    maps.delete("m4", &DeleteParams::default()).await?;
    maps.create(&PostParams::default(), &config_map("m9", &json!({"test": "pages"}), "1")).await?;
    while let Some(token) = page.metadata.continue_.clone().filter(|token| !token.is_empty()) {
        page = maps.list(&params.clone().continue_token(&token)).await?;
        ensure!(page.metadata.resource_version == revision, "a page of another moment: {:?}", page.metadata);
        names.extend(page.items.iter().map(ResourceExt::name_any));
    }
    assert_eq!(names, ["m0", "m1", "m2", "m3", "m4"]);
    nothing_unsupported(&api)
}

#[tokio::test]
async fn the_slower_of_two_writers_is_told() -> Result<()> {
    let (api, client) = setup("conflict").await?;
    let maps: Api<ConfigMap> = Api::namespaced(client, "conflict");
    let first = maps.create(&PostParams::default(), &config_map("a", &json!({}), "1")).await?;
    let twice = maps.create(&PostParams::default(), &config_map("a", &json!({}), "1")).await;
    refused(twice, 409, "AlreadyExists")?;
    let mut second = first.clone();
    second.data = Some(BTreeMap::from([("value".to_owned(), "2".to_owned())]));
    let written = maps.replace("a", &PostParams::default(), &second).await?;
    ensure!(written.resource_version() != first.resource_version(), "a change is a new version");
    refused(maps.replace("a", &PostParams::default(), &first).await, 409, "Conflict")?;
    let same = maps.replace("a", &PostParams::default(), &written).await?;
    ensure!(written.resource_version() == same.resource_version(), "no change is no new version");
    refused(maps.get("b").await, 404, "NotFound")?;
    nothing_unsupported(&api)
}

#[tokio::test]
async fn applied_fields_have_owners() -> Result<()> {
    let (api, client) = setup("apply").await?;
    let services: Api<Service> = Api::namespaced(client, "apply");
    let applied = |labels: Value, ports: Value| {
        Patch::Apply(
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "echo", "labels": labels},
            "spec": {"ports": ports, "selector": {"app": "echo"}}}),
        )
    };
    let (one, two) = (PatchParams::apply("one"), PatchParams::apply("two"));
    let both = json!([{"name": "a", "port": 80}, {"name": "b", "port": 81}]);
    let made = services.patch("echo", &one, &applied(json!({"x": "1", "y": "1"}), both.clone())).await?;
    ensure!(made.spec.as_ref().is_some_and(|spec| spec.cluster_ip.is_some()), "no cluster address: {made:?}");
    let again = services.patch("echo", &one, &applied(json!({"x": "1", "y": "1"}), both)).await?;
    ensure!(made.resource_version() == again.resource_version(), "applying the same changes nothing");

    // Another manager adds a label, and may not change that of the first unless by force.
    let label = |value: &str| {
        Patch::Apply(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "echo",
        "labels": {"x": value, "z": "2"}}}))
    };
    let refusal = refused(services.patch("echo", &two, &label("2")).await, 409, "Conflict")?;
    ensure!(refusal.contains(".metadata.labels.x"), "which field is missing: {refusal}");
    services.patch("echo", &two.clone().force(), &label("2")).await?;

    // What the first no longer applies goes, what the second owns stays.
    let last = services.patch("echo", &one, &applied(json!({}), json!([{"name": "b", "port": 81}]))).await?;
    let labels = last.labels().clone();
    assert_eq!(labels, BTreeMap::from([("x".to_owned(), "2".to_owned()), ("z".to_owned(), "2".to_owned())]));
    let ports: Vec<i32> =
        last.spec.and_then(|spec| spec.ports).into_iter().flatten().map(|port| port.port).collect();
    assert_eq!(ports, [81]);
    let managers: Vec<_> =
        last.metadata.managed_fields.into_iter().flatten().filter_map(|entry| entry.manager).collect();
    assert_eq!(managers.len(), 2, "{managers:?}");
    nothing_unsupported(&api)
}

#[tokio::test]
async fn custom_resources_are_served_checked_and_have_a_status() -> Result<()> {
    let (api, client) = setup("custom").await?;
    let peers = define_peers(&client, "custom").await?;
    let peer = |spec: Value| -> DynamicObject {
        let object = json!({"apiVersion": "isthmus.test/v1alpha1", "kind": "Peer", "metadata": {"name": "tokyo"}, "spec": spec});
        serde_json::from_value(object).expect("an object")
    };
    let wrong =
        peers.create(&PostParams::default(), &peer(json!({"endpoints": ["a:1"], "mode": "odd"}))).await;
    let refusal = refused(wrong, 422, "Invalid")?;
    ensure!(refusal.contains("spec.mode"), "which field is missing: {refusal}");
    refused(peers.create(&PostParams::default(), &peer(json!({}))).await, 422, "Invalid")?;
    let made = peers.create(&PostParams::default(), &peer(json!({"endpoints": ["a:1"], "typo": 1}))).await?;
    assert_eq!(
        made.data["spec"],
        json!({"endpoints": ["a:1"], "mode": "cached"}),
        "pruned, with the default"
    );
    assert_eq!(made.metadata.generation, Some(1));

    // The status has a door of its own: it changes the status alone, and the other door leaves it alone.
    let status = json!({"apiVersion": "isthmus.test/v1alpha1", "kind": "Peer",
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}, "spec": {"endpoints": ["b:1"]}});
    let hub = PatchParams::apply("hub").force();
    let with_status = peers.patch_status("tokyo", &hub, &Patch::Apply(&status)).await?;
    assert_eq!(with_status.data["spec"]["endpoints"], json!(["a:1"]));
    let change = Patch::Merge(json!({"spec": {"mode": "direct"}, "status": {"conditions": []}}));
    let changed = peers.patch("tokyo", &PatchParams::default(), &change).await?;
    assert_eq!(changed.data["status"], with_status.data["status"]);
    assert_eq!(
        (changed.data["spec"]["mode"].as_str(), changed.metadata.generation),
        (Some("direct"), Some(2))
    );
    let more = json!({"apiVersion": "isthmus.test/v1alpha1", "kind": "Peer",
        "status": {"conditions": [{"type": "Trusted", "status": "False"}]}});
    let both = peers.patch_status("tokyo", &PatchParams::apply("other"), &Patch::Apply(&more)).await?;
    assert_eq!(both.data["status"]["conditions"].as_array().map(Vec::len), Some(2), "{}", both.data);

    // Deleting the definition takes the objects with it, and nothing is served any more.
    let definitions: Api<CustomResourceDefinition> = Api::all(client);
    definitions.delete("peers.isthmus.test", &DeleteParams::default()).await?;
    eventually("the kind is gone", SOON, || async {
        match peers.list(&ListParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => bail!("{other:?}"),
        }
    })
    .await?;
    nothing_unsupported(&api)
}

/// A resource as programs define them: derived.
#[derive(CustomResource, Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[kube(group = "isthmus.test", version = "v1alpha1", kind = "Route", namespaced, status = "RouteStatus")]
struct RouteSpec {
    endpoints: Vec<String>,
    mode: Mode,
    weight: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
enum Mode {
    Direct,
    Cached,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
struct RouteStatus {
    ready: bool,
}

#[tokio::test]
async fn a_derived_definition_is_served() -> Result<()> {
    let (api, client) = setup("derived").await?;
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let made = definitions.create(&PostParams::default(), &Route::crd()).await?;
    let established = kube::runtime::conditions::is_crd_established();
    let name = made.name_any();
    tokio::time::timeout(SOON, kube::runtime::wait::await_condition(definitions, &name, established))
        .await??;
    let routes: Api<Route> = Api::namespaced(client.clone(), "derived");
    let spec = RouteSpec { endpoints: vec!["a:1".to_owned()], mode: Mode::Direct, weight: None };
    let mut route = eventually("routes are served", SOON, || async {
        routes.create(&PostParams::default(), &Route::new("a", spec.clone())).await.context("create")
    })
    .await?;
    route.status = Some(RouteStatus { ready: true });
    let written = routes.replace_status("a", &PostParams::default(), &route).await?;
    assert_eq!((written.spec.mode, written.status), (Mode::Direct, Some(RouteStatus { ready: true })));
    for spec in
        [json!({"mode": "Odd"}), json!({"weight": 256}), json!({"weight": "1"}), json!({"endpoints": null})]
    {
        let wrong = routes.patch("a", &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await;
        refused(wrong, 422, "Invalid").with_context(|| spec.to_string())?;
    }
    nothing_unsupported(&api)
}

#[tokio::test]
async fn finalizers_hold_an_object() -> Result<()> {
    let (api, client) = setup("finalizers").await?;
    let maps: Api<ConfigMap> = Api::namespaced(client, "finalizers");
    let mut map = config_map("a", &json!({"test": "y"}), "1");
    map.metadata.finalizers = Some(vec!["isthmus.dev/hold".to_owned()]);
    let made = maps.create(&PostParams::default(), &map).await?;
    maps.create(&PostParams::default(), &config_map("b", &json!({"test": "y"}), "1")).await?;
    let other = DeleteParams::default().preconditions(kube::api::Preconditions {
        uid: Some("00000000-0000-4000-8000-000000000000".to_owned()),
        resource_version: None,
    });
    refused(maps.delete("a", &other).await, 409, "Conflict")?;
    maps.delete_collection(&DeleteParams::foreground(), &ListParams::default().labels("test=y")).await?;
    let waiting = maps.get("a").await?;
    ensure!(waiting.metadata.deletion_timestamp.is_some(), "not being deleted: {waiting:?}");
    ensure!(waiting.uid() == made.uid(), "another object");
    let done = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("a", &PatchParams::default(), &done).await?;
    refused(maps.get("a").await, 404, "NotFound")?;
    refused(maps.get("b").await, 404, "NotFound")?;
    nothing_unsupported(&api)
}

#[tokio::test]
async fn metadata_alone_fields_and_generated_names() -> Result<()> {
    let (api, client) = setup("fields").await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "fields");
    for node in ["n1", "n1", "n2"] {
        let pod = json!({"metadata": {"generateName": "web-", "labels": {"test": "y"}}, "spec": {"nodeName": node,
            "automountServiceAccountToken": false, "containers": [{"name": "c", "image": "x"}]}});
        pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    }
    let on_n1 = pods.list_metadata(&ListParams::default().fields("spec.nodeName=n1")).await?;
    assert_eq!(on_n1.items.len(), 2);
    let all: Api<Pod> = Api::all(client.clone());
    let listed = all.list(&ListParams::default().labels("test=y")).await?;
    assert_eq!(listed.items.len(), 3);
    let params = WatchParams::default().labels("test=y").timeout(1);
    let mut events = std::pin::pin!(all.watch_metadata(&params, "0").await?);
    let mut added = 0;
    while let Some(event) = events.next().await {
        match event? {
            WatchEvent::Added(pod) => {
                ensure!(pod.name_any().starts_with("web-"), "{:?}", pod.metadata);
                added += 1;
            }
            WatchEvent::Bookmark(_) => {}
            other => bail!("{other:?}"),
        }
    }
    assert_eq!(added, 3, "the watch begins with the state, and ends in time");
    nothing_unsupported(&api)
}

#[tokio::test]
async fn what_is_served_can_be_discovered() -> Result<()> {
    let (api, client) = setup("discovery").await?;
    define_peers(&client, "discovery").await?;
    let discovery = kube::Discovery::new(client.clone()).run().await?;
    let slices = GroupVersionKind::gvk("discovery.k8s.io", "v1", "EndpointSlice");
    for kind in [
        GroupVersionKind::gvk("", "v1", "Service"),
        slices,
        GroupVersionKind::gvk("isthmus.test", "v1alpha1", "Peer"),
    ] {
        let (resource, capabilities) =
            discovery.resolve_gvk(&kind).with_context(|| format!("{kind:?} is not served"))?;
        ensure!(capabilities.supports_operation(kube::discovery::verbs::WATCH), "{resource:?}");
    }
    let version = client.apiserver_version().await?;
    ensure!(version.major == "1", "{version:?}");
    nothing_unsupported(&api)
}

#[tokio::test]
async fn roles_count_for_service_accounts() -> Result<()> {
    let (api, admin) = setup("roles").await?;
    let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), "roles");
    accounts
        .create(&PostParams::default(), &serde_json::from_value(json!({"metadata": {"name": "hub"}}))?)
        .await?;
    let subjects = json!([{"kind": "ServiceAccount", "name": "hub", "namespace": "roles"}]);
    let role_ref = |kind: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": "hub"});
    let rules = json!([{"apiGroups": [""], "resources": ["services"], "verbs": ["get", "list", "watch"]}]);
    let cluster_role = json!({"metadata": {"name": "hub"}, "rules": rules});
    let binding =
        json!({"metadata": {"name": "hub"}, "subjects": subjects, "roleRef": role_ref("ClusterRole")});
    let params = PostParams::default();
    Api::<ClusterRole>::all(admin.clone()).create(&params, &serde_json::from_value(cluster_role)?).await?;
    Api::<ClusterRoleBinding>::all(admin.clone()).create(&params, &serde_json::from_value(binding)?).await?;
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["patch"]}]);
    let role = json!({"metadata": {"name": "hub"}, "rules": rules});
    let binding = json!({"metadata": {"name": "hub"}, "subjects": subjects, "roleRef": role_ref("Role")});
    Api::<Role>::namespaced(admin.clone(), "roles").create(&params, &serde_json::from_value(role)?).await?;
    Api::<RoleBinding>::namespaced(admin.clone(), "roles")
        .create(&params, &serde_json::from_value(binding)?)
        .await?;

    let token = accounts.create_token_request("hub", &params, &TokenRequest::default()).await?;
    let hub =
        client_with_token(&api, &token.status.and_then(|status| status.token).context("no token")?).await?;
    let services: Api<Service> = Api::all(hub.clone());
    // A real API server learns of roles by watching them.
    eventually("the role counts", SOON, || async {
        services.list(&ListParams::default()).await.map(drop).context("list")
    })
    .await?;
    let message = refused(Api::<Pod>::all(hub.clone()).list(&ListParams::default()).await, 403, "Forbidden")?;
    ensure!(
        message.contains("system:serviceaccount:roles:hub")
            && message.contains("cannot list resource \"pods\""),
        "{message}"
    );
    let maps: Api<ConfigMap> = Api::namespaced(hub, "roles");
    let applied =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"value": "1"}});
    let apply = PatchParams::apply("hub");
    refused(maps.patch("a", &apply, &Patch::Apply(&applied)).await, 403, "Forbidden")?;
    let here: Api<ConfigMap> = Api::namespaced(admin, "roles");
    here.create(&params, &config_map("a", &json!({}), "0")).await?;
    maps.patch("a", &apply.force(), &Patch::Apply(&applied))
        .await
        .context("patching what is there is granted")?;
    nothing_unsupported(&api)
}

/// Defines a kind in the group `isthmus.test`, and waits until it is served.
async fn define_peers(client: &Client, namespace: &str) -> Result<Api<DynamicObject>> {
    let schema = json!({"type": "object", "required": ["spec"], "properties": {
        "spec": {"type": "object", "required": ["endpoints"], "properties": {
            "endpoints": {"type": "array", "items": {"type": "string"}},
            "mode": {"type": "string", "enum": ["direct", "cached"], "default": "cached"}}},
        "status": {"type": "object", "properties": {"conditions": {"type": "array", "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"], "items": {"type": "object", "required": ["type", "status"],
            "properties": {"type": {"type": "string"}, "status": {"type": "string"}}}}}}}});
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "peers.isthmus.test"}, "spec": {"group": "isthmus.test", "scope": "Namespaced",
            "names": {"plural": "peers", "singular": "peer", "kind": "Peer", "listKind": "PeerList"},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": schema}}]}});
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let definition: CustomResourceDefinition = serde_json::from_value(definition)?;
    definitions.patch("peers.isthmus.test", &PatchParams::apply("test"), &Patch::Apply(&definition)).await?;
    let kind = GroupVersionKind::gvk("isthmus.test", "v1alpha1", "Peer");
    let peers = Api::namespaced_with(client.clone(), namespace, &ApiResource::from_gvk(&kind));
    eventually("the kind is served", SOON, || async {
        let definition = definitions.get("peers.isthmus.test").await?;
        let conditions = definition.status.and_then(|status| status.conditions).unwrap_or_default();
        let established = conditions.iter().any(|c| c.type_ == "Established" && c.status == "True");
        ensure!(established, "{conditions:?}");
        peers.list(&ListParams::default()).await.map(drop).context("list peers")
    })
    .await?;
    Ok(peers)
}
