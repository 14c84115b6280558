//! The hub that an installation asks for, run as its pod would: with its arguments, and with the token and the rights of its
//! account. Whatever the profile, it must come up and be denied nothing.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::eventually;
use e2e::http;
use e2e::loopback::{free_port, loopback};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use super::ground::{Ground, Said, run};

/// A hub; killed when dropped.
pub(crate) struct Hub {
    admin: u16,
    _child: Child,
}

impl Hub {
    /// Starts the hub of the StatefulSet that is in the cluster, and waits until it is ready.
    pub(crate) async fn start(ground: &Ground) -> Result<Self> {
        let set = ground.find(&set("StatefulSet", "isthmus-hub")).await?.context("the hub")?;
        let kubeconfig = account(ground).await?;
        let admin = free_port()?;
        std::fs::create_dir_all(ground.path("mounts"))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(ground.program("mesh-apiserver")?);
        for argument in arguments(&set)? {
            let (flag, value) = argument.split_once('=').unwrap_or((&argument, ""));
            // Its arguments, but for ports and for what is mounted into a pod.
            command.arg(match flag {
                "--tls-dir" => format!("{flag}={}", ground.certificates().join("hub").display()),
                "--data-dir" => format!("{flag}={}", ground.path("data").display()),
                "--listen" => format!("{flag}=127.0.0.1:0"),
                "--admin-listen" => format!("{flag}=127.0.0.1:{admin}"),
                _ if value.starts_with('/') => format!("{flag}={}", ground.path("mounts").display()),
                _ => argument,
            });
        }
        let log = std::fs::File::create(ground.path("hub.log"))?;
        command.env("KUBECONFIG", &kubeconfig).env("RUST_BACKTRACE", "0");
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        let hub = Self { admin, _child: command.spawn().context("start the hub")? };
        let ready = eventually("the hub is ready", Duration::from_secs(60), || async {
            page(admin, "/readyz").await
        })
        .await;
        ready.with_context(|| std::fs::read_to_string(ground.path("hub.log")).unwrap_or_default())?;
        Ok(hub)
    }

    /// Its status, if it was denied nothing.
    pub(crate) async fn unhindered(&self) -> Result<Value> {
        let status: Value = serde_json::from_str(&page(self.admin, "/status").await?)?;
        let findings = status["findings"].as_array().context("findings")?;
        ensure!(!findings.iter().any(|finding| finding["reason"] == "source-denied"), "{findings:#?}");
        Ok(status)
    }
}

/// A kubeconfig with the token of the hub's account.
pub(crate) async fn account(ground: &Ground) -> Result<PathBuf> {
    let accounts: Api<ServiceAccount> = Api::namespaced(ground.client().await?, "isthmus");
    let token = accounts
        .create_token_request("isthmus-hub", &PostParams::default(), &TokenRequest::default())
        .await?;
    let mut access = ground.api.access().clone();
    access.token = token.status.and_then(|status| status.token);
    let kubeconfig = ground.path("hub-kubeconfig");
    access.write_kubeconfig(&kubeconfig)?;
    Ok(kubeconfig)
}

/// A page of an admin port of this machine.
pub(crate) async fn page(port: u16, path: &str) -> Result<String> {
    http::page(loopback(port), path).await
}

/// A program of the installation.
pub(crate) fn set(kind: &str, name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": "isthmus"}})
}

/// The arguments of its first container.
pub(crate) fn arguments(set: &Value) -> Result<Vec<String>> {
    let arguments =
        set["spec"]["template"]["spec"]["containers"][0]["args"].as_array().context("arguments")?;
    Ok(arguments.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hub_works_with_the_arguments_and_the_rights_that_it_is_given() -> Result<()> {
    let ground = Ground::new().await?;
    let _controllers = ground.controllers().await?;
    ground.install_with_secrets(&[]).await?.ended(0)?;
    let hub = Hub::start(&ground).await?;
    let status = hub.unhindered().await?;
    ensure!(status["identities"]["keptBy"] == "objects", "{}", status["identities"]);

    // Every argument of the agent is one that it knows.
    let agents = ground.find(&set("DaemonSet", "isthmus-agent")).await?.context("the agents")?;
    let mut help = Command::new(ground.program("mesh-agent")?);
    help.arg("--help");
    let Said { out: help, .. } = run(help).await?.ended(0)?;
    for argument in arguments(&agents)? {
        let flag = argument.split('=').next().unwrap_or_default();
        ensure!(help.contains(&format!("{flag} <")), "no {flag} in {help}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn so_does_a_hub_without_agents() -> Result<()> {
    let ground = Ground::new().await?;
    let _controllers = ground.controllers().await?;
    let installed = ground.install_with_secrets(&["--profile=agentless"]).await?.ended(0)?;
    ensure!(!installed.err.contains("DaemonSet"), "{}", installed.err);
    let hub = Hub::start(&ground).await?;
    hub.unhindered().await?;
    ground.meshctl(&["uninstall"]).await?.ended(0)?;
    ensure!(ground.find(&set("StatefulSet", "isthmus-hub")).await?.is_none(), "the hub is left");
    ground.nothing_unsupported()
}

#[tokio::test(flavor = "multi_thread")]
async fn so_does_a_hub_beside_cilium() -> Result<()> {
    let ground = Ground::new().await?;
    let _controllers = ground.controllers().await?;
    for (kind, plural, scope, version) in [
        ("CiliumIdentity", "ciliumidentities", "Cluster", "v2"),
        ("CiliumEndpoint", "ciliumendpoints", "Namespaced", "v2"),
        ("CiliumNode", "ciliumnodes", "Cluster", "v2"),
        ("CiliumNetworkPolicy", "ciliumnetworkpolicies", "Namespaced", "v2"),
        ("CiliumClusterwideNetworkPolicy", "ciliumclusterwidenetworkpolicies", "Cluster", "v2"),
        ("CiliumEndpointSlice", "ciliumendpointslices", "Cluster", "v2alpha1"),
    ] {
        let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.cilium.io")},
            "spec": {"group": "cilium.io", "scope": scope,
                "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind},
                "versions": [{"name": version, "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": schema}}]}});
        ground.make(&definition).await?;
    }
    ground
        .make(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-system"}}))
        .await?;
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cilium-config", "namespace": "kube-system"},
        "data": {"cluster-name": "paris", "cluster-id": "1"}});
    ground.make(&config).await?;
    ground.install_with_secrets(&[]).await?.ended(0)?;
    let hub = Hub::start(&ground).await?;
    let status = hub.unhindered().await?;
    ensure!(status["identities"]["keptBy"] == "cilium", "{}", status["identities"]);
    for kind in
        ["CiliumEndpointSlice", "CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy", "NetworkPolicy"]
    {
        let shown = &status["source"]["kinds"][kind];
        ensure!(shown["problem"].is_null() && !shown.is_null(), "{kind}: {shown}");
    }
    // Definitions of Cilium are its own.
    ground.meshctl(&["uninstall", "--delete-objects"]).await?.ended(0)?;
    let kept = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "ciliumendpoints.cilium.io"}});
    ensure!(ground.find(&kept).await?.is_some(), "a definition of Cilium was removed");
    ground.nothing_unsupported()
}
