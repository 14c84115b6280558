//! Peers on terms: what they may offer, which id they must have, whose addresses they may give.

use std::collections::BTreeMap;

use kvstore::Store;
use peering::config::Terms;
use peering::followers::Followers;
use peering::view::{Link, View};
use tokio::sync::watch;
use topology::ClusterName;

use super::*;

/// The peers of paris, followed as a folder or a hub's inputs would have it.
struct Peers {
    followers: Followers,
    config: HubConfig,
}

impl Peers {
    /// Follows tokyo on these terms, as YAML.
    fn on(&mut self, terms: &str) -> Follower {
        self.config.terms = serde_yaml_ng::from_str::<Terms>(terms).expect("terms");
        let tokyo: ClusterName = "tokyo".parse().expect("a name");
        self.followers.follow(&BTreeMap::from([(tokyo.clone(), self.config.clone())]));
        let view: watch::Receiver<View> = self.followers.views()[&tokyo].clone();
        Follower { view, task: tokio::spawn(std::future::pending()) }
    }
}

fn peers(mesh: &Mesh, hub: &Hub) -> Peers {
    let followers = Followers::new(MaxClusters::N255, ids(), Arc::new(Notify::new()));
    Peers { followers, config: mesh.config(hub) }
}

/// A service of tokyo with backends at these addresses.
fn offer(store: &Store, name: &str, addresses: &[&str]) {
    let backends: Vec<String> = addresses
        .iter()
        .map(|address| format!(r#""{address}":{{"":{{"Protocol":"TCP","Port":80}}}}"#))
        .collect();
    let value = format!(
        r#"{{"cluster":"tokyo","namespace":"shop","name":"{name}","frontends":{{}},"backends":{{{}}},"labels":{{}},"selector":{{}},"includeExternal":true,"shared":true,"clusterID":2}}"#,
        backends.join(",")
    );
    put(store, &format!("cilium/state/services/v1/tokyo/shop/{name}"), &value);
}

/// What tokyo offers here: `service address…`.
fn offers(view: &View) -> Vec<String> {
    let line = |service: &Arc<topology::record::service::RemoteService>| {
        let addresses = service.backends.iter().map(|backend| format!(" {}", backend.address));
        format!("{}{}", service.name.name(), addresses.collect::<String>())
    };
    view.member.services.values().map(line).collect()
}

fn is_fresh(view: &View) -> bool {
    matches!(view.link, Link::Fresh)
}

#[tokio::test]
async fn backends_outside_the_passport_are_left_out_and_counted() {
    let mesh = Mesh::new();
    let records = store(&[]);
    offer(&records, "a", &["10.2.0.1", "10.3.0.1"]);
    announce(&records);
    let hub = mesh.serve("tokyo", records, 0).await;
    let mut follower = mesh.follow(&hub, &ids());
    let view = follower.until("everything is known", is_fresh).await;
    assert_eq!(offers(&view), ["a 10.2.0.1"]);
    let last = view.rejections.last.back().expect("it is kept");
    assert_eq!(last.reason, "backends: 10.3.0.1, expected addresses in 10.2.0.0/16");
    assert_eq!(view.rejections.count["services"], 1);
    // What was its own and is not any more goes.
    offer(&hub.store, "a", &["10.3.0.1"]);
    follower.until("nothing of it is left", |view| offers(view) == ["a"]).await;
}

#[tokio::test]
async fn a_grant_counts_at_once_also_while_the_hub_is_away_and_back_again() {
    let mesh = Mesh::new();
    let records = store(&["a", "b"]);
    announce(&records);
    let hub = mesh.serve("tokyo", records, 0).await;
    let mut peers = peers(&mesh, &hub);
    peers.on("{}").until("everything is known", |view| is_fresh(view) && offers(view) == ["a", "b"]).await;
    let only_a = "import: {services: {include: [shop/a]}}";
    let view = peers.on(only_a).until("b is gone", |view| is_fresh(view) && offers(view) == ["a"]).await;
    assert_eq!(view.rejections.count["services"], 1);
    let (store, port) = hub.stop().await;
    let nothing = "import: {preset: Nothing}";
    let view = peers.on(nothing).until("a is gone, too", |view| offers(view).is_empty()).await;
    assert!(!is_fresh(&view), "{:?}", view.link);
    assert!(view.member.is_synced(&[Kind::Services]), "its silence takes nothing away, the grant does");
    let _hub = mesh.serve("tokyo", store, port).await;
    peers.on("{}").until("both are back", |view| is_fresh(view) && offers(view) == ["a", "b"]).await;
}

#[tokio::test]
async fn another_id_than_the_operator_says_is_refused() {
    let mesh = Mesh::new();
    let records = store(&["a"]);
    announce(&records);
    let hub = mesh.serve("tokyo", records, 0).await;
    let mut peers = peers(&mesh, &hub);
    let view = peers.on("cluster-id: 7").until("refused", |view| matches!(view.link, Link::Refused(_))).await;
    let reason = view.link.reason().unwrap_or_default().to_owned();
    assert!(reason.contains("gives id 2, expected 7"), "{reason}");
    assert!(offers(&view).is_empty());
    peers.on("cluster-id: 2").until("followed", is_fresh).await;
    // What is known stays; the state says why nothing new is known.
    let wrong = peers
        .on("cluster-id: 7")
        .until("refused again", |view| matches!(view.link, Link::Stale { .. }))
        .await;
    assert_eq!(offers(&wrong), ["a"]);
}

#[tokio::test]
async fn a_peer_that_proves_nothing_has_the_addresses_that_the_operator_says() {
    let mesh = Mesh::new();
    let records = store(&[]);
    offer(&records, "a", &["10.2.0.1", "10.2.9.1"]);
    announce(&records);
    // The hub of another cluster: without a passport that counts, its name is what it says.
    let hub = mesh.serve("tokyo", records, 0).await;
    let mut peers = peers(&mesh, &hub);
    let view = peers.on("unattested-cidrs: [10.2.0.0/24]").until("everything is known", is_fresh).await;
    assert_eq!(offers(&view), ["a 10.2.0.1"]);
}
