//! What the holder of a connection may read and write.

use super::refusal;
use crate::peer_filters::in_force::Peer;
use bytes::Bytes;
use http::Extensions;
use kvstore::KeyRange;
use std::sync::Arc;
use tonic::Status;

/// Key ranges that a client may read and write. A request is allowed if it lies wholly inside one of them.
///
/// Made once a connection from the client's certificate, and carried by each of its requests. The ranges of the
/// roles are those of stock ClusterMesh (Cilium `pkg/kvstore/etcdinit/init.go`) and of this project's own prefixes
/// (`docs/wire-format.md`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grants {
    read: Vec<KeyRange>,
    write: Vec<KeyRange>,
    /// Whether leases, members and status may be asked for.
    maintain: bool,
    refused: Option<String>,
    /// Whose export filter narrows what is read; `None` for those who are never filtered.
    peer: Option<Peer>,
}

impl Grants {
    /// For a peer (`remote-<peer>`) of the hub of `cluster`: its state, its config, its canaries.
    pub fn remote(cluster: &str) -> Self {
        Self {
            read: vec![
                KeyRange::prefix("cilium/.heartbeat"),
                KeyRange::prefix("cilium/state/"),
                KeyRange::key(format!("cilium/cluster-config/{cluster}")),
                KeyRange::prefix(format!("cilium/synced/{cluster}/")),
                KeyRange::prefix("isthmus/v1/shared/"),
            ],
            ..Self::none()
        }
    }

    /// For an agent (`local-<cluster>`) on `node` of the hub's own cluster.
    ///
    /// Beside what stock agents may read of the cache, it reads the cluster's own state and our own records. It writes
    /// nothing: `isthmus/v1/agents/<node>/` is kept for what a node reports, and is granted with a bound on keys and
    /// bytes once somebody reads it.
    pub fn local() -> Self {
        let prefixes = [
            "cilium/.heartbeat",
            "cilium/cache/",
            "cilium/cluster-config/",
            "cilium/synced/",
            "cilium/state/",
            "isthmus/v1/local/",
            "isthmus/v1/shared/",
        ];
        Self { read: prefixes.map(KeyRange::prefix).into(), ..Self::none() }
    }

    /// For the operator (`admin-<cluster>`): everything.
    pub fn admin() -> Self {
        Self { read: vec![KeyRange::all()], write: vec![KeyRange::all()], maintain: true, ..Self::none() }
    }

    /// The same, through the export filter of a peer.
    #[must_use]
    pub fn seen_by(self, peer: Peer) -> Self {
        Self { peer: Some(peer), ..self }
    }

    /// For a client whose certificate is sound but which our rules refuse: nothing, and every call says why.
    pub fn refused(reason: impl Into<String>) -> Self {
        Self { refused: Some(reason.into()), ..Self::none() }
    }

    /// Why the client is refused altogether; `None` if it is not.
    pub fn refusal(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// Whose export filter applies.
    pub fn peer(&self) -> Option<&Peer> {
        self.peer.as_ref()
    }

    /// Fails with PermissionDenied unless all of `range` may be read.
    pub(super) fn may_read(&self, range: &KeyRange) -> Result<(), Status> {
        self.decide(self.read.iter().any(|granted| granted.covers(range)))
    }

    /// Fails with PermissionDenied unless all of `range` may be written.
    pub(super) fn may_write(&self, range: &KeyRange) -> Result<(), Status> {
        self.decide(self.write.iter().any(|granted| granted.covers(range)))
    }

    /// Whether anything at all may be written.
    pub(super) fn may_write_any(&self) -> bool {
        !self.write.is_empty()
    }

    /// Fails with PermissionDenied unless something may be written: for reading there are Range and Watch.
    pub(super) fn may_transact(&self) -> Result<(), Status> {
        self.decide(self.may_write_any())
    }

    /// Fails with PermissionDenied unless status, members and leases may be asked for.
    pub(super) fn may_maintain(&self) -> Result<(), Status> {
        self.decide(self.maintain)
    }

    /// The grants of a request's connection; a request without any may do nothing.
    pub(super) fn of(extensions: &Extensions) -> Arc<Self> {
        extensions.get::<Arc<Self>>().cloned().unwrap_or_else(|| Arc::new(Self::none()))
    }

    fn none() -> Self {
        Self { read: Vec::new(), write: Vec::new(), maintain: false, refused: None, peer: None }
    }

    fn decide(&self, allowed: bool) -> Result<(), Status> {
        if allowed { Ok(()) } else { Err(refusal::permission_denied(self.refusal())) }
    }
}

/// etcd's key pair as a range, refusing an empty key as etcd does.
pub(super) fn requested(key: Bytes, range_end: Bytes) -> Result<KeyRange, Status> {
    if key.is_empty() { Err(refusal::empty_key()) } else { Ok(KeyRange::from_wire(key, range_end)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(grants: &Grants, range: KeyRange, read: bool, write: bool) {
        let found = (grants.may_read(&range).is_ok(), grants.may_write(&range).is_ok());
        assert_eq!(found, (read, write), "(read, write) of {range:?}");
    }

    #[test]
    fn a_peer_reads_the_state_and_one_config_and_writes_nothing() {
        let grants = Grants::remote("paris");
        check(&grants, KeyRange::prefix("cilium/.heartbeat"), true, false);
        check(&grants, KeyRange::prefix("cilium/state/identities/v1/id"), true, false);
        check(&grants, KeyRange::key("cilium/cluster-config/paris"), true, false);
        check(&grants, KeyRange::prefix("cilium/synced/paris/"), true, false);
        check(&grants, KeyRange::prefix("isthmus/v1/shared/"), true, false);
        check(&grants, KeyRange::key("cilium/cluster-config/tokyo"), false, false);
        check(&grants, KeyRange::prefix("cilium/cluster-config/"), false, false);
        check(&grants, KeyRange::prefix("cilium/synced/paris"), false, false);
        check(&grants, KeyRange::prefix("cilium/cache/"), false, false);
        check(&grants, KeyRange::prefix("isthmus/v1/local/"), false, false);
        check(&grants, KeyRange::prefix("cilium/"), false, false);
        check(&grants, KeyRange::all(), false, false);
    }

    #[test]
    fn an_agent_reads_what_it_needs_and_writes_nothing() {
        let grants = Grants::local();
        check(&grants, KeyRange::prefix("isthmus/v1/local/"), true, false);
        check(&grants, KeyRange::prefix("cilium/cache/"), true, false);
        check(&grants, KeyRange::key("isthmus/v1/agents/n1/applied"), false, false);
        check(&grants, KeyRange::prefix("isthmus/v1/hub/"), false, false);
    }

    #[test]
    fn a_refused_client_is_told_why() {
        let status = Grants::refused("passport of tokyo has expired").may_read(&KeyRange::key("a"));
        let status = status.expect_err("refused");
        assert_eq!(status.code(), tonic::Code::PermissionDenied);
        assert_eq!(status.message(), "etcdserver: permission denied: passport of tokyo has expired");
    }

    #[test]
    fn a_request_without_grants_may_do_nothing() {
        let grants = Grants::of(&Extensions::new());
        check(&grants, KeyRange::key("cilium/.heartbeat"), false, false);
        assert!(grants.may_maintain().is_err());
    }
}
