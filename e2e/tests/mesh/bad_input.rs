//! Bad input gives one clear line that names the object, what was found and what was expected; it is visible in
//! `/status`, and it stops nothing else.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use e2e::authority::{Enrolment, Role};
use e2e::manifest::service::AFFINITY;
use e2e::peer_config::client_config;
use e2e::scenario::{self, CLUSTERS, SOON, answered_by, echo};
use e2e::{Daemon, Lab, ServiceManifest, eventually, status};

/// Waits until a daemon's `/status` has an entry with all of these words, and its log a line with the first.
async fn reported(lab: &Lab, daemon: &Daemon, words: &[&str]) -> Result<()> {
    eventually(&format!("{daemon} reports {words:?}"), SOON, || async {
        status::expect_finding(&lab.status(daemon).await?, words)
    })
    .await?;
    let log = lab.log(daemon)?;
    let first = words.first().context("a word")?;
    ensure!(log.contains(first), "the log of {daemon} does not mention {first}:\n{log}");
    Ok(())
}

/// Waits until no entry has all of these words any more.
async fn mended(lab: &Lab, daemon: &Daemon, words: &[&str]) -> Result<()> {
    eventually(&format!("{daemon} no longer reports {words:?}"), SOON, || async {
        let status = lab.status(daemon).await?;
        ensure!(!status::has_finding(&status, words), "{status:#}");
        Ok(())
    })
    .await
}

/// Nothing else stops: the service answers from everywhere, and a change arrives.
async fn all_else_works(lab: &mut Lab, new_pod: &str) -> Result<()> {
    scenario::start_backend(lab, "berlin", new_pod).await?;
    let client = lab.client("paris", "n1")?;
    eventually("a change of a good object arrives", SOON, || async {
        let tally = client.http(scenario::URL4).count(80).run().await?;
        tally.expect_clusters(&CLUSTERS)?;
        ensure!(tally.pod("berlin", new_pod) > 0, "{tally}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn bad_manifests() -> Result<()> {
    let mut lab = scenario::running("bad-manifests").await?;
    let hub = Daemon::hub("berlin");

    lab.manifest("berlin", "broken", "kind: Service\nmetadata: {name: x\n")?;
    reported(&lab, &hub, &["broken.yaml"]).await?;
    lab.manifest(
        "berlin",
        "wrong-type",
        "apiVersion: v1\nkind: Service\nmetadata: {name: x, namespace: y}\nspec: {ports: 7}\n",
    )?;
    reported(&lab, &hub, &["wrong-type.yaml"]).await?;

    lab.service("berlin", ServiceManifest::new("shop", "empty").vip4("10.96.0.20").port(80).global())?;
    reported(&lab, &hub, &["shop/empty"]).await?;

    lab.service("berlin", echo().annotation(AFFINITY, "sideways"))?;
    reported(&lab, &hub, &["shop/echo", "sideways"]).await?;

    let taken = lab.pod_addresses("berlin", "echo-1")?.v4;
    let thief = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{namespace: shop, name: thief, labels: {{app: thief}}}}\n\
         spec: {{nodeName: n1, containers: [{{name: main, image: x}}]}}\n\
         status: {{phase: Running, podIP: {taken}, podIPs: [{{ip: {taken}}}]}}\n"
    );
    lab.manifest("berlin", "thief", &thief)?;
    reported(&lab, &hub, &["shop/thief", &taken.to_string(), "shop/echo-1"]).await?;

    all_else_works(&mut lab, "echo-2").await?;
    for file in ["broken", "wrong-type", "thief"] {
        lab.delete_manifest("berlin", file)?;
    }
    mended(&lab, &hub, &["broken.yaml"]).await?;
    mended(&lab, &hub, &["shop/thief"]).await?;
    lab.finish().await
}

#[tokio::test]
async fn a_file_that_breaks_keeps_its_last_good_objects() -> Result<()> {
    let mut lab = scenario::running("breaks").await?;
    let hub = Daemon::hub("tokyo");
    lab.manifest("tokyo", "shop.service.echo", "kind: {{{\n")?;
    reported(&lab, &hub, &["shop.service.echo.yaml"]).await?;
    all_else_works(&mut lab, "echo-2").await?;
    lab.service("tokyo", echo())?;
    mended(&lab, &hub, &["shop.service.echo.yaml"]).await?;
    lab.finish().await
}

#[tokio::test]
async fn a_peer_configuration_with_a_missing_key_file() -> Result<()> {
    let mut lab = scenario::running("missing-key").await?;
    let agent = Daemon::agent("paris", "n1");
    let tls = lab.scratch("no-key");
    fs::create_dir(&tls)?;
    for file in ["tls.crt", "ca.crt"] {
        fs::copy(lab.tls_dir("paris", Role::Remote).join(file), tls.join(file))?;
    }
    let missing = tls.join("tls.key").display().to_string();
    let file = lab.peers_dir("paris").join("oslo");
    fs::write(&file, client_config("oslo", lab.node_addresses("berlin", "n1")?, &tls))?;
    reported(&lab, &agent, &["oslo", &missing]).await?;
    all_else_works(&mut lab, "echo-2").await?;
    fs::remove_file(&file)?;
    mended(&lab, &agent, &["oslo", &missing]).await?;
    lab.finish().await
}

#[tokio::test]
async fn a_certificate_of_another_root() -> Result<()> {
    let mut lab = scenario::running("other-root").await?;
    let agent = Daemon::agent("paris", "n1");
    let other = lab.new_authority("other-authority")?;
    let (passport, leaf) = (lab.scratch("other-passport"), lab.scratch("other-leaf"));
    other.enroll(&Enrolment::of_lab_cluster("paris", 1), &passport)?;
    other.leaf(&passport, Role::Remote, "n1", &leaf)?;

    let file = lab.peers_dir("paris").join("tokyo");
    let good = fs::read_to_string(&file)?;
    fs::write(&file, client_config("tokyo", lab.node_addresses("tokyo", "n1")?, &leaf))?;
    // Both ends say so: the agent, which does not know tokyo's root either, and names the peer.
    reported(&lab, &agent, &["tokyo", "root"]).await?;
    all_else_works(&mut lab, "echo-2").await?;
    fs::write(&file, good)?;
    let paris = lab.client("paris", "n1")?;
    scenario::start_backend(&mut lab, "tokyo", "echo-3").await?;
    eventually("tokyo is followed again", SOON, || async {
        let tally = paris.http(scenario::URL4).count(80).run().await?;
        ensure!(tally.pod("tokyo", "echo-3") > 0, "{tally}");
        Ok(())
    })
    .await?;
    lab.finish().await
}

#[tokio::test]
async fn a_peer_with_our_own_cluster_id() -> Result<()> {
    let mut lab = scenario::running("same-id").await?;
    let (hub, agent) = (Daemon::hub("tokyo"), Daemon::agent("paris", "n1"));
    // No honest authority gives an id twice, so tokyo comes with a passport of another one, which paris accepts.
    let other = lab.new_authority("other-authority")?;
    let (passport, leaf) = (lab.scratch("other-passport"), lab.scratch("other-leaf"));
    other.enroll(&Enrolment { id: 1, ..Enrolment::of_lab_cluster("tokyo", 3) }, &passport)?;
    other.leaf(&passport, Role::Hub, "n1", &leaf)?;
    let trust = lab.scratch("paris-trusts");
    fs::create_dir(&trust)?;
    for file in ["tls.crt", "tls.key"] {
        fs::copy(lab.tls_dir("paris", Role::Remote).join(file), trust.join(file))?;
    }
    fs::copy(leaf.join("ca.crt"), trust.join("ca.crt"))?;
    fs::copy(lab.tls_dir("paris", Role::Hub).join("ca.crt"), leaf.join("ca.crt"))?;

    lab.terminate(&hub).await?;
    lab.set_flag(&hub, "--cluster-id", "1")?;
    lab.set_flag(&hub, "--tls-dir", &leaf.display().to_string())?;
    let data = lab.scratch("tokyo-data").display().to_string();
    lab.set_flag(&hub, "--data-dir", &data)?;
    lab.restart(&hub).await?;
    fs::write(
        lab.peers_dir("paris").join("tokyo"),
        client_config("tokyo", lab.node_addresses("tokyo", "n1")?, &trust),
    )?;
    reported(&lab, &agent, &["tokyo", "id 1"]).await?;
    let paris = lab.client("paris", "n1")?;
    scenario::start_backend(&mut lab, "berlin", "echo-2").await?;
    eventually("berlin is followed as before", SOON, || async {
        let tally = paris.http(scenario::URL4).count(80).run().await?;
        ensure!(tally.pod("berlin", "echo-2") > 0 && tally.failed() == 0, "{tally}");
        Ok(())
    })
    .await?;
    lab.finish().await
}

/// Debian's etcd in place of tokyo's hub, with tokyo's certificate and records, and one value that is not JSON.
#[tokio::test]
async fn a_value_that_is_not_json_in_a_peers_keyspace() -> Result<()> {
    let mut lab = scenario::running("not-json").await?;
    let (hub, agent) = (Daemon::hub("tokyo"), Daemon::agent("paris", "n1"));
    let reader = lab.tls_dir("tokyo", Role::Admin);
    let records = lab.etcdctl("tokyo", Some(&reader), &["get", "--prefix", "cilium/", "-w", "json"]).await?;
    let records: serde_json::Value =
        serde_json::from_str(&records.stdout).with_context(|| format!("records: {}", records.stderr))?;
    lab.terminate(&hub).await?;

    let tls = lab.tls_dir("tokyo", Role::Hub);
    let (certificate, key, ca) = (tls.join("tls.crt"), tls.join("tls.key"), tls.join("ca.crt"));
    let data = lab.scratch("tokyo-etcd");
    let show = |path: &Path| path.display().to_string();
    let args = [
        "--name=tokyo".to_owned(),
        format!("--data-dir={}", show(&data)),
        "--listen-client-urls=https://[::]:2379".to_owned(),
        "--advertise-client-urls=https://tokyo.mesh.cilium.io:2379".to_owned(),
        "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
        "--client-cert-auth".to_owned(),
        format!("--cert-file={}", show(&certificate)),
        format!("--key-file={}", show(&key)),
        format!("--trusted-ca-file={}", show(&ca)),
    ];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    lab.start_program("tokyo", "n1", "etcd", Path::new("etcd"), &args)?;
    eventually("etcd answers", SOON, || async {
        let output = lab.etcdctl("tokyo", Some(&reader), &["get", "x"]).await?;
        ensure!(output.success, "{}", output.stderr);
        Ok(())
    })
    .await?;
    let put = async |key: &str, value: &[u8]| {
        let output = lab.etcdctl_fed("tokyo", Some(&reader), &["put", key], value).await?;
        ensure!(output.success, "put {key}: {}", output.stderr);
        anyhow::Ok(())
    };
    let broken = "cilium/state/services/v1/tokyo/shop/broken";
    put(broken, b"{ this is not JSON").await?;
    for record in records["kvs"].as_array().context("records")? {
        let field = |name: &str| BASE64_STANDARD.decode(record[name].as_str().unwrap_or_default());
        put(&String::from_utf8(field("key")?)?, &field("value")?).await?;
    }
    reported(&lab, &agent, &[broken, "JSON"]).await?;
    answered_by(&lab.client("paris", "n1")?, &CLUSTERS).await?;
    all_else_works(&mut lab, "echo-2").await?;
    lab.finish().await
}
