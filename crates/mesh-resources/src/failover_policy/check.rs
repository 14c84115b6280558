//! What a schema cannot say about a policy.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use topology::ClusterName;
use topology::cluster::InvalidClusterName;

use super::{FailoverPolicy, Reach, Tier};

/// Why a policy could not be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPolicy {
    /// Nothing to choose from.
    #[error("spec.tiers is empty, expected at least one")]
    NoTiers,
    /// A tier that names what it does not use, or lacks it.
    #[error("spec.tiers[{tier}]: {found}, expected {expected}")]
    Tier {
        /// Its place, from 0.
        tier: usize,
        /// What is there.
        found: String,
        /// What should be.
        expected: &'static str,
    },
    /// A cluster's name that is none.
    #[error("spec.tiers[{tier}]: {problem}")]
    Cluster {
        /// Its place, from 0.
        tier: usize,
        /// What is wrong.
        problem: InvalidClusterName,
    },
    /// A time that is none, or longer than a day.
    #[error("spec.{member}: {found:?}, expected a time up to 24h, such as 30s or 1m30s")]
    Duration {
        /// Which.
        member: &'static str,
        /// What is there.
        found: String,
    },
    /// Services by name and by label.
    #[error("spec.services: both names and matchLabels are given, expected one of them")]
    TwoSelections,
}

impl FailoverPolicy {
    /// Checks what a schema cannot say. Fails with the first thing that has no meaning.
    pub fn check(&self) -> Result<(), InvalidPolicy> {
        let spec = &self.spec;
        if spec
            .services
            .as_ref()
            .is_some_and(|services| services.names.is_some() && services.match_labels.is_some())
        {
            return Err(InvalidPolicy::TwoSelections);
        }
        if spec.tiers.is_empty() {
            return Err(InvalidPolicy::NoTiers);
        }
        let mut seen = BTreeSet::new();
        for (place, tier) in spec.tiers.iter().enumerate() {
            tier.check(place)?;
            let bad = |found: String, expected| InvalidPolicy::Tier { tier: place, found, expected };
            if !seen.insert((tier.to, tier.clusters.clone(), tier.regions.clone())) {
                return Err(bad(format!("{:?} again", tier.to), "each tier once"));
            }
            if tier.to == Reach::Any && place + 1 < spec.tiers.len() {
                return Err(bad(
                    "Any before other tiers".to_owned(),
                    "it last: nothing is left for those after it",
                ));
            }
        }
        let times = [
            ("slowStart", &spec.slow_start),
            ("holdDown", &spec.hold_down),
            ("failbackDelay", &spec.failback_delay),
        ];
        for (member, text) in times {
            let Some(text) = text else { continue };
            if duration(text).is_none_or(|time| time > LONGEST) {
                return Err(InvalidPolicy::Duration { member, found: text.chars().take(64).collect() });
            }
        }
        Ok(())
    }
}

impl Tier {
    fn check(&self, tier: usize) -> Result<(), InvalidPolicy> {
        let bad = |found: String, expected| InvalidPolicy::Tier { tier, found, expected };
        if (self.to == Reach::Clusters) == self.clusters.is_empty() {
            let found = format!("{:?} with {} clusters", self.to, self.clusters.len());
            return Err(bad(found, "clusters for Clusters, and for nothing else"));
        }
        if (self.to == Reach::Regions) == self.regions.is_empty() {
            let found = format!("{:?} with {} regions", self.to, self.regions.len());
            return Err(bad(found, "regions for Regions, and for nothing else"));
        }
        for name in &self.clusters {
            name.parse::<ClusterName>().map_err(|problem| InvalidPolicy::Cluster { tier, problem })?;
        }
        let enough = match &self.min_healthy {
            None => true,
            Some(IntOrString::Int(count)) => *count >= 1,
            Some(IntOrString::String(text)) => text
                .strip_suffix('%')
                .and_then(|part| part.parse::<u8>().ok())
                .is_some_and(|part| part <= 100),
        };
        if !enough {
            return Err(bad(format!("minHealthy {:?}", self.min_healthy), "a number from 1, or 0% to 100%"));
        }
        Ok(())
    }
}

/// The time that a text says: numbers, each with ms, s, m or h. `None` if it says none.
pub fn duration(text: &str) -> Option<Duration> {
    let (mut rest, mut total) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        let number: u32 = number.parse().ok()?;
        let unit = match unit {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            _ => return None,
        };
        total = total.checked_add(unit.checked_mul(number)?)?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

const LONGEST: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(spec: serde_json::Value) -> Result<(), String> {
        let spec = serde_json::from_value(spec).expect("of the right shape");
        FailoverPolicy::new("a", spec).check().map_err(|error| error.to_string())
    }

    #[test]
    fn a_policy_as_it_is_meant() {
        let spec = json!({"services": {"names": ["cart"]}, "tiers": [{"to": "SameZone", "minHealthy": "50%"},
            {"to": "SameRegion", "minHealthy": 2}, {"to": "Clusters", "clusters": ["tokyo"]}, {"to": "Any"}],
            "spill": "Proportional", "slowStart": "30s", "holdDown": "1m30s", "failbackDelay": "24h"});
        assert_eq!(check(spec), Ok(()));
    }

    #[test]
    fn what_has_no_meaning_is_said() {
        for (spec, said) in [
            (json!({"tiers": []}), "at least one"),
            (json!({"tiers": [{"to": "Clusters"}]}), "Clusters with 0 clusters"),
            (json!({"tiers": [{"to": "Any", "regions": ["eu"]}]}), "Any with 1 regions"),
            (json!({"tiers": [{"to": "Clusters", "clusters": ["default"]}]}), "cluster name"),
            (json!({"tiers": [{"to": "Any"}, {"to": "SameZone"}]}), "it last"),
            (json!({"tiers": [{"to": "SameZone"}, {"to": "SameZone"}]}), "each tier once"),
            (json!({"tiers": [{"to": "Any", "minHealthy": 0}]}), "minHealthy"),
            (json!({"tiers": [{"to": "Any", "minHealthy": "101%"}]}), "minHealthy"),
            (json!({"tiers": [{"to": "Any"}], "holdDown": "25h"}), "spec.holdDown"),
            (json!({"tiers": [{"to": "Any"}], "slowStart": "soon"}), "spec.slowStart"),
            (
                json!({"tiers": [{"to": "Any"}], "services": {"names": ["a"], "matchLabels": {}}}),
                "one of them",
            ),
        ] {
            let error = check(spec.clone()).expect_err(&spec.to_string());
            assert!(error.contains(said), "{spec}: {error}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(duration("1h1m1s1ms"), Some(Duration::from_millis(3_661_001)));
        assert_eq!(duration("0s"), Some(Duration::ZERO));
        for bad in ["", "s", "1", "1d", "1s2", "-1s", "99999999999s", "1.5s"] {
            assert_eq!(duration(bad), None, "{bad:?}");
        }
    }
}
