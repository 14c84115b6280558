//! A hostile member of the mesh: berlin has a sound passport, and mints whatever it likes under it. Nothing of that is
//! worth anything at paris, each attempt is reported, and a good client beside it notices nothing.

mod mint;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use e2e::authority::Role;
use e2e::scenario::SOON;
use e2e::{ClusterSpec, Daemon, Lab, eventually, status};
use futures_util::future::try_join_all;
use mint::{Forged, Member};
use pki::key::{KeyKind, PrivateKey, SigningRequest};
use rcgen::ExtendedKeyUsagePurpose;

const HUB: &str = "paris";
/// The key of which a good client hears at the end.
const LAST: &str = "isthmus/v1/shared/last";

/// Paris, which is attacked, and berlin, with a watch of berlin's honest client at paris's hub.
struct Stage {
    lab: Lab,
    berlin: Member,
    log_read: usize,
}

impl Stage {
    async fn set(name: &str) -> Result<Self> {
        let clusters = [ClusterSpec::new(HUB, 1), ClusterSpec::new("berlin", 2)];
        let lab = clusters.into_iter().fold(Lab::builder(name), |lab, cluster| lab.cluster(cluster));
        let mut lab = lab.start().await?;
        let berlin = Member::open(&lab.site().cluster_dir("berlin").join("pki/passport"))?;
        let tls = lab.tls_dir("berlin", Role::Remote);
        let [certificate, key, ca] = [("cert", "tls.crt"), ("key", "tls.key"), ("cacert", "ca.crt")]
            .map(|(flag, file)| format!("--{flag}={}", tls.join(file).display()));
        let watch = ["--endpoints=https://127.0.0.1:2379", &certificate, &key, &ca, "watch", LAST];
        lab.start_program(HUB, "n1", "good-watch", Path::new("etcdctl"), &watch)?;
        let stage = Self { lab, berlin, log_read: 0 };
        eventually("the good client is connected", SOON, || async { stage.good_client().await }).await?;
        Ok(stage)
    }

    fn mint(&self, name: &str, forged: &Forged) -> Result<PathBuf> {
        let out = self.lab.scratch(&format!("minted-{name}"));
        self.berlin.mint(forged, &out).with_context(|| format!("mint {name}"))?;
        Ok(out)
    }

    /// Asks for everything that a name could be good for, and fails unless each is refused with all of these words.
    async fn attempts(&self, tls: &Path, words: &[&str]) -> Result<()> {
        let attempts: [&[&str]; 12] = [
            &["get", "--prefix", "cilium/state/"],
            &["get", "--prefix", ""],
            &["get", "cilium/cluster-config/paris"],
            &["put", "cilium/state/services/v1/paris/shop/planted", "x"],
            &["put", "isthmus/v1/agents/n1/planted", "x"],
            &["del", "--prefix", ""],
            &["watch", "--prefix", "cilium/state/"],
            &["lease", "grant", "60"],
            &["lease", "list"],
            &["member", "list"],
            &["compact", "2"],
            &["endpoint", "status"],
        ];
        let outputs = attempts.map(|attempt| self.lab.etcdctl(HUB, Some(tls), attempt));
        for (attempt, output) in attempts.iter().zip(try_join_all(outputs).await?) {
            let said = format!("{}{}", output.stdout, output.stderr);
            // A watch ends well, having said why it was canceled.
            let told = !output.success || attempt[0] == "watch";
            let refused = words.iter().all(|word| said.contains(word));
            ensure!(told && refused, "{attempt:?}: expected a refusal with {words:?}, got: {output:?}");
        }
        Ok(())
    }

    /// Waits until log, status page and metric of the hub tell of a refusal with all of these words.
    async fn reported(&mut self, kind: &str, words: &[&str]) -> Result<()> {
        let hub = Daemon::hub(HUB);
        let (lab, since) = (&self.lab, self.log_read);
        self.log_read = eventually(&format!("paris reports {words:?}"), SOON, || async {
            let page = lab.status(&hub).await?;
            let refused = page["refused"].as_array().context("refused clients")?;
            let shown = refused.iter().any(|entry| {
                entry["kind"] == kind && words.iter().all(|word| entry.to_string().contains(word))
            });
            ensure!(shown, "/status shows no {kind} with {words:?}: {refused:#?}");
            let log = lab.log(&hub)?;
            let new = log.get(since..).unwrap_or_default();
            let is_said =
                |line: &str| line.contains("client refused") && words.iter().all(|word| line.contains(word));
            ensure!(new.lines().any(is_said), "no new line of the log has {words:?}: {new}");
            let metrics = lab.get(&hub, "/metrics").await?;
            let counter = format!("mesh_apiserver_connections_refused_total{{reason=\"{kind}\"}} ");
            ensure!(metrics.contains(&counter), "no {counter} in {metrics}");
            Ok(log.len())
        })
        .await?;
        Ok(())
    }

    /// The connection of berlin's honest watch, as the status page shows it.
    async fn good_client(&self) -> Result<String> {
        let page = self.lab.status(&Daemon::hub(HUB)).await?;
        let clients = page["clients"].as_array().context("clients")?;
        let local = |client: &&serde_json::Value| {
            client["role"] == "remote"
                && client["address"].as_str().is_some_and(|text| text.contains("127.0.0.1"))
        };
        let client = clients.iter().find(local).with_context(|| format!("no good client: {clients:#?}"))?;
        Ok(format!("{} since {}", client["address"], client["since"]))
    }

    /// Nothing was written, and the good client hears of a change on the connection it had at first.
    async fn good_client_unhurt(&self, at_first: &str) -> Result<()> {
        let admin = self.lab.tls_dir(HUB, Role::Admin);
        let planted = self.lab.etcdctl(HUB, Some(&admin), &["get", "--prefix", "", "--keys-only"]).await?;
        ensure!(
            planted.success
                && !planted.stdout.contains("planted")
                && planted.stdout.contains("cilium/.heartbeat"),
            "{planted:?}"
        );
        let put = self.lab.etcdctl(HUB, Some(&admin), &["put", LAST, "the end"]).await?;
        ensure!(put.success, "{put:?}");
        let log = self.lab.site().cluster_dir(HUB).join("log/good-watch.log");
        eventually("the good client hears of it", SOON, || async {
            let text = std::fs::read_to_string(&log)?;
            ensure!(text.contains("the end"), "it heard {text:?}");
            Ok(())
        })
        .await?;
        let now = self.good_client().await?;
        ensure!(now == at_first, "the good client was at {at_first}, now at {now}");
        Ok(())
    }
}

fn named(name: &'static str) -> Forged {
    Forged { names: vec![name], ..Forged::default() }
}

fn named_with(name: &'static str, uri: &'static str) -> Forged {
    Forged { uris: vec![uri], ..named(name) }
}

#[tokio::test]
async fn every_privileged_name_is_refused_and_reported() -> Result<()> {
    let mut stage = Stage::set("hostile-names").await?;
    let at_first = stage.good_client().await?;
    let berlin =
        |role: &str| format!("spiffe://mesh.example/cluster/berlin/node/n1/{role}").leak() as &'static str;
    let paris =
        |role: &str| format!("spiffe://mesh.example/cluster/paris/node/n1/{role}").leak() as &'static str;
    let of_paris = "common name names paris, passport is berlin's";
    let not_own = "counts only under this cluster's own passport, presented was that of berlin";
    let unknown = "expected remote-<cluster>, local-<cluster>, admin-<cluster> or that of a hub";
    let uri_of_paris = "its URI names paris in mesh.example, its passport is berlin in mesh.example's";
    let two_names = Forged { names: vec!["admin-paris", "remote-berlin"], ..Forged::default() };
    let two_uris = Forged { uris: vec![berlin("remote"), paris("admin")], ..named("admin-paris") };
    for (case, forged, says) in [
        ("admin-paris", named_with("admin-paris", berlin("admin")), of_paris),
        ("admin-paris-uri", named_with("admin-paris", paris("admin")), uri_of_paris),
        ("local-paris", named_with("local-paris", berlin("local")), of_paris),
        ("local-paris-uri", named_with("local-paris", paris("local")), uri_of_paris),
        ("remote-paris", named("remote-paris"), of_paris),
        ("remote-tokyo", named("remote-tokyo"), "common name names tokyo, passport is berlin's"),
        ("remote", named("remote"), unknown),
        ("root", named("root"), unknown),
        ("admin-berlin", named_with("admin-berlin", berlin("admin")), not_own),
        ("local-berlin", named_with("local-berlin", berlin("local")), not_own),
        (
            "hub-as-remote",
            named("isthmus hub"),
            "common name isthmus hub is not that of the role remote in its URI",
        ),
        ("hub-of-paris", named_with("isthmus hub", paris("hub")), uri_of_paris),
        (
            "cluster-uri",
            named_with("remote-berlin", "spiffe://mesh.example/cluster/paris/id/1"),
            "expected spiffe://",
        ),
        ("no-name", Forged { names: Vec::new(), ..Forged::default() }, unknown),
        ("two-names", two_names, unknown),
        ("two-uris", two_uris, "the leaf has 2 URIs, expected exactly one"),
        ("no-uri", Forged { uris: Vec::new(), ..named("admin-paris") }, "the leaf has 0 URIs"),
        ("case", named("Admin-paris"), unknown),
    ] {
        let tls = stage.mint(case, &forged)?;
        let name = forged.names.first().copied().unwrap_or("issued by");
        stage.attempts(&tls, &["PermissionDenied", says]).await.with_context(|| format!("case {case}"))?;
        stage
            .reported("peer-refused", &[name, "isthmus cluster berlin", says])
            .await
            .with_context(|| case)?;
    }

    // What berlin is: a peer that reads what peers may, under its own name or as its hub. Minted by the same hand.
    for (case, forged) in
        [("control", Forged::default()), ("own-hub", named_with("isthmus hub", berlin("hub")))]
    {
        let tls = stage.mint(case, &forged)?;
        let state =
            stage.lab.etcdctl(HUB, Some(&tls), &["get", "--prefix", "cilium/state/", "--keys-only"]).await?;
        ensure!(
            state.success && state.stdout.contains("cilium/state/nodes/v1/paris/n1"),
            "{case}: {state:?}"
        );
        for attempt in
            [&["get", "--prefix", ""][..], &["put", "cilium/state/planted", "x"], &["lease", "grant", "9"]]
        {
            let output = stage.lab.etcdctl(HUB, Some(&tls), attempt).await?;
            ensure!(
                !output.success && output.stderr.contains("PermissionDenied"),
                "{case} {attempt:?}: {output:?}"
            );
        }
    }
    stage.good_client_unhurt(&at_first).await?;
    stage.lab.finish().await
}

#[tokio::test]
async fn certificates_that_are_unsound_are_refused_in_the_handshake() -> Result<()> {
    let mut stage = Stage::set("hostile-handshakes").await?;
    let at_first = stage.good_client().await?;
    let mut shown = Vec::new();
    for (case, forged, says) in [
        ("expired", Forged { until: -60, ..Forged::default() }, "ended at "),
        ("early", Forged { from: 3600, ..Forged::default() }, "starts at "),
        ("dns", Forged { dns: vec!["paris.mesh.cilium.io"], ..Forged::default() }, "does not permit"),
        ("usage", Forged { usage: ExtendedKeyUsagePurpose::ServerAuth, ..Forged::default() }, "clientAuth"),
        (
            "below",
            Forged { below_an_authority: true, ..named("admin-paris") },
            "an authority below a passport",
        ),
    ] {
        shown.push((case, stage.mint(case, &forged)?, "certificate", says));
    }
    let own = stage.lab.scratch("self-signed");
    stage.berlin.mint_self_signed(&named("admin-paris"), &own)?;
    shown.push(("self-signed", own, "certificate", "no path to an accepted root"));
    let ended = ended_passport(&stage.lab).await?;
    shown.push(("ended passport", ended, "certificate", "ended at "));
    let lab = &stage.lab;
    let outputs =
        shown.iter().map(|(_, tls, ..)| lab.etcdctl(HUB, Some(tls), &["get", "cilium/cluster-config/paris"]));
    let outputs = try_join_all(outputs).await?;
    for ((case, _, kind, says), output) in shown.into_iter().zip(outputs) {
        ensure!(!output.success && output.stdout.is_empty(), "{case}: {output:?}");
        stage.log_read = 0;
        stage.reported(kind, &[says]).await.with_context(|| case)?;
    }

    let output = stage.lab.etcdctl(HUB, None, &["get", "cilium/cluster-config/paris"]).await?;
    ensure!(!output.success, "without a certificate: {output:?}");
    stage.reported("no-certificate", &["client presented no certificate"]).await?;

    // An older TLS, with a certificate that is good.
    let tls = stage.lab.tls_dir("berlin", Role::Remote);
    let (certificate, key) =
        (tls.join("tls.crt").display().to_string(), tls.join("tls.key").display().to_string());
    let args = ["s_client", "-connect", "127.0.0.1:2379", "-tls1_2", "-cert", &certificate, "-key", &key];
    stage.lab.start_program(HUB, "n1", "old-tls", Path::new("openssl"), &args)?;
    stage.reported("old-tls", &["client offers no TLS 1.3"]).await?;
    let log = stage.lab.site().cluster_dir(HUB).join("log/old-tls.log");
    eventually("openssl is told", SOON, || async {
        let text = std::fs::read_to_string(&log)?;
        ensure!(text.contains("alert protocol version"), "{text}");
        Ok(())
    })
    .await?;

    stage.good_client_unhurt(&at_first).await?;
    let page = stage.lab.status(&Daemon::hub(HUB)).await?;
    ensure!(!status::has_finding(&page["clients"], &["refused"]), "nobody of them is connected: {page:#}");
    stage.lab.finish().await
}

/// A leaf that is valid under a passport that has ended.
async fn ended_passport(lab: &Lab) -> Result<PathBuf> {
    let authority = pki::Authority::open(&lab.site().dir().join("authority"))?;
    let authority = authority.with_passport_life(std::time::Duration::from_secs(1));
    let request = pki::authority::EnrolRequest {
        cluster: "osaka".parse()?,
        id: 9_u32.try_into()?,
        pod_cidrs: vec!["10.9.0.0/16".parse()?],
        node_cidrs: Vec::new(),
        shared_node_cidrs: Vec::new(),
        service_cidrs: Vec::new(),
        hub_addresses: Vec::new(),
    };
    let (dir, out) = (lab.scratch("osaka"), lab.scratch("osaka-leaf"));
    let key = PrivateKey::generate(KeyKind::P256)?;
    let enrolled = authority.enroll(&request, &SigningRequest::from_pem(&key.request()?)?)?;
    pki::durable::private_dir(&dir)?;
    key.write(&dir.join("passport.key"))?;
    pki::ClusterAuthority::write_passport(&dir, &enrolled.passport, &[enrolled.root])?;
    let uri = "spiffe://mesh.example/cluster/osaka/node/n1/remote";
    Member::open(&dir)?.mint(&named_with("remote-osaka", uri), &out)?;
    let end = enrolled.passport.not_after;
    eventually("the passport has ended", SOON, || async {
        ensure!(
            SystemTime::now().duration_since(end).is_ok_and(|since| since.as_secs() >= 1),
            "it ends at {end:?}"
        );
        Ok(())
    })
    .await?;
    Ok(out)
}
