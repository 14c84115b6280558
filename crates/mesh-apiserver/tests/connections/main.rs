//! Connections over real mutual TLS on loopback: how many a client may have, and for how long.

mod ends;
mod hub;

use std::time::Duration;

use hub::{DAY, Mesh, SOON, read};
use mesh_apiserver::serve::clients::Refused;
use mesh_apiserver::serve::shares::Caps;
use pki::client::Connector;
use pki::{Credentials, Expected, LeafRole, LiveCredentials};
use tokio::net::TcpStream;
use tonic::Code;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_peer_does_not_take_the_places_of_others() {
    let mesh = Mesh::new();
    let hub = mesh.hub(Caps { cluster: 4, own_node: 2, ..Caps::default() }).await;
    let dial = async |cluster: &str, role, node: &str| hub.dial(&mesh.leaf(cluster, role, node, DAY)).await;
    let mut held = Vec::new();
    for node in ["n1", "n1", "n1", "n2"] {
        let channel = dial("berlin", LeafRole::Remote, node).await;
        read(&channel).await.expect("there is a place");
        held.push(channel);
    }
    for (cluster, role, node, says) in [
        ("berlin", LeafRole::Remote, "n1", "cluster berlin may have 4"),
        ("berlin", LeafRole::Remote, "n3", "cluster berlin may have 4"),
        ("berlin", LeafRole::Hub, "n4", "cluster berlin may have 4"),
    ] {
        let status = read(&dial(cluster, role, node).await).await.expect_err("no place is left");
        let expected =
            format!("etcdserver: too many requests: too many connections: {says} at a time; close some");
        assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, expected.as_str()));
        let shown = hub.refused("too-many").expect("shown");
        assert!(shown.reason.contains(says) && shown.reason.contains("cluster berlin"), "{shown:?}");
    }
    assert!(hub.metrics().contains("connections_refused_total{reason=\"too-many\"} 3"), "{}", hub.metrics());

    // Everybody else goes on: another peer, agents, the administrator, and berlin itself on what it has.
    for (cluster, role) in
        [("tokyo", LeafRole::Remote), ("paris", LeafRole::Local), ("paris", LeafRole::Local)]
    {
        let channel = dial(cluster, role, "n1").await;
        read(&channel).await.expect("a place of its own");
        held.push(channel);
    }
    let status = read(&dial("paris", LeafRole::Local, "n1").await).await.expect_err("the node has two");
    assert!(status.message().contains("own node n1 may have 2"), "{status:?}");
    for _ in 0..6 {
        let channel = dial("paris", LeafRole::Admin, "n1").await;
        read(&channel).await.expect("administrators are not counted");
        held.push(channel);
    }
    read(&held[0]).await.expect("a connection that was there");

    // A place that is given up is free.
    drop(held.remove(0));
    let begin = tokio::time::Instant::now();
    loop {
        match read(&dial("berlin", LeafRole::Remote, "n1").await).await {
            Ok(_) => break,
            Err(status) => assert!(begin.elapsed() < SOON, "{status:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_clients_have_places_of_their_own() {
    let mesh = Mesh::new();
    let hub = mesh.hub(Caps { refused: 3, ..Caps::default() }).await;
    let good = hub.dial(&mesh.leaf("berlin", LeafRole::Remote, "n1", DAY)).await;
    let mut held = Vec::new();
    for n in 0..3 {
        let hostile = mesh.leaf("berlin", LeafRole::Admin, &format!("n{n}"), DAY);
        let channel = hub.dial(&hostile).await;
        let status = read(&channel).await.expect_err("another cluster's administrator");
        assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
        held.push(channel);
    }
    // Those beyond are closed without a word, and counted.
    let hostile = mesh.leaf("berlin", LeafRole::Admin, "n9", DAY);
    let credentials = LiveCredentials::fixed(Credentials::load(&hostile).expect("credentials"));
    let connector = Connector::new(credentials, Expected::Unattested);
    let tcp = TcpStream::connect(hub.address).await.expect("a connection");
    let (mut tls, _) = connector.connect("paris.mesh.cilium.io", tcp).await.expect("a handshake");
    let mut bytes = Vec::new();
    let closed = tokio::io::AsyncReadExt::read_to_end(&mut tls, &mut bytes);
    let closed = tokio::time::timeout(SOON, closed).await.expect("it is closed");
    assert!(bytes.is_empty(), "{closed:?} {bytes:?}");
    hub.until("counted", || hub.metrics().contains("connections_turned_away_total 1").then_some(())).await;
    read(&good).await.expect("a good client");
    // One reason, said four times, is one entry.
    let shown: Vec<Refused> = hub.clients.lately_refused();
    assert_eq!((shown.len(), shown[0].count), (1, 4), "{shown:#?}");
    // Each is told for five seconds.
    hub.until("they are closed", || (hub.clients.connected().len() == 1).then_some(())).await;
}
