//! Cuts: which traffic between clusters the `wan` drops. The whole ruleset is made from the set of cuts and applied in
//! one nft transaction, so that there is never a moment with half of it.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result};

use crate::network;

/// What of the traffic on a link is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Traffic {
    /// Everything but the hub's port: pods, probes.
    Data,
    /// The hub's port alone.
    Control,
    /// Everything.
    All,
}

/// Names what lies between two clusters, or between one cluster and all others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    one: String,
    other: Option<String>,
    traffic: Traffic,
}

impl Link {
    /// Pod traffic and probes between two clusters: everything except the hub's port.
    pub fn data(one: &str, other: &str) -> Self {
        Self::new(one, Some(other), Traffic::Data)
    }

    /// The hub's port (TCP 2379) between two clusters, in both directions.
    pub fn control(one: &str, other: &str) -> Self {
        Self::new(one, Some(other), Traffic::Control)
    }

    /// Everything between two clusters.
    pub fn all(one: &str, other: &str) -> Self {
        Self::new(one, Some(other), Traffic::All)
    }

    /// This traffic between one cluster and every other one.
    pub fn around(cluster: &str, traffic: Traffic) -> Self {
        Self::new(cluster, None, traffic)
    }

    /// The clusters that the link names.
    pub fn clusters(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.one.as_str()).chain(self.other.as_deref())
    }

    fn new(one: &str, other: Option<&str>, traffic: Traffic) -> Self {
        // A link has no direction: the same two names in either order are one link.
        let (one, other) = match other {
            Some(other) if other < one => (other, Some(one)),
            other => (one, other),
        };
        Self { one: one.to_owned(), other: other.map(str::to_owned), traffic }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let other = self.other.as_deref().unwrap_or("*");
        write!(f, "{}-{other} {:?}", self.one, self.traffic)
    }
}

/// The ruleset that drops exactly this. `ids` gives the cluster id by name; links of unknown clusters are left out (the
/// lab refuses them before).
pub fn ruleset<'a>(cuts: impl IntoIterator<Item = &'a Link>, ids: &BTreeMap<String, u8>) -> String {
    let mut rules = String::from(TABLE);
    for link in cuts {
        let Some(one) = ids.get(&link.one) else { continue };
        let other = match &link.other {
            Some(name) => match ids.get(name) {
                Some(id) => Some(*id),
                None => continue,
            },
            None => None,
        };
        for (from, to) in [(Some(*one), other), (other, Some(*one))] {
            let mut matches = String::new();
            if let Some(id) = from {
                matches.push_str(&format!("iifname \"c{id}n*\" "));
            }
            if let Some(id) = to {
                matches.push_str(&format!("oifname \"c{id}n*\" "));
            }
            if link.other.is_none() {
                // Its own nodes keep talking to each other.
                let (side, id) = if from.is_some() { ("oifname", one) } else { ("iifname", one) };
                matches.push_str(&format!("{side} != \"c{id}n*\" "));
            }
            let verdict = match link.traffic {
                Traffic::Data => "jump data",
                Traffic::Control => "jump control",
                Traffic::All => "drop",
            };
            rules.push_str(&format!("add rule inet cuts forward {matches}{verdict}\n"));
        }
    }
    rules
}

/// Makes the wan drop exactly these links.
pub fn apply<'a>(
    wan: &str,
    cuts: impl IntoIterator<Item = &'a Link>,
    ids: &BTreeMap<String, u8>,
) -> Result<()> {
    let rules = ruleset(cuts, ids);
    network::run_in(wan, &format!("nft -f - <<'EOF'\n{rules}EOF\n")).context("apply cuts")
}

/// The chains. `data` is written with returns: nft 1.0.6 merges `tcp sport != 2379 tcp dport != 2379` into one comparison
/// of both ports at once, which is true for every packet.
const TABLE: &str = "\
table inet cuts {
  chain data {}
  chain control {}
  chain forward { type filter hook forward priority 0; policy accept; }
}
flush table inet cuts
add rule inet cuts data tcp sport 2379 return
add rule inet cuts data tcp dport 2379 return
add rule inet cuts data drop
add rule inet cuts control tcp sport 2379 drop
add rule inet cuts control tcp dport 2379 drop
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_has_no_direction() {
        assert_eq!(Link::data("paris", "tokyo"), Link::data("tokyo", "paris"));
    }

    #[test]
    fn both_directions_are_dropped() {
        let ids = BTreeMap::from([("paris".to_owned(), 1), ("tokyo".to_owned(), 2)]);
        let rules = ruleset([&Link::control("paris", "tokyo")], &ids);
        for line in [
            "add rule inet cuts forward iifname \"c1n*\" oifname \"c2n*\" jump control",
            "add rule inet cuts forward iifname \"c2n*\" oifname \"c1n*\" jump control",
        ] {
            assert!(rules.contains(line), "{line} is not in\n{rules}");
        }
    }

    #[test]
    fn a_cluster_cut_from_all_keeps_its_own_links() {
        let ids = BTreeMap::from([("paris".to_owned(), 1)]);
        let rules = ruleset([&Link::around("paris", Traffic::All)], &ids);
        assert!(rules.contains("iifname \"c1n*\" oifname != \"c1n*\" drop"), "{rules}");
        assert!(rules.contains("oifname \"c1n*\" iifname != \"c1n*\" drop"), "{rules}");
    }
}
