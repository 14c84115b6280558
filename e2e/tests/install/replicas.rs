//! Several hubs on an etcd, as installed: that the rights they are given are enough for the Lease that elects one.

use std::fs::File;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::eventually;
use e2e::loopback::{self, free_port, loopback};
use serde_json::{Value, json};
use tokio::process::Command;

use super::ground::Ground;
use super::hub::{account, arguments, page};
use super::{namespace, secret};

const ETCD: &str = "--etcd=https://etcd.example:2379";

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_on_etcd_holds_its_lease_with_the_rights_that_it_is_given() -> Result<()> {
    let ground = Ground::new().await?;
    let _controllers = ground.controllers().await?;
    // Somebody else's namespace, so that it stays.
    ground.make(&namespace()).await?;
    ground.make(&secret("isthmus-store-tls")).await?;
    ground.install_with_secrets(&[ETCD]).await?.ended(0)?;
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "isthmus-hub", "namespace": "isthmus"}});
    let empty = ground.find(&lease).await?.context("the Lease")?;
    ensure!(empty["spec"]["holderIdentity"].is_null(), "{empty:#}");
    let hub = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "isthmus-hub", "namespace": "isthmus"}});
    let hub = ground.find(&hub).await?.context("the hub")?;

    let kubeconfig = account(&ground).await?;
    let etcd = free_port()?;
    let _etcd = loopback::etcd(&ground.path(""), etcd)?;
    let admin = free_port()?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(ground.program("mesh-apiserver")?);
    for argument in arguments(&hub)? {
        let flag = argument.split('=').next().unwrap_or_default();
        command.arg(match flag {
            "--tls-dir" => format!("{flag}={}", ground.certificates().join("hub").display()),
            "--store" => format!("{flag}=etcd:http://{}", loopback(etcd)),
            "--listen" => format!("{flag}=127.0.0.1:0"),
            "--admin-listen" => format!("{flag}=127.0.0.1:{admin}"),
            _ => argument.replace("$(POD_NAME)", "isthmus-hub-7"),
        });
    }
    // In a pod it is that of the account.
    command.arg("--leader-elect-resource-namespace=isthmus");
    let log = File::create(ground.path("hub.log"))?;
    command.env("KUBECONFIG", &kubeconfig).env("RUST_BACKTRACE", "0");
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
    let _hub = command.spawn().context("start the hub")?;
    let leads = eventually("the hub leads with the Lease", Duration::from_secs(60), || async {
        page(admin, "/readyz").await?;
        let status: Value = serde_json::from_str(&page(admin, "/status").await?)?;
        let etcd = &status["store"]["etcd"];
        ensure!(etcd["leads"] == true && etcd["lease"]["held"] == true, "{etcd:#}");
        Ok(status)
    });
    let status =
        leads.await.with_context(|| std::fs::read_to_string(ground.path("hub.log")).unwrap_or_default())?;
    let findings = status["findings"].as_array().cloned().unwrap_or_default();
    let denied =
        |finding: &Value| finding["reason"] == "source-denied" || finding["reason"] == "leader-lease";
    ensure!(!findings.iter().any(denied), "{findings:#?}");
    let held = ground.find(&lease).await?.context("the Lease")?;
    ensure!(held["spec"]["holderIdentity"] == "isthmus-hub-7", "{held:#}");

    // What the hub wrote is no change to what is installed, and goes with it.
    let again = ground.install_with_secrets(&[ETCD]).await?.ended(0)?;
    ensure!(again.out.contains(" 0 created, 0 changed"), "{again:#?}");
    ground.meshctl(&["uninstall"]).await?.ended(0)?;
    ensure!(ground.find(&lease).await?.is_none(), "the Lease is left");
    ground.nothing_unsupported()
}
