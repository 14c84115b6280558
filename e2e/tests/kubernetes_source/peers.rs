//! The peers that the hub itself follows: the same scenario over a folder, a Secret and objects, and what is said when two
//! of them name one peer.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::kube_api::{Fault, KubeApi, Requests, SmallOptions};
use e2e::status::{expect_finding, has_finding};
use serde_json::{Value, json};

use crate::cluster_peers::{define, mesh_namespace, peer, says};
use crate::ground::{Ground, Hub, Peer};
use crate::objects::{namespace, service, slice};
use crate::remote_slices::{addresses, headless, offered, settle};

/// Where the hub has its peers from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Folder,
    Secret,
    Objects,
}

/// On which terms a cluster is a peer.
#[derive(Clone, Debug, Default)]
struct Terms {
    id: Option<u16>,
    import: Option<Value>,
    /// Nobody can be reached so.
    broken: bool,
}

impl Way {
    fn flags(self, ground: &Ground) -> Vec<String> {
        match self {
            Self::Folder => vec![format!("--peers={}", ground.peers().display())],
            Self::Secret => vec!["--peers-secret=mesh/mesh-peers".to_owned()],
            Self::Objects => vec![
                "--peers-objects".to_owned(),
                format!("--peers-tls-dir={}", ground.path("remote").display()),
            ],
        }
    }

    /// Tells of these peers and no others.
    async fn tell(self, ground: &Ground, peers: &[(&str, &Peer, Terms)]) -> Result<()> {
        for name in ["osaka", "tokyo"].into_iter().filter(|name| peers.iter().all(|(told, ..)| told != name))
        {
            match self {
                Self::Folder if ground.peers().join(name).exists() => {
                    fs::remove_file(ground.peers().join(name))?
                }
                // It may not be there.
                Self::Objects => drop(ground.delete(&peer(name, json!({}))).await),
                Self::Folder | Self::Secret => {}
            }
        }
        match self {
            Self::Folder => {
                for (name, peer, terms) in peers {
                    let tls = ground.path("remote");
                    ground.write_peer(name, &text(name, peer, &tls, &tls.join("ca.crt"), terms))?;
                }
                Ok(())
            }
            Self::Secret => {
                let roots = fs::read(ground.path("remote").join("ca.crt"))?;
                let mut data = json!({"common-etcd-client-ca.crt": STANDARD.encode(roots)});
                for (name, peer, terms) in peers {
                    // The roots lie beside it; the certificate of the hub is its own file.
                    let roots = Path::new("/var/lib/cilium/clustermesh/common-etcd-client-ca.crt");
                    let text = text(name, peer, &ground.path("remote"), roots, terms);
                    data[*name] = json!(STANDARD.encode(text));
                }
                let metadata = json!({"name": "mesh-peers", "namespace": "mesh"});
                let secret =
                    json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data});
                ground.apply([secret]).await
            }
            Self::Objects => {
                let objects = peers.iter().map(|(name, told, terms)| object(name, told, terms));
                ground.apply(objects.collect::<Vec<_>>()).await
            }
        }
    }
}

fn text(name: &str, peer: &Peer, tls: &Path, roots: &Path, terms: &Terms) -> String {
    let mut said = json!({});
    if let Some(id) = terms.id {
        said["cluster-id"] = json!(id);
    }
    if let Some(import) = &terms.import {
        said["import"] = import.clone();
    }
    match terms.broken {
        true => "endpoints: [\"https://0.0.0.0:0\"\n".to_owned(),
        false => format!("{}isthmus: {said}\n", peer.config(name, tls, roots)),
    }
}

fn object(name: &str, told: &Peer, terms: &Terms) -> Value {
    let endpoint = if terms.broken { "https://0.0.0.0:2379".to_owned() } else { told.endpoint(name) };
    let mut spec = json!({"endpoints": [endpoint],
        "hostAliases": [{"hostname": format!("{name}.mesh.cilium.io"), "ips": ["127.0.0.1"]}]});
    if let Some(id) = terms.id {
        spec["cluster"] = json!({"id": id});
    }
    if let Some(import) = &terms.import {
        spec["import"] = import.clone();
    }
    peer(name, spec)
}

/// Waits until the hub says of a peer what is wanted.
async fn peer_shows(hub: &Hub, name: &str, why: &str, wanted: impl Fn(&Value) -> Result<()>) -> Result<()> {
    hub.shows(why, |status| {
        let said = &status["remoteSlices"]["peers"][name];
        wanted(said).with_context(|| format!("{:#}", status["remoteSlices"]))
    })
    .await
}

/// Everything that an operator does with a peer, one after the other.
async fn scenario(way: Way) -> Result<()> {
    let ground = Ground::over(KubeApi::start().await?)?;
    define(&ground).await?;
    ground.apply([mesh_namespace(), namespace("shop", true), headless("cart"), headless("cash")]).await?;
    let (tokyo, osaka) = (ground.peer("tokyo", 2).await?, ground.peer("osaka", 3).await?);
    tokyo.has(offered("cart", 2, 0..2).into_iter().chain(offered("cash", 2, 0..3)))?;
    osaka.has(offered("cart", 3, 0..1))?;
    let with = |terms: Terms| [("tokyo", &tokyo, terms), ("osaka", &osaka, Terms::default())];
    way.tell(&ground, &with(Terms::default())).await?;
    let hub = ground.hub_with("peers", way.flags(&ground))?;
    hub.ready().await?;
    settle(&ground, &hub, "cart", &[("osaka", 1), ("tokyo", 2)]).await?;
    settle(&ground, &hub, "cash", &[("tokyo", 3)]).await?;
    peer_shows(&hub, "tokyo", "where it is from", |said| {
        let from = match way {
            Way::Folder => format!("file {}/tokyo", ground.peers().display()),
            Way::Secret => "key tokyo of Secret mesh/mesh-peers".to_owned(),
            Way::Objects => "ClusterPeer tokyo".to_owned(),
        };
        ensure!(said["from"] == from.as_str() && said["link"] == "fresh" && said["id"] == 2, "{said:#}");
        Ok(())
    })
    .await?;

    // A grant that narrows, and widens again.
    let only_cart = json!({"preset": "Nothing", "services": {"include": ["shop/cart"]}});
    way.tell(&ground, &with(Terms { id: Some(2), import: Some(only_cart.clone()), broken: false })).await?;
    settle(&ground, &hub, "cash", &[]).await?;
    settle(&ground, &hub, "cart", &[("osaka", 1), ("tokyo", 2)]).await?;
    peer_shows(&hub, "tokyo", "what was dropped", |said| {
        let refused = &said["refused"];
        ensure!(said["link"] == "fresh" && refused["count"]["services"] == 1, "{said:#}");
        let last = refused["last"].to_string();
        ensure!(last.contains("service shop/cash is not in the peer's import grant"), "{last}");
        Ok(())
    })
    .await?;
    let metrics = hub.page("/metrics").await?;
    let line = "mesh_apiserver_peer_records_refused_total{peer=\"tokyo\",kind=\"services\"}";
    ensure!(metrics.contains(line), "no {line} in {metrics}");
    if way == Way::Objects {
        let message = says(&ground, &hub, "tokyo", ["Enforced", "True", "Enforced"]).await?;
        ensure!(
            message.contains("spec.import, spec.cluster.id") && message.contains("endpoint slices"),
            "{message}"
        );
        says(&ground, &hub, "tokyo", ["Followed", "True", "Fresh"]).await?;
    }
    way.tell(&ground, &with(Terms { id: Some(2), ..Terms::default() })).await?;
    settle(&ground, &hub, "cash", &[("tokyo", 3)]).await?;

    // An address of somebody else.
    let mut borrowed = offered("cash", 2, 0..3);
    let foreign = offered("cash", 9, 0..1);
    let more = foreign[1]["endpoints"][0].clone();
    borrowed[1]["endpoints"].as_array_mut().context("endpoints")?.push(more);
    tokyo.has(offered("cart", 2, 0..2).into_iter().chain(borrowed))?;
    peer_shows(&hub, "tokyo", "whose address it is not", |said| {
        let last = said["refused"]["last"].to_string();
        ensure!(last.contains("backends: 10.9.0.1, expected addresses in 10.2.0.0/16"), "{last}");
        Ok(())
    })
    .await?;
    let slices = settle(&ground, &hub, "cash", &[("tokyo", 3)]).await?;
    let found = addresses(&slices, "cash");
    ensure!(found["tokyo"].iter().all(|address| address.starts_with("10.2.")), "{found:?}");

    // Another id than it has: nothing new comes, and it is said why.
    way.tell(&ground, &with(Terms { id: Some(7), ..Terms::default() })).await?;
    peer_shows(&hub, "tokyo", "the wrong id", |said| {
        let reason = said["reason"].as_str().unwrap_or_default();
        ensure!(reason.contains("gives id 2, expected 7"), "{said:#}");
        Ok(())
    })
    .await?;
    if way == Way::Objects {
        let message = says(&ground, &hub, "tokyo", ["Followed", "False", "Stale"]).await?;
        ensure!(message.contains("gives id 2, expected 7"), "{message}");
    }
    settle(&ground, &hub, "cash", &[("tokyo", 3)]).await?;

    // What cannot be used takes nothing away, and nobody else is harmed.
    way.tell(&ground, &with(Terms { broken: true, ..Terms::default() })).await?;
    hub.shows("what is broken", |status| expect_finding(&status["findings"], &["peer-unusable", "tokyo"]))
        .await?;
    osaka.has(offered("cart", 3, 0..4))?;
    settle(&ground, &hub, "cart", &[("osaka", 4), ("tokyo", 2)]).await?;
    if way == Way::Objects {
        says(&ground, &hub, "tokyo", ["Accepted", "False", "BadEndpoint"]).await?;
        says(&ground, &hub, "tokyo", ["Followed", "False", "AsBefore"]).await?;
    }
    way.tell(&ground, &with(Terms::default())).await?;
    tokyo.has(offered("cart", 2, 0..5))?;
    settle(&ground, &hub, "cart", &[("osaka", 4), ("tokyo", 5)]).await?;
    hub.shows("no finding", |status| {
        ensure!(!has_finding(&status["findings"], &["peer-unusable"]), "still");
        Ok(())
    })
    .await?;

    // Who is no longer named is no peer, and who comes later is one.
    way.tell(&ground, &[("osaka", &osaka, Terms::default())]).await?;
    settle(&ground, &hub, "cart", &[("osaka", 4)]).await?;
    way.tell(&ground, &with(Terms::default())).await?;
    settle(&ground, &hub, "cart", &[("osaka", 4), ("tokyo", 5)]).await?;
    ground.nothing_unsupported()
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_from_a_folder() -> Result<()> {
    scenario(Way::Folder).await
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_from_a_secret() -> Result<()> {
    scenario(Way::Secret).await
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_from_objects() -> Result<()> {
    scenario(Way::Objects).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_name_a_peer_the_nearer_counts_and_a_pause_before_both() -> Result<()> {
    let ground = Ground::over(KubeApi::start().await?)?;
    define(&ground).await?;
    ground.apply([mesh_namespace(), namespace("shop", true), headless("cart"), headless("cash")]).await?;
    let tokyo = ground.peer("tokyo", 2).await?;
    tokyo.has(offered("cart", 2, 0..2).into_iter().chain(offered("cash", 2, 0..3)))?;
    let none_of_it = Terms { import: Some(json!({"preset": "Nothing"})), ..Terms::default() };
    Way::Objects.tell(&ground, &[("tokyo", &tokyo, none_of_it)]).await?;
    // The folder names it, too, and grants everything.
    Way::Folder.tell(&ground, &[("tokyo", &tokyo, Terms::default())]).await?;
    let flags = [Way::Folder, Way::Objects].into_iter().flat_map(|way| way.flags(&ground));
    let hub = ground.hub_with("both", flags)?;
    hub.ready().await?;
    settle(&ground, &hub, "cart", &[("tokyo", 2)]).await?;
    let file = format!("file {}/tokyo", ground.peers().display());
    hub.shows("the conflict", |status| {
        expect_finding(&status["findings"], &["peer-claimed-twice", &file, "ClusterPeer tokyo"])
    })
    .await?;
    let message = says(&ground, &hub, "tokyo", ["Followed", "False", "Conflict"]).await?;
    ensure!(message.contains(&file), "{message}");
    says(&ground, &hub, "tokyo", ["Enforced", "False", "NotEnforced"]).await?;

    // A pause by the object counts for the file, too.
    let mut paused = object("tokyo", &tokyo, &Terms::default());
    paused["spec"]["paused"] = json!(true);
    ground.apply([paused]).await?;
    settle(&ground, &hub, "cart", &[]).await?;
    settle(&ground, &hub, "cash", &[]).await?;
    hub.shows("the pause", |status| {
        expect_finding(&status["findings"], &["peer-claimed-twice", "ClusterPeer tokyo pauses it"])
    })
    .await?;

    // Without the file the object counts, with its grant.
    fs::remove_file(ground.peers().join("tokyo"))?;
    let only_cash = json!({"services": {"include": ["shop/cash"]}});
    let terms = Terms { import: Some(only_cash), ..Terms::default() };
    let mut resumed = object("tokyo", &tokyo, &terms);
    resumed["spec"]["paused"] = json!(false);
    ground.apply([resumed]).await?;
    settle(&ground, &hub, "cash", &[("tokyo", 3)]).await?;
    settle(&ground, &hub, "cart", &[]).await?;
    says(&ground, &hub, "tokyo", ["Followed", "True", "Fresh"]).await?;
    says(&ground, &hub, "tokyo", ["Enforced", "True", "Enforced"]).await?;
    ground.nothing_unsupported()
}

/// A hub with another id than the object says is refused from the start; what is in a folder that the hub wrote for agents is
/// the object itself; and a restart takes nothing away.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_by_an_object_survives_restarts_and_proves_its_id() -> Result<()> {
    let ground = Ground::over(KubeApi::start().await?)?;
    define(&ground).await?;
    ground
        .apply([mesh_namespace(), namespace("shop", true), headless("cart"), service("mail", "10.96.1.7")])
        .await?;
    ground.apply([slice("mail", "mail-a", &["10.1.1.7".to_owned()])]).await?;
    let tokyo = ground.peer("tokyo", 2).await?;
    tokyo.has(offered("cart", 2, 0..2))?;
    fs::remove_file(ground.peers().join("tokyo"))?;
    let wrong = Terms { id: Some(9), ..Terms::default() };
    Way::Objects.tell(&ground, &[("tokyo", &tokyo, wrong)]).await?;
    let mut flags = Way::Objects.flags(&ground);
    flags.push("--agent-peers-secret=mesh/peers".to_owned());
    let mut hub = ground.hub_with("restarts", flags)?;
    hub.ready().await?;
    let message = says(&ground, &hub, "tokyo", ["Followed", "False", "Refused"]).await?;
    ensure!(message.contains("gives id 2, expected 9"), "{message}");
    settle(&ground, &hub, "cart", &[]).await?;
    let right = Terms { id: Some(2), ..Terms::default() };
    Way::Objects.tell(&ground, &[("tokyo", &tokyo, right)]).await?;
    says(&ground, &hub, "tokyo", ["Followed", "True", "Fresh"]).await?;
    let message = says(&ground, &hub, "tokyo", ["Enforced", "True", "Enforced"]).await?;
    ensure!(message.contains("agents of this version") && message.contains("mesh/peers"), "{message}");
    // Roots and a certificate for this peer, in a Secret that is not there yet.
    let mut with_secret = object("tokyo", &tokyo, &Terms { id: Some(2), ..Terms::default() });
    with_secret["spec"]["trust"] = json!({"secretRef": {"name": "roots"}});
    ground.apply([with_secret]).await?;
    let message = says(&ground, &hub, "tokyo", ["Followed", "False", "AsBefore"]).await?;
    ensure!(message.contains("Secret mesh/roots: it is not there"), "{message}");
    let mut data = json!({});
    for file in ["ca.crt", "tls.crt", "tls.key"] {
        data[file] = json!(STANDARD.encode(fs::read(ground.path("remote").join(file))?));
    }
    let metadata = json!({"name": "roots", "namespace": "mesh"});
    ground.apply([json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})]).await?;
    says(&ground, &hub, "tokyo", ["Followed", "True", "Fresh"]).await?;
    let before = settle(&ground, &hub, "cart", &[("tokyo", 2)]).await?;
    hub.kill().await?;
    hub.start()?;
    hub.ready().await?;
    peer_shows(&hub, "tokyo", "it is followed again", |said| {
        ensure!(said["link"] == "fresh" && said["from"] == "ClusterPeer tokyo", "{said:#}");
        Ok(())
    })
    .await?;
    let after = settle(&ground, &hub, "cart", &[("tokyo", 2)]).await?;
    let revisions = |slices: &crate::remote_slices::Slices| -> Vec<Value> {
        slices.values().map(|slice| slice["metadata"]["resourceVersion"].clone()).collect()
    };
    assert_eq!(revisions(&before), revisions(&after), "nothing was written");
    ground.delete(&peer("tokyo", json!({}))).await?;
    settle(&ground, &hub, "cart", &[]).await?;
    ground.nothing_unsupported()
}

/// An input that cannot be read takes nothing away: not of those whom it named, and not of those whom it would name.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_takes_nothing_away() -> Result<()> {
    let ground = Ground::small(SmallOptions::default()).await?;
    define(&ground).await?;
    ground.apply([mesh_namespace(), namespace("shop", true), headless("cart")]).await?;
    let (tokyo, osaka) = (ground.peer("tokyo", 2).await?, ground.peer("osaka", 3).await?);
    tokyo.has(offered("cart", 2, 0..2))?;
    osaka.has(offered("cart", 3, 0..1))?;
    Way::Secret.tell(&ground, &[("tokyo", &tokyo, Terms::default())]).await?;
    Way::Objects.tell(&ground, &[("osaka", &osaka, Terms::default())]).await?;
    let flags = [Way::Secret, Way::Objects].into_iter().flat_map(|way| way.flags(&ground));
    let mut hub = ground.hub_with("denied", flags)?;
    hub.ready().await?;
    settle(&ground, &hub, "cart", &[("osaka", 1), ("tokyo", 2)]).await?;
    hub.kill().await?;
    for resource in ["secrets", "clusterpeers.isthmus.dev"] {
        let only = Requests { resource: Some(resource.to_owned()), ..Requests::all() };
        ground.inject(Fault::Deny { only }).await;
    }
    hub.start()?;
    hub.ready().await?;
    hub.shows("what may not be read", |status| {
        expect_finding(&status["findings"], &["peer-unusable", "Secret mesh/mesh-peers", "403"])?;
        expect_finding(&status["findings"], &["source-denied", "ClusterPeer"])
    })
    .await?;
    // It has looked at each service, and at another one since.
    let passes = |status: &Value| status["remoteSlices"]["passes"].as_u64().unwrap_or_default();
    for round in 0..2 {
        let before = passes(&hub.status().await?);
        ground.apply([headless(&format!("other-{round}"))]).await?;
        hub.shows("a pass", |status| {
            ensure!(passes(status) > before, "{}", status["remoteSlices"]);
            Ok(())
        })
        .await?;
    }
    settle(&ground, &hub, "cart", &[("osaka", 1), ("tokyo", 2)]).await?;
    ground.inject(Fault::Clear).await;
    for peer in ["tokyo", "osaka"] {
        peer_shows(&hub, peer, "it is followed", |said| {
            ensure!(said["link"] == "fresh", "{said:#}");
            Ok(())
        })
        .await?;
    }
    hub.shows("no finding", |status| {
        ensure!(!has_finding(&status["findings"], &["peer-unusable"]), "still");
        Ok(())
    })
    .await?;
    // A Secret that is gone names nobody else, and nobody less.
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mesh-peers", "namespace": "mesh"}});
    ground.delete(&secret).await?;
    hub.shows("that it is gone", |status| {
        expect_finding(&status["findings"], &["peer-unusable", "Secret mesh/mesh-peers", "it is not there"])
    })
    .await?;
    tokyo.has(offered("cart", 2, 0..3))?;
    settle(&ground, &hub, "cart", &[("osaka", 1), ("tokyo", 3)]).await?;
    Way::Secret.tell(&ground, &[]).await?;
    settle(&ground, &hub, "cart", &[("osaka", 1)]).await?;
    ground.nothing_unsupported()
}
