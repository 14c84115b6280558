//! What follows from all objects together. Pure.
//!
//! Where two objects claim the same, the incumbent stays: the older one, and of equal age the one whose name is first.

use std::collections::{BTreeMap, BTreeSet};

use mesh_resources::cluster_peer::Peer;
use mesh_resources::condition::{ACCEPTED, PAUSED, PROGRAMMED, Statement};
use mesh_resources::failover_policy::FailoverPolicySpec;
use mesh_resources::{ClusterPeer, FailoverPolicy};
use serde_json::Value;
use topology::{ClusterId, ClusterName};

use super::Own;
use super::follow::{Key, Seen};
use super::raw::Raw;
use crate::finding::{Finding, Reason};
use crate::peer_filters::objects::FromObjects;

/// What is to be done, and to be said of each object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// The export filters.
    pub filters: FromObjects,
    /// The peers that are to be followed, each with the name of its object.
    pub followed: BTreeMap<ClusterName, (String, Followed)>,
    /// The peers with which nothing is to pass, each with the name of its object.
    pub paused: BTreeMap<ClusterName, String>,
    /// What is to be said of each `ClusterPeer`, by name.
    pub peers: BTreeMap<String, Judged>,
    /// What is to be said of each `FailoverPolicy`.
    pub policies: BTreeMap<Key, Judged>,
}

/// A peer that is to be followed.
#[derive(Clone, Debug, PartialEq)]
pub enum Followed {
    /// As its object says.
    Anew(Box<Peer>),
    /// As before: what its object says now has no meaning.
    AsBefore,
}

/// What is to be said of one object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judged {
    /// The cluster that it is about.
    pub cluster: Option<ClusterName>,
    /// Its conditions.
    pub statements: Vec<Statement>,
    /// What it says that bounds what the peer may say, by its members.
    pub bounds: Vec<&'static str>,
}

/// Decides about all objects. `in_file`: the peers that the file of export filters names. O(objects × log objects).
pub fn decide(
    peers: &Seen<ClusterPeer>,
    policies: &Seen<FailoverPolicy>,
    in_file: &BTreeSet<ClusterName>,
    own: &Own,
) -> Decision {
    let mut decision = Decision::default();
    decision.filters.is_known = peers.objects.is_some();
    let mut claims = Claims { own, names: BTreeMap::new(), ids: BTreeMap::new() };
    for raw in by_age(peers.iter().map(|(_, raw)| raw)) {
        let judged = judge_peer(raw, in_file, &mut claims, &mut decision);
        decision.peers.insert(raw.name().to_owned(), judged);
    }
    let mut judged: Vec<(Key, &FailoverPolicySpec)> = Vec::new();
    for raw in by_age(policies.iter().map(|(_, raw)| raw)) {
        let key = (raw.metadata.namespace.clone(), raw.name().to_owned());
        let mut statements = vec![judge_policy(raw, &key, &judged)];
        if let (true, Ok(policy)) = (statements[0].holds, &raw.content.object) {
            judged.push((key.clone(), &policy.spec));
        }
        statements.push(Statement::new(PROGRAMMED, false, "NotSupported", NOT_PROGRAMMED));
        decision.policies.insert(key, Judged { statements, ..Judged::default() });
    }
    decision
}

impl Decision {
    /// What is odd, for the status page: every object that is not accepted.
    pub fn findings(&self) -> Vec<Finding> {
        let peers = self.peers.iter().map(|(name, judged)| (format!("ClusterPeer {name}"), judged));
        let policies = self.policies.iter().map(|((namespace, name), judged)| {
            (format!("FailoverPolicy {}/{name}", namespace.as_deref().unwrap_or_default()), judged)
        });
        let finding = |(object, judged): (String, &Judged)| {
            let said = judged.statements.iter().find(|said| said.kind == ACCEPTED && !said.holds)?;
            let reason = if said.reason == CONFLICT { Reason::ObjectConflict } else { Reason::ObjectInvalid };
            Some(Finding::error(reason, object).found(format_args!("{}: {}", said.reason, said.message)))
        };
        peers.chain(policies).filter_map(finding).collect()
    }
}

/// Who has what.
struct Claims<'a> {
    own: &'a Own,
    names: BTreeMap<ClusterName, String>,
    ids: BTreeMap<ClusterId, String>,
}

fn judge_peer(
    raw: &Raw<ClusterPeer>,
    in_file: &BTreeSet<ClusterName>,
    claims: &mut Claims<'_>,
    decision: &mut Decision,
) -> Judged {
    let refused = |cluster: Option<ClusterName>, reason, message: String| Judged {
        cluster,
        statements: vec![Statement::new(ACCEPTED, false, reason, message)],
        bounds: Vec::new(),
    };
    let object = match &raw.content.object {
        Ok(object) => object,
        Err(why) => {
            // Whose it is shows its name at least; that there is a filter is all that is known.
            if let Ok(name) = raw.name().parse::<ClusterName>()
                && !claims.names.contains_key(&name)
            {
                claims.names.insert(name.clone(), raw.name().to_owned());
                decision.filters.held.insert(name.clone());
                decision.followed.insert(name, (raw.name().to_owned(), Followed::AsBefore));
            }
            return refused(None, "Invalid", format!("the object has another shape: {why}; {AS_BEFORE}"));
        }
    };
    let name = match object.cluster() {
        Ok(name) => name,
        Err(error) => return refused(None, "BadName", error.to_string()),
    };
    if name == claims.own.name {
        return refused(Some(name), CONFLICT, "it names the cluster that it is in".to_owned());
    }
    if let Some(other) = claims.names.get(&name) {
        let message = format!("ClusterPeer {other}, which is older, names cluster {name}, too, and counts");
        return refused(Some(name), CONFLICT, message);
    }
    claims.names.insert(name.clone(), raw.name().to_owned());
    let filters = &mut decision.filters;
    if object.spec.paused {
        filters.paused.insert(name.clone());
        decision.paused.insert(name.clone(), raw.name().to_owned());
    }
    match object.export_filter() {
        Ok(Some(filter)) => drop(filters.filters.insert(name.clone(), filter)),
        Ok(None) => {}
        Err(_) => drop(filters.held.insert(name.clone())),
    }
    let peer = match object.parse() {
        Ok(peer) => peer,
        Err(error) => {
            let entry = (raw.name().to_owned(), Followed::AsBefore);
            if !object.spec.paused {
                decision.followed.insert(name.clone(), entry);
            }
            return refused(Some(name), error.reason(), format!("{error}; {AS_BEFORE}"));
        }
    };
    if let Some(id) = peer.id {
        if id == claims.own.id {
            let message = format!("id {id} is that of the cluster that it is in");
            return refused(Some(name), CONFLICT, message);
        }
        if let Some(other) = claims.ids.get(&id) {
            let message = format!("ClusterPeer {other}, which is older, has id {id}, too, and counts");
            return refused(Some(name), CONFLICT, message);
        }
        claims.ids.insert(id, raw.name().to_owned());
    }
    let mut statements = vec![if peer.export.is_some() && in_file.contains(&name) {
        let message = format!(
            "the file of --peer-filters names cluster {name}, too, and its filter counts: say it in one of both places"
        );
        Statement::new(ACCEPTED, false, CONFLICT, message)
    } else {
        let shown = match (&peer.export, in_file.contains(&name)) {
            (Some(filter), _) if filter.is_empty() => "its export filter is in force and shows everything",
            (Some(_), _) => "its export filter is in force",
            (None, true) => "it has no export filter; that of the file of --peer-filters counts",
            (None, false) => "it has no export filter; the default one counts, if there is one",
        };
        Statement::new(ACCEPTED, true, "Accepted", format!("cluster {name}: {shown}"))
    }];
    if peer.paused {
        let message = "spec.paused: the peer is shown no service, slice, identity or address of a pod, and nobody here follows it";
        statements.push(Statement::new(PAUSED, true, "Asked", message));
    }
    let bounds = if peer.paused { Vec::new() } else { bounds(&peer) };
    if !peer.paused {
        let entry = (raw.name().to_owned(), Followed::Anew(Box::new(peer)));
        decision.followed.insert(name.clone(), entry);
    }
    Judged { cluster: Some(name), statements, bounds }
}

/// What a peer's object says that bounds what the peer may say.
fn bounds(peer: &Peer) -> Vec<&'static str> {
    let members = [
        (peer.import.is_some(), "spec.import"),
        (peer.id.is_some(), "spec.cluster.id"),
        (peer.unattested.is_some(), "spec.trust.unattested"),
    ];
    members.into_iter().filter(|(is_there, _)| *is_there).map(|(_, member)| member).collect()
}

fn judge_policy(raw: &Raw<FailoverPolicy>, key: &Key, older: &[(Key, &FailoverPolicySpec)]) -> Statement {
    let policy = match &raw.content.object {
        Ok(policy) => policy,
        Err(why) => {
            return Statement::new(
                ACCEPTED,
                false,
                "Invalid",
                format!("the object has another shape: {why}"),
            );
        }
    };
    if let Err(error) = policy.check() {
        return Statement::new(ACCEPTED, false, "Invalid", error.to_string());
    }
    let same = older.iter().filter(|((namespace, _), _)| *namespace == key.0);
    for ((_, name), other) in same {
        if let Some(services) = overlap(&policy.spec, other) {
            let message =
                format!("FailoverPolicy {name}, which is older, is for {services}, too, and counts");
            return Statement::new(ACCEPTED, false, CONFLICT, message);
        }
    }
    Statement::new(ACCEPTED, true, "Accepted", format!("{} tiers", policy.spec.tiers.len()))
}

/// Services that two policies are certainly both for, in the same words: by name, by the same labels, or all of them. What
/// is said in fewer words (a name) is more special than what is said in more, and no conflict.
fn overlap(one: &FailoverPolicySpec, other: &FailoverPolicySpec) -> Option<String> {
    let words = |spec: &FailoverPolicySpec| {
        let services = spec.services.clone().unwrap_or_default();
        (services.names.unwrap_or_default(), services.match_labels.unwrap_or_default())
    };
    let ((names, labels), (other_names, other_labels)) = (words(one), words(other));
    if let Some(name) = names.iter().find(|name| other_names.contains(name)) {
        return Some(format!("service {name}"));
    }
    let by_name = !names.is_empty() || !other_names.is_empty();
    (!by_name && labels == other_labels).then(|| match labels.is_empty() {
        true => "all services of the namespace".to_owned(),
        false => "services with the same labels".to_owned(),
    })
}

fn by_age<'a, K: 'a>(objects: impl Iterator<Item = &'a Raw<K>>) -> Vec<&'a Raw<K>> {
    let mut objects: Vec<&Raw<K>> = objects.collect();
    let age = |raw: &Raw<K>| raw.metadata.creation_timestamp.as_ref().map(|time| time.0);
    // One without a time has just been made.
    objects.sort_by_key(|raw| {
        (age(raw).is_none(), age(raw), raw.metadata.namespace.clone(), raw.name().to_owned())
    });
    objects
}

/// The status of an object but for its conditions, as JSON.
pub(super) fn status_of(judged: &Judged, generation: Option<i64>) -> Value {
    let mut status = serde_json::Map::new();
    if let Some(generation) = generation {
        status.insert("observedGeneration".to_owned(), Value::from(generation));
    }
    if let Some(cluster) = &judged.cluster {
        status.insert("cluster".to_owned(), Value::from(cluster.as_str()));
    }
    Value::Object(status)
}

const CONFLICT: &str = "Conflict";
const AS_BEFORE: &str = "what was in force of it stays";
const NOT_PROGRAMMED: &str =
    "no agent of this version applies failover policies: backends are chosen by the services' annotations";

#[cfg(test)]
mod tests;
