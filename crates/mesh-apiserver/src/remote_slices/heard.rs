//! What the peers have told, as far as slices follow from it. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use topology::ClusterName;
use topology::record::Kind;

use super::SOURCE_CLUSTER;
use super::report::PeerReport;
use super::wanted;
use crate::peers::{self, follow::FollowedPeer};

/// What each peer has told, as far as it is all of it. A peer that nobody says how to reach is a peer, too.
pub fn heard(peers: &peers::Peers) -> wanted::Peers {
    let told = peers.followed.iter().map(|(name, peer)| {
        let member = Arc::clone(&peer.view.borrow().member);
        (name.clone(), member.is_synced(&[Kind::Services]).then_some(member))
    });
    let mut heard: wanted::Peers = told.collect();
    for name in &peers.unusable {
        heard.entry(name.clone()).or_default();
    }
    heard
}

/// With the clusters that slices name and that may be peers by an input that is not read yet: they have not told anything,
/// and what is there of them stays.
pub fn with_unknown(mut heard: wanted::Peers, there: &BTreeMap<String, Arc<EndpointSlice>>) -> wanted::Peers {
    let labels = there.values().filter_map(|slice| slice.metadata.labels.as_ref()?.get(SOURCE_CLUSTER));
    for name in labels.filter_map(|name| name.parse::<ClusterName>().ok()) {
        heard.entry(name).or_default();
    }
    heard
}

/// How a peer is followed, for the status page.
pub fn report(peer: &FollowedPeer) -> PeerReport {
    let view = peer.view.borrow();
    PeerReport {
        from: peer.from.clone(),
        id: view.member.id.map(|id| id.get()),
        link: view.link.word(),
        reason: view.link.reason().map(str::to_owned),
        synced: view.member.is_synced(&[Kind::Services]),
        services: view.member.services.len(),
        refused: Arc::clone(&view.rejections),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn slices_of_a_cluster_that_may_be_a_peer_stay() {
        let slice = |cluster: &str| -> Arc<EndpointSlice> {
            let labels = json!({(SOURCE_CLUSTER): cluster});
            let slice = json!({"metadata": {"labels": labels}, "addressType": "IPv4", "endpoints": []});
            Arc::new(serde_json::from_value(slice).expect("a slice"))
        };
        let there = [("a".to_owned(), slice("tokyo")), ("b".to_owned(), slice("No_Cluster"))].into();
        let names = |peers: &wanted::Peers| peers.keys().map(ToString::to_string).collect::<Vec<_>>();
        let lima = [("lima".parse().expect("a name"), None)];
        assert_eq!(names(&with_unknown(lima.into(), &there)), ["lima", "tokyo"]);
    }
}
