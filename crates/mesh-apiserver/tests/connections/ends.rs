//! When a connection ends although neither side wants it to.

use std::time::Duration;

use mesh_apiserver::serve::shares::Caps;
use pki::authority::Subject;
use pki::files::{CERTIFICATE, DENY_LISTS, read_certificates};
use pki::{Authority, LeafRole};

use crate::hub::{DAY, Mesh, enrol, next, read, watch};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_ends_with_its_certificate() {
    let mesh = Mesh::new();
    let hub = mesh.hub(Caps::default()).await;
    let long = hub.dial(&mesh.leaf("berlin", LeafRole::Remote, "n1", DAY)).await;
    let short = hub.dial(&mesh.leaf("berlin", LeafRole::Remote, "n2", Duration::from_secs(6))).await;
    let (mut stays, mut ends) = (watch(long).await, watch(short.clone()).await);
    hub.store.put("cilium/.heartbeat", "then").expect("memory");
    for watch in [&mut stays, &mut ends] {
        assert_eq!(next(watch).await.expect("no error").expect("an event").events.len(), 1);
    }
    let after = next(&mut ends).await;
    assert!(!matches!(after, Ok(Some(_))), "the watch has ended: {after:?}");
    let shown = hub.refused("expired").expect("shown");
    assert!(shown.reason.contains("CN=remote-berlin") && shown.reason.contains("has ended"), "{shown:?}");
    read(&short).await.expect_err("the connection is closed");
    hub.store.put("cilium/.heartbeat", "later").expect("memory");
    assert_eq!(next(&mut stays).await.expect("no error").expect("an event").events.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_ends_when_its_root_is_removed() {
    let mesh = Mesh::new();
    let mut hub = mesh.hub(Caps::default()).await;
    let reloader = tokio::spawn(hub.reloader.take().expect("the reloader").run());
    let berlin = hub.dial(&mesh.leaf("berlin", LeafRole::Remote, "n1", DAY)).await;
    let tokyo = hub.dial(&mesh.leaf("tokyo", LeafRole::Remote, "n1", DAY)).await;
    let (mut stays, mut ends) = (watch(berlin).await, watch(tokyo).await);
    mesh.accepts(&hub.dir, &["first"]);
    let after = next(&mut ends).await;
    assert!(!matches!(after, Ok(Some(_))), "the watch has ended: {after:?}");
    let shown = hub.refused("root-removed").expect("shown");
    assert!(shown.reason.contains("CN=remote-tokyo"), "{shown:?}");
    hub.store.put("cilium/.heartbeat", "later").expect("memory");
    assert_eq!(next(&mut stays).await.expect("no error").expect("an event").events.len(), 1);
    assert_eq!(hub.clients.lately_refused().len(), 1, "nobody else: {:#?}", hub.clients.lately_refused());
    reloader.abort();
}

/// Whoever replaces a stolen passport is rid of its holder at once, however long the stolen one lasts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_administrator_ends_with_the_passport_and_an_agent_stays() {
    let mesh = Mesh::new();
    let mut hub = mesh.hub(Caps::default()).await;
    let reloader = tokio::spawn(hub.reloader.take().expect("the reloader").run());
    let agent = hub.dial(&mesh.leaf("paris", LeafRole::Local, "n1", DAY)).await;
    let thief = hub.dial(&mesh.leaf("paris", LeafRole::Admin, "n1", DAY)).await;
    let (mut stays, mut ends) = (watch(agent).await, watch(thief).await);
    std::fs::remove_dir_all(mesh.path("paris")).expect("removed");
    enrol(&Authority::open(&mesh.path("first")).expect("the authority"), &mesh.path("paris"), "paris", 1);
    mesh.leaf("paris", LeafRole::Hub, "n1", DAY);
    let after = next(&mut ends).await;
    assert!(!matches!(after, Ok(Some(_))), "the watch has ended: {after:?}");
    let shown = hub.refused("root-removed").expect("shown");
    assert!(shown.reason.contains("CN=admin-paris"), "{shown:?}");
    hub.store.put("cilium/.heartbeat", "later").expect("memory");
    assert_eq!(next(&mut stays).await.expect("no error").expect("an event").events.len(), 1);
    reloader.abort();
}

/// What is on the deny list goes at once, and comes back no more; a list of another root is nobody's business.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_ends_when_its_leaf_is_revoked() {
    let mesh = Mesh::new();
    let mut hub = mesh.hub(Caps::default()).await;
    let reloader = tokio::spawn(hub.reloader.take().expect("the reloader").run());
    let lost = mesh.leaf("berlin", LeafRole::Remote, "n1", DAY);
    let (kept, foreign) =
        (mesh.leaf("berlin", LeafRole::Remote, "n2", DAY), mesh.leaf("tokyo", LeafRole::Remote, "n1", DAY));
    let (mut ends, mut stays, mut stays_too) = (
        watch(hub.dial(&lost).await).await,
        watch(hub.dial(&kept).await).await,
        watch(hub.dial(&foreign).await).await,
    );
    let authority = Authority::open(&mesh.path("first")).expect("the authority");
    for leaf in [&lost, &foreign] {
        let der = read_certificates(&leaf.join(CERTIFICATE)).expect("a leaf").remove(0);
        let subject = Subject::Certificate { der: &der, keep_key: false };
        let revoked = authority.revoke(&subject, "n1 lost");
        assert_eq!(revoked.is_ok(), leaf == &lost, "tokyo is not in this ledger: {revoked:?}");
    }
    std::fs::copy(mesh.path("first").join(DENY_LISTS), hub.dir.join(DENY_LISTS)).expect("carried");
    let after = next(&mut ends).await;
    assert!(!matches!(after, Ok(Some(_))), "the watch has ended: {after:?}");
    let shown = hub.refused("revoked").expect("shown");
    assert!(
        shown.reason.contains("CN=remote-berlin") && shown.reason.contains("is on the deny list"),
        "{shown:?}"
    );
    hub.store.put("cilium/.heartbeat", "later").expect("memory");
    for watch in [&mut stays, &mut stays_too] {
        assert_eq!(next(watch).await.expect("no error").expect("an event").events.len(), 1);
    }
    let told = read(&hub.dial(&lost).await).await.expect_err("refused");
    assert!(told.message().contains("it was revoked at") && told.message().contains("(n1 lost)"), "{told:?}");
    reloader.abort();
}
