//! What `install -o yaml` prints, brought into the cluster by somebody else: it is all there is but the certificates.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use super::ground::Ground;
use super::hub::Hub;

/// The objects of a text of several YAML documents.
fn documents(text: &str) -> Result<Vec<Value>> {
    let documents = serde_yaml_ng::Deserializer::from_str(text);
    documents.map(|document| Ok(Value::deserialize(document)?)).collect()
}

fn secret(ground: &Ground, name: &str, folder: &str) -> Result<Value> {
    let mut secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "isthmus"},
        "stringData": {}});
    for file in ["tls.crt", "tls.key", "ca.crt"] {
        let path = ground.certificates().join(folder).join(file);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        secret["stringData"][file] = json!(text);
    }
    Ok(secret)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_printed_is_all_there_is_but_the_certificates() -> Result<()> {
    let ground = Ground::new().await?;
    let values = ground.path("paris.yaml");
    std::fs::write(
        &values,
        "cluster: {name: paris, id: 1}\nimage: {registry: registry.example/isthmus}\n\
         hub: {service: {type: NodePort}}\n",
    )?;
    let args = ["install", "--values", values.to_str().context("UTF-8")?, "-o", "yaml"];
    let printed = ground.meshctl(&args).await?.ended(0)?.out;
    ensure!(printed == ground.meshctl(&args).await?.ended(0)?.out, "it prints something else each time");
    ensure!(ground.find(&super::namespace()).await?.is_none(), "printing changed the cluster");
    let objects = documents(&printed)?;
    for object in objects.iter().filter(|object| object["kind"] == "Secret") {
        ensure!(object["data"].is_null() && object["stringData"].is_null(), "{object:#}");
    }
    // In the order in which they stand.
    for object in &objects {
        ground.make(object).await.with_context(|| format!("{object:#}"))?;
    }
    for (name, folder) in [
        ("isthmus-hub-tls", "hub"),
        ("isthmus-agent-local-tls", "local"),
        ("isthmus-agent-remote-tls", "remote"),
    ] {
        ground.make(&secret(&ground, name, folder)?).await?;
    }
    let hub = Hub::start(&ground).await?;
    hub.unhindered().await?;
    drop(hub);

    // `uninstall` takes what is printed away, and leaves the certificates that others brought, with their namespace.
    let _controllers = ground.controllers().await?;
    let gone = ground.meshctl(&["uninstall"]).await?.ended(0)?;
    for object in objects.iter().filter(|object| object["kind"] != "Namespace") {
        ensure!(ground.find(object).await?.is_none(), "left: {object:#}\n{}", gone.err);
    }
    ensure!(ground.find(&secret(&ground, "isthmus-hub-tls", "hub")?).await?.is_some(), "{}", gone.err);
    gone.told("left: namespace isthmus, since there are")?;
    ground.nothing_unsupported()
}
