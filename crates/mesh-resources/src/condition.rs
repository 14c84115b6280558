//! Conditions in a status, by Kubernetes' rules: one of each type, and the time is that of the last change of `status`.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Whether the object is used as it is. Of both kinds.
pub const ACCEPTED: &str = "Accepted";
/// Whether nothing passes because the operator says so. Of a `ClusterPeer`.
pub const PAUSED: &str = "Paused";
/// Whether the agents are told to follow the peer. Of a `ClusterPeer`.
pub const PUBLISHED: &str = "Published";
/// Whether the hub itself follows the peer by its object. Of a `ClusterPeer`.
pub const FOLLOWED: &str = "Followed";
/// Whether what bounds the peer is in force with all who follow it; said, if something does. Of a `ClusterPeer`.
pub const ENFORCED: &str = "Enforced";
/// Whether what it says takes effect in the data plane. Of a `FailoverPolicy`.
pub const PROGRAMMED: &str = "Programmed";

/// What is to be said of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The condition's type.
    pub kind: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// One word why.
    pub reason: &'static str,
    /// A sentence why.
    pub message: String,
}

impl Statement {
    /// Says something.
    pub fn new(kind: &'static str, holds: bool, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, holds, reason, message: message.into() }
    }
}

/// The conditions that say all of `statements` about a generation, with the times of `before` where the status is the same.
/// Types of which nothing is said go.
pub fn conditions(
    before: &[Condition],
    statements: &[Statement],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    // Kubernetes' times have no fractions.
    let now = now.round(jiff::Unit::Second).unwrap_or(now);
    let condition = |said: &Statement| {
        let status = if said.holds { "True" } else { "False" };
        let same = before.iter().find(|condition| condition.type_ == said.kind && condition.status == status);
        Condition {
            type_: said.kind.to_owned(),
            status: status.to_owned(),
            reason: said.reason.to_owned(),
            message: said.message.chars().take(MOST_CHARACTERS).collect(),
            observed_generation: generation,
            last_transition_time: same.map_or(Time(now), |condition| condition.last_transition_time.clone()),
        }
    };
    statements.iter().map(condition).collect()
}

/// The longest message that Kubernetes takes.
const MOST_CHARACTERS: usize = 32_768;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_that_of_the_last_change_of_status() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let first =
            conditions(&[], &[Statement::new(ACCEPTED, true, "Accepted", "as it is")], Some(1), at(10));
        assert_eq!((first[0].status.as_str(), first[0].last_transition_time.0), ("True", at(10)));
        let other =
            conditions(&first, &[Statement::new(ACCEPTED, true, "Accepted", "other")], Some(2), at(20));
        assert_eq!((other[0].observed_generation, other[0].last_transition_time.0), (Some(2), at(10)));
        let broken =
            [Statement::new(ACCEPTED, false, "BadEndpoint", ""), Statement::new(PAUSED, true, "Asked", "")];
        let broken = conditions(&other, &broken, Some(3), at(30));
        assert_eq!((broken[0].last_transition_time.0, broken.len()), (at(30), 2));
        let last = conditions(&broken, &[Statement::new(PAUSED, true, "Asked", "")], Some(3), at(40));
        assert_eq!((last.len(), last[0].last_transition_time.0), (1, at(30)));
    }
}
